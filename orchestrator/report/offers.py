"""Offers in the order in which they are tried, and those left out, for people as a table and for programs."""

from collections.abc import Sequence
from typing import Any

from orchestrator.fit import OfferFit
from orchestrator.money import rent_usd
from orchestrator.plan import Plan
from orchestrator.report.units import gib_text
from orchestrator.resources import Offer

_HEAD = ("type", "GPUs", "zone", "market", "USD an hour", "since", "at most USD", "the run USD")
_WIDTHS = (18, 24, 14, 11, 12, 18, 12, 12)


def offers_text(plan: Plan) -> str:
    """A table; the last line ends without a line feed."""
    run_usd = {fit.offer: _run_usd(fit) for fit in plan.fits.offers}
    lines = [_line(_HEAD), *(_line(_cells(plan, offer, run_usd.get(offer))) for offer in plan.offers)]
    lines += [
        "",
        f"at most: {plan.spec.max_hours.normalize():f} h of {_machines(plan)}; "
        "the run: the least training time and ten minutes around it",
    ]
    if plan.fits.unknown:
        lines.append(f"what the run costs is not known: {plan.fits.unknown}")
    groups: dict[str, list[Offer]] = {}
    for one in plan.left_out:
        groups.setdefault(one.reason, []).append(one.offer)
    lines += [f"left out: {_names(offers)}: {reason}" for reason, offers in groups.items()]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def offers_json(plan: Plan) -> dict[str, Any]:
    """The same as plain values; what is not known is null."""
    run_usd = {fit.offer: _run_usd(fit) for fit in plan.fits.offers}
    return {
        "region": plan.spec.region,
        "nodes": plan.spec.nodes,
        "observed_at": plan.created_at.isoformat(),
        "offers": [_values(plan, offer, run_usd.get(offer)) for offer in plan.offers],
        "left_out": [
            _values(plan, one.offer, run_usd.get(one.offer)) | {"reason": one.reason} for one in plan.left_out
        ],
        "notes": list(plan.notes),
    }


def _machines(plan: Plan) -> str:
    nodes = plan.spec.nodes
    return "the machine, its disk and address" if nodes == 1 else f"{nodes} machines, their disks and addresses"


def _values(plan: Plan, offer: Offer, run_usd: str | None) -> dict[str, Any]:
    return {
        "instance_type": offer.instance_type,
        "gpus": offer.gpus,
        "gpu": offer.gpu_name,
        "gpu_memory_gib": offer.gpu_memory_gib,
        "zone": offer.zone,
        "market": offer.market.value,
        "usd_per_hour": str(offer.usd_per_hour),
        "price_since": offer.price_since.isoformat() if offer.price_since else None,
        "at_most_usd": _at_most(plan, offer),
        "run_usd": run_usd,
    }


def _cells(plan: Plan, offer: Offer, run_usd: str | None) -> tuple[str, ...]:
    return (
        offer.instance_type,
        f"{offer.gpus} × {offer.gpu_name} {gib_text(offer.gpu_memory_gib)}",
        offer.zone,
        offer.market.value.replace("_", " "),
        f"{offer.usd_per_hour.normalize():f}",
        f"{offer.price_since:%Y-%m-%d %H:%M}" if offer.price_since else "not told",
        _at_most(plan, offer),
        run_usd or "?",
    )


def _at_most(plan: Plan, offer: Offer) -> str:
    return str(
        rent_usd(offer.usd_per_hour, volume_gib=plan.volume_gib, hours=plan.spec.max_hours, machines=plan.spec.nodes)
    )


def _run_usd(fit: OfferFit) -> str | None:
    return None if fit.run_usd is None else f"{fit.run_usd:.4f}"


def _line(cells: Sequence[str]) -> str:
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _names(offers: Sequence[Offer]) -> str:
    told = dict.fromkeys(f"{offer.instance_type} ({offer.market.value.replace('_', ' ')})" for offer in offers)
    return ", ".join(told)
