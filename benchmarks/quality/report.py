"""What was found, as Markdown for people and as JSON for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import fill
from typing import Any

from benchmarks.quality.figures import Apart, Figure, apart, figure, verdict
from benchmarks.quality.rows import POPULARITY, SAMPLE
from benchmarks.quality.running import BySeed, Found
from benchmarks.quality.store import About

_HEAD = """# How good the networks recommend

`make quality` wrote this file: it goes on where it was cut short, and measures again what a changed network or other
data make stale. Means have their standard errors, over the seeds' means where there are several, else over users. A
difference is the first model minus the one of the line, user by user, in the first column's metric: its mean with its
standard error likewise, and the interval that holds 95 % of 2,000 bootstrap resamples of all seeds' users together.
Seconds are those of fitting, choosing settings and asking, all seeds together. Settings are those of the first seed;
those of baselines were the best on the validation part, where there is one.
"""
_MADE_UP = "Everything below is of tiny made-up data in the place of the real ones: it runs, and means nothing.\n"
_NONE = "–"
_WIDTH = 120
_WEAK_SAMPLE = (
    f"{SAMPLE} is {{above}} popularity at 10 epochs: a few users make a few steps, in which DSSTNE's sample, to the "
    "letter, learns little more than how popular items are."
)


def markdown(founds: Sequence[Found], *, is_small: bool = False) -> str:
    """The whole file; `is_small` says that its figures mean nothing."""
    lines = [_HEAD, *([_MADE_UP] if is_small else []), *_measured_on(founds), ""]
    lines += ["| | first model | bar | wanted | reached | met |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [_verdict_line(found) for found in founds]
    for found in founds:
        lines += ["", *_section(found)]
    return "\n".join(lines) + "\n"


def as_json(founds: Sequence[Found]) -> dict[str, Any]:
    """Rows by name, each with its models' figures, differences and settings, and its bar; and the seconds of all."""
    return {
        "rows": {found.row.name: _row_json(found) for found in founds},
        "seconds": sum(about.seconds for found in founds for about in _abouts(found)),
        "machines": sorted({about.machine for found in founds for about in _abouts(found)}),
    }


def _measured_on(founds: Sequence[Found]) -> Iterator[str]:
    abouts = [about for found in founds for about in _abouts(found)]
    if not abouts:
        yield "Nothing was measured."
        return
    dates = sorted({about.date for about in abouts})
    when = dates[0] if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}"
    where = "; ".join(sorted({about.machine for about in abouts}))
    total = _duration(sum(about.seconds for about in abouts))
    yield f"Measured {when} on {where}. All {len(abouts)} measurements together took {total}."


def _verdict_line(found: Found) -> str:
    row, known = found.row, verdict(found)
    cells = [f"[{row.title}](#{_anchor(row.title)})", row.models[0], f"{row.metrics[0]} ≥ {row.bar}"]
    if known is None:
        return _line([*cells, _NONE, _NONE, "not measured"])
    met = "yes" if known.met else "no"
    some = f", {known.seeds} of {len(row.seeds)} seeds" if known.seeds < len(row.seeds) else ""
    return _line([*cells, f"{known.wanted:.4f}", f"{known.reached:.4f}", met + some])


def _section(found: Found) -> Iterator[str]:
    row = found.row
    yield f"## {row.title}"
    yield ""
    seeds = f"{'Seeds' if len(row.seeds) > 1 else 'Seed'} {', '.join(map(str, row.seeds))}."
    yield fill(f"{row.about} {seeds}", _WIDTH)
    if found.problem:
        yield f"\n{found.problem}"
        return
    yield ""
    yield _line(["", *row.metrics, f"{row.models[0]} minus it", "95 %", "settings", "seconds"])
    yield _line(["---"] * (len(row.metrics) + 5))
    for name in (*row.models, *(name for name in row.more if name in found.models)):
        yield _model_line(found, name)
    for name, values in row.published.items():
        cells = [f"{value:.4f}" for value in values]
        yield _line([f"{name}, published", *cells, *[_NONE] * 4])
    for note in _notes(found):
        yield "\n" + fill(note, _WIDTH)


def _model_line(found: Found, name: str) -> str:
    row, measured = found.row, found.models.get(name)
    if measured is None:
        return _line([name, *[_NONE] * (len(row.metrics) + 2), "not measured", _NONE])
    some = f" ({len(measured)} of {len(row.seeds)} seeds)" if len(measured) < len(row.seeds) else ""
    cells = [_figure_text(figure(measured, metric)) for metric in row.metrics]
    about = measured[min(measured)].about
    seconds = f"{sum(one.about.seconds for one in measured.values()):,.0f}"
    return _line([name + some, *cells, *_difference_cells(_difference(found, name)), about.described or _NONE, seconds])


def _notes(found: Found) -> Iterator[str]:
    yield from found.row.notes
    sample, popularity = (found.models.get(name) for name in (SAMPLE, POPULARITY))
    above = apart(sample, popularity, found.row.metrics[0]) if sample and popularity else None
    if above is not None and above.low <= 0:
        yield _WEAK_SAMPLE.format(above="below" if above.figure.mean < 0 else "not clearly above")
    if found.failed:
        yield f"Ended with an error: {'; '.join(found.failed)}."


def _difference(found: Found, name: str) -> Apart | None:
    first = found.row.models[0]
    if name == first or first not in found.models:
        return None
    return apart(found.models[first], found.models[name], found.row.metrics[0])


def _difference_cells(difference: Apart | None) -> list[str]:
    if difference is None:
        return [_NONE, _NONE]
    return [_figure_text(difference.figure, signed=True), f"{difference.low:+.4f} to {difference.high:+.4f}"]


def _figure_text(one: Figure, *, signed: bool = False) -> str:
    mean = f"{one.mean:+.4f}" if signed else f"{one.mean:.4f}"
    return mean if one.error is None else f"{mean} ± {one.error:.4f}"


def _row_json(found: Found) -> dict[str, Any]:
    row, known = found.row, verdict(found)
    return {
        "title": row.title,
        "seeds": list(row.seeds),
        "metrics": list(row.metrics),
        "models": {name: _model_json(found, name, measured) for name, measured in found.models.items()},
        "published": {name: list(values) for name, values in row.published.items()},
        "bar": str(row.bar),
        "verdict": None if known is None else {**asdict(known), "met": known.met},
        "problem": found.problem,
        "failed": list(found.failed),
    }


def _model_json(found: Found, name: str, measured: BySeed) -> dict[str, Any]:
    difference = _difference(found, name)
    return {
        "figures": {metric: asdict(figure(measured, metric)) for metric in found.row.metrics},
        "difference": None if difference is None else asdict(difference),
        "seeds": {str(seed): measured[seed].about.model_dump(exclude={"key"}) for seed in sorted(measured)},
    }


def _abouts(found: Found) -> Iterator[About]:
    return (one.about for measured in found.models.values() for one in measured.values())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 600 else f"{seconds / 60:,.0f} minutes"


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
