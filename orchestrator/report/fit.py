"""Whether and for how much the training fits what is on offer, for people and for programs."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from orchestrator.fit import GIB, LEFT_OUT, Fits, OfferFit, SmallestType
from orchestrator.report.units import seconds_text

_LEAST_SECONDS = 0.1
_TYPES_A_LINE = 4
_LEAST_USD = Decimal("0.0001")
_VERDICTS = {True: "yes", False: "no", None: "?"}


def fit_rows(fits: Fits) -> Iterator[tuple[str, str]]:
    """Rows of the plan: a label, which may be empty, and a line."""
    if fits.unknown:
        yield "fit", f"not known: {fits.unknown}"
        return
    columns = ("GiB a GPU", "of", "fits", "an epoch", "USD", "all epochs", "USD")
    yield "fit", _line("", columns)
    for fit in fits.by_type:
        yield "", _line(fit.offer.instance_type, _cells(fit))
    yield "", "times are the least possible, USD the price of the instances for them"
    yield from _labelled("held by", _smallest_lines(fits.smallest))
    yield from _labelled("left out", LEFT_OUT)
    yield from _labelled("assumed", fits.assumptions)


def fits_json(fits: Fits) -> dict[str, Any]:
    """The fit of every instance type surveyed, as plain values."""
    return {
        "unknown": fits.unknown or None,
        "types": [{"instance_type": fit.offer.instance_type, **fit_json(fit)} for fit in fits.by_type],
        "smallest": [
            {"instance_type": one.name, "gpus": one.gpus, "gpu": one.gpu, "usd_per_hour": _text(one.usd_per_hour)}
            for one in fits.smallest
        ],
        "left_out": list(LEFT_OUT),
        "assumptions": list(fits.assumptions),
    }


def fit_json(fit: OfferFit) -> dict[str, Any]:
    """One fit. What is not known is null; times are the least possible, prices the instances' alone."""
    return {
        "bytes_per_gpu": fit.bytes_per_gpu,
        "gib_per_gpu": round(fit.bytes_per_gpu / GIB, 3),
        "gpu_memory_gib": fit.offer.gpu_memory_gib,
        "fits": fit.holds,
        "epoch_seconds": fit.epoch_seconds,
        "epoch_usd": _text(fit.epoch_usd),
        "training_seconds": fit.training_seconds,
        "training_usd": _text(fit.training_usd),
        "bound": fit.bound,
    }


def _labelled(label: str, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    return (("" if place else label, line) for place, line in enumerate(lines))


def _line(name: str, cells: tuple[str, ...]) -> str:
    widths = (9, 6, 5, 13, 9, 13, 9)
    return f"{name:<14}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _cells(fit: OfferFit) -> tuple[str, ...]:
    return (
        f"{fit.bytes_per_gpu / GIB:,.2f}",
        f"{fit.offer.gpu_memory_gib:,.1f}",
        _VERDICTS[fit.holds],
        _time_text(fit.epoch_seconds),
        _usd_text(fit.epoch_usd),
        _time_text(fit.training_seconds),
        _usd_text(fit.training_usd),
    )


def _time_text(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"< {_LEAST_SECONDS} s" if seconds < _LEAST_SECONDS else seconds_text(seconds)


def _usd_text(usd: Decimal | None) -> str:
    if usd is None:
        return "?"
    return f"< {_LEAST_USD}" if usd < _LEAST_USD else f"{usd:,.4f}" if usd < 1 else f"{usd:,.2f}"


def _smallest_lines(smallest: Sequence[SmallestType]) -> list[str]:
    if not smallest:
        return ["no instance type known here"]
    told = [_smallest_text(one) for one in smallest]
    lines = [", ".join(told[place : place + _TYPES_A_LINE]) for place in range(0, len(told), _TYPES_A_LINE)]
    return [*lines, "and larger ones; USD an hour where on offer"]


def _smallest_text(one: SmallestType) -> str:
    price = "" if one.usd_per_hour is None else f" {one.usd_per_hour.normalize():f} USD"
    return f"{one.text} ({one.gpus} × {one.gpu}){price}"


def _text(usd: Decimal | None) -> str | None:
    return None if usd is None else str(usd)
