"""The plan: what a run will do, computed from what was asked (`RunSpec`) and what was observed
(`Facts`). Pure: no call, no clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from orchestrator.errors import UsageError
from orchestrator.fit import NOT_ASKED, Fits, Needs, fit_notes, fits_of, holding
from orchestrator.money import rent_usd
from orchestrator.resources import (
    Account,
    BucketFolder,
    FarData,
    Image,
    InstanceType,
    LeftOut,
    Manifest,
    Market,
    Offer,
    Tagged,
)
from orchestrator.spec import RunSpec

_OLD = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class Placement:
    """The default VPC and, by zone, its subnet."""

    vpc_id: str
    subnet_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the survey found. `leftovers` are resources of earlier runs that still exist."""

    account: Account
    image: Image
    instance_types: tuple[InstanceType, ...]
    offers: tuple[Offer, ...]
    placement: Placement
    ingress_cidr: str
    quota_notes: tuple[str, ...]
    leftovers: tuple[Tagged, ...]
    observed_at: datetime
    price_notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    """What the quotas have no room for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done. Offers are in the order in which they will be tried; `left_out` in no order."""

    run_id: str
    spec: RunSpec
    account: Account
    image: Image
    offers: tuple[Offer, ...]
    placement: Placement
    ingress_cidr: str
    manifest: Manifest
    created_at: datetime
    expires_at: datetime
    worst_case_usd: Decimal
    volume_gib: int
    fits: Fits
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    kept_in: BucketFolder | None = None
    """Where the machine itself puts what it makes."""
    far_data: FarData | None = None
    """What the machine itself fetches."""


def make_plan(spec: RunSpec, facts: Facts, *, manifest: Manifest, run_id: str, needs: Needs = NOT_ASKED) -> Plan:
    """Order the offers: types that were named as they were named and then by price; types found by need, and
    `market = "cheapest"`, by what the run costs; with `fallback` spot before the rest. Keep those that hold the
    training and are within the user's caps. The worst case is the dearest of them for `max_hours`. `UsageError` if none
    is kept.
    """
    volume_gib = max(spec.volume_gib, facts.image.root_size_gib)
    epochs, nodes = spec.settings.epochs_in_all, spec.nodes
    ordered = _ordered(spec, fits_of(facts.offers, needs, epochs=epochs, nodes=nodes), facts.offers)
    fits = fits_of(ordered, needs, epochs=epochs, nodes=nodes)
    large_enough = holding(ordered, fits, must_fit=spec.must_fit)
    offers = _affordable(spec, large_enough, volume_gib=volume_gib)
    first = offers[0].instance_type
    return Plan(
        run_id=run_id,
        spec=spec,
        account=facts.account,
        image=facts.image,
        offers=offers,
        placement=facts.placement,
        ingress_cidr=facts.ingress_cidr,
        manifest=manifest,
        created_at=facts.observed_at,
        expires_at=facts.observed_at
        + timedelta(hours=float(spec.max_hours), minutes=float(spec.wait_capacity_minutes)),
        worst_case_usd=max(_rent(spec, offer, volume_gib=volume_gib) for offer in offers),
        volume_gib=volume_gib,
        fits=fits,
        notes=(
            *_notes(spec, facts, fits, before=large_enough, offers=offers),
            *fit_notes(fits, must_fit=spec.must_fit, max_hours=spec.max_hours, first=first),
        ),
        left_out=(
            *facts.left_out,
            *(LeftOut(offer, "its GPUs are too small") for offer in ordered if offer not in large_enough),
            *(LeftOut(offer, "it costs more than you allow") for offer in large_enough if offer not in offers),
        ),
    )


def new_run_id(name: str, now: datetime, entropy: str) -> str:
    """`20261124-0402-movielens-3f9a2c`: sorts by time, tells the run's name, differs by `entropy`."""
    return f"{now:%Y%m%d-%H%M}-{name}-{entropy}"


def _ordered(spec: RunSpec, fits: Fits, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    rank = {name: place for place, name in enumerate(spec.instance_types)}
    run_usd = {fit.offer: fit.run_usd for fit in fits.offers}

    def place(offer: Offer) -> tuple[bool, int, bool, Decimal, Decimal, str, str]:
        by_cost = spec.by_need or spec.market == "cheapest"
        usd = run_usd.get(offer) if by_cost else None
        return (
            spec.fallback and offer.market is Market.ON_DEMAND,
            0 if by_cost else rank[offer.instance_type],
            usd is None,
            offer.usd_per_hour if usd is None else usd,
            offer.usd_per_hour,
            offer.instance_type,
            offer.zone,
        )

    return tuple(sorted(offers, key=place))


def _affordable(spec: RunSpec, offers: tuple[Offer, ...], *, volume_gib: int) -> tuple[Offer, ...]:
    hourly, total = spec.max_usd_per_hour, spec.max_usd
    within = tuple(offer for offer in offers if hourly is None or offer.usd_per_hour * spec.nodes <= hourly)
    if not within:
        least = min(offers, key=lambda offer: offer.usd_per_hour)
        raise UsageError(
            f"max_usd_per_hour = {hourly}: the cheapest offer, {_machines(spec, least)} in {least.zone}, costs "
            f"{least.usd_per_hour * spec.nodes} USD per hour; raise the cap or name cheaper instance types"
        )
    kept = tuple(offer for offer in within if total is None or _rent(spec, offer, volume_gib=volume_gib) <= total)
    if not kept:
        least = min(within, key=lambda offer: offer.usd_per_hour)
        raise UsageError(
            f"max_usd = {total}: {spec.max_hours} h of the cheapest offer, {_machines(spec, least)} in "
            f"{least.zone}, cost {_rent(spec, least, volume_gib=volume_gib)} USD; "
            "raise max_usd or lower max_hours"
        )
    return kept


def _rent(spec: RunSpec, offer: Offer, *, volume_gib: int) -> Decimal:
    return rent_usd(offer.usd_per_hour, volume_gib=volume_gib, hours=spec.max_hours, machines=spec.nodes)


def _machines(spec: RunSpec, offer: Offer) -> str:
    return f"{spec.nodes} × {offer.instance_type}" if spec.nodes > 1 else offer.instance_type


def _notes(
    spec: RunSpec, facts: Facts, fits: Fits, *, before: tuple[Offer, ...], offers: tuple[Offer, ...]
) -> tuple[str, ...]:
    """What to tell; `before` are the offers from which the caps left `offers`."""
    notes = [*facts.price_notes, *facts.quota_notes, *_old_prices(facts, offers)]
    if facts.image.root_size_gib > spec.volume_gib:
        notes.append(f"volume raised from {spec.volume_gib} to {facts.image.root_size_gib} GiB: the image needs it")
    deprecated_at = facts.image.deprecated_at
    if deprecated_at is not None and deprecated_at <= facts.observed_at:
        notes.append(f"{facts.image.image_id} is deprecated since {deprecated_at:%Y-%m-%d}")
    dropped = {offer.instance_type for offer in before} - {offer.instance_type for offer in offers}
    named = [name for name in spec.instance_types if name in dropped] or sorted(dropped)
    if named:
        notes.append(f"{', '.join(named)} cost{'s' if len(named) == 1 else ''} more than you allow")
    if any(offer.market is Market.SPOT for offer in offers):
        notes.append(f"AWS may take a spot machine back at two minutes' notice: {_then(spec)}")
    if spec.nodes > 1:
        notes.append(f"all {spec.nodes} machines or none are rented, in one zone; what ends one of them ends the run")
        if not fits.unknown:
            notes.append("times are reckoned with one machine's links; between machines they are slower")
    if facts.leftovers:
        notes.append(
            f"resources of earlier runs that still exist: {len(facts.leftovers)}; `orchestrator sweep` lists them"
        )
    return tuple(notes)


def _then(spec: RunSpec) -> str:
    if spec.nodes > 1:
        return "a run on several machines would end with its last checkpoint at home"
    if spec.max_interruptions == 0:
        return "the run would end with its last checkpoint at home (max_interruptions = 0)"
    return "the training then goes on on another, within max_hours and max_usd"


def _old_prices(facts: Facts, offers: tuple[Offer, ...]) -> Iterator[str]:
    """Spot prices change with demand, so that one that AWS told long ago is doubtful."""
    for offer in offers:
        since = offer.price_since
        if offer.market is Market.SPOT and since is not None and facts.observed_at - since > _OLD:
            yield (
                f"the spot price of {offer.instance_type} in {offer.zone} is from {since:%Y-%m-%d %H:%M} UTC: "
                "what AWS charges now may differ"
            )
