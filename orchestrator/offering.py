"""What is on offer: instance types by name or by need, in every zone and market, at the price that AWS tells now. What
has no price is no offer, and said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.compatible import markets_of, pair_misfits, type_misfits
from orchestrator.errors import PriceUnknown, UsageError
from orchestrator.ports import CloudReader
from orchestrator.resources import Image, InstanceType, Market, Offer, Price
from orchestrator.spec import RunSpec

_TOO_OLD = frozenset({"K520", "K80", "M60", "P100", "V100"})
"""GPUs that the drivers of today's images do not know: never chosen by need, only by name."""


@dataclass(frozen=True, slots=True)
class Offering:
    """The offers, and what has no price."""

    offers: tuple[Offer, ...]
    notes: tuple[str, ...]


def types_of(reader: CloudReader, spec: RunSpec, image: Image) -> tuple[InstanceType, ...]:
    """The types that may be rented. `UsageError` for one that was named and cannot serve, or if nothing meets the
    need.
    """
    return _needed_types(reader, spec, image) if spec.by_need else _named_types(reader, spec, image)


def offering(
    reader: CloudReader, spec: RunSpec, types: Sequence[InstanceType], *, subnets: Mapping[str, str]
) -> Offering:
    """Every type in every zone of `subnets` and every market of the spec. `UsageError` for a type that was named and
    is to be had in no zone, `PriceUnknown` if nothing has a price.
    """
    zones = _zones(reader, spec, types, subnets)
    priced = _priced(reader, spec, types)
    offers: list[Offer] = []
    unpriced: dict[Market, list[str]] = {market: [] for market in spec.markets}
    for found in types:
        for market in markets_of(found, spec.markets):
            told = {zone: priced.get((market, found.name, zone)) for zone in zones[found.name]}
            offers += [_offer(found, market, zone, subnets[zone], price) for zone, price in told.items() if price]
            unpriced[market] += _unpriced(found.name, told)
    if not offers:
        names = ", ".join(found.name for found in types)
        raise PriceUnknown(
            f"instance type {names}: AWS tells no {' or '.join(spec.markets)} price in {reader.region}; "
            "nothing is rented blind: choose another type or market"
        )
    return Offering(tuple(offers), tuple(_notes(unpriced)))


def _named_types(reader: CloudReader, spec: RunSpec, image: Image) -> tuple[InstanceType, ...]:
    types = reader.instance_types(spec.instance_types)
    missing = set(spec.instance_types) - {found.name for found in types}
    for name in spec.instance_types:
        if name in missing:
            raise UsageError(f"instance type {name}: there is none of that name in {spec.region}")
    for found in types:
        for misfit in (*type_misfits(found, spec.markets), *pair_misfits(image, found)):
            raise UsageError(f"instance type {found.name}: {misfit}")
    return types


def _needed_types(reader: CloudReader, spec: RunSpec, image: Image) -> tuple[InstanceType, ...]:
    gpus, memory_gib = spec.gpus or 1, spec.gpu_memory_gib or 0.0
    having = [
        found
        for found in reader.gpu_types()
        if found.gpus >= gpus and _rounded(found.gpu_memory_gib) >= memory_gib and found.gpu_name not in _TOO_OLD
    ]
    fitting = [found for found in having if not any((*type_misfits(found, spec.markets), *pair_misfits(image, found)))]
    if not fitting:
        wanted = f"gpus = {gpus}" + (f", gpu_memory_gib = {memory_gib:g}" if memory_gib else "")
        first = having[0] if having else None
        why = next(iter((*type_misfits(first, spec.markets), *pair_misfits(image, first))), "") if first else ""
        raise UsageError(
            f"{wanted}: no instance type of {spec.region} has it"
            + (f" and fits ({first.name}: {why})" if first else "")
        )
    return tuple(fitting)


def _rounded(gib: float) -> float:
    """What a GPU of `gib` is sold as: an L4 of 22.35 GiB as one of 24."""
    return next((size for size in (16, 24, 32, 40, 48, 80, 96, 141, 180, 288) if 0.92 * size <= gib <= size), gib)


def _zones(
    reader: CloudReader, spec: RunSpec, types: Sequence[InstanceType], subnets: Mapping[str, str]
) -> Mapping[str, Sequence[str]]:
    """Zones of `subnets` that offer each type."""
    offered = reader.zones([found.name for found in types])
    usable = {found.name: sorted(offered[found.name] & set(subnets)) for found in types}
    for name, zones in usable.items():
        if not zones and not spec.by_need:
            raise UsageError(
                f"instance type {name}: {_nowhere(offered[name], reader.region)}; choose another type or region"
            )
    return usable


def _nowhere(zones: frozenset[str], region: str) -> str:
    if not zones:
        return f"no zone of {region} offers it"
    return f"it is offered in {', '.join(sorted(zones))}, where there is no default subnet with free addresses"


def _priced(reader: CloudReader, spec: RunSpec, types: Sequence[InstanceType]) -> "_Prices":
    names = {
        market: [found.name for found in types if market in markets_of(found, spec.markets)] for market in spec.markets
    }
    on_demand, spot = names.get(Market.ON_DEMAND), names.get(Market.SPOT)
    return _Prices(
        on_demand=reader.on_demand_prices(on_demand) if on_demand else {},
        spot=reader.spot_prices(spot) if spot else {},
    )


@dataclass(frozen=True, slots=True)
class _Prices:
    """On demand by type, spot by type and zone."""

    on_demand: Mapping[str, Price]
    spot: Mapping[tuple[str, str], Price]

    def get(self, wanted: tuple[Market, str, str]) -> Price | None:
        """The price of a market, type and zone."""
        market, name, zone = wanted
        return self.spot.get((name, zone)) if market is Market.SPOT else self.on_demand.get(name)


def _offer(found: InstanceType, market: Market, zone: str, subnet_id: str, price: Price) -> Offer:
    return Offer(
        instance_type=found.name,
        zone=zone,
        subnet_id=subnet_id,
        market=market,
        usd_per_hour=price.usd_per_hour,
        gpus=found.gpus,
        gpu_name=found.gpu_name,
        gpu_memory_gib=found.gpu_memory_gib,
        price_since=price.since,
        efa=found.efa,
    )


def _unpriced(name: str, told: Mapping[str, Price | None]) -> Iterator[str]:
    zones = [zone for zone, price in told.items() if price is None]
    if zones:
        yield name if len(zones) == len(told) else f"{name} in {'/'.join(zones)}"


def _notes(unpriced: Mapping[Market, Sequence[str]]) -> Iterator[str]:
    for market, names in unpriced.items():
        if names:
            yield f"not on offer, as AWS tells no {market.value.replace('_', ' ')} price: {', '.join(names)}"
