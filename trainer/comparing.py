"""Measurements kept, read again and told beside each other: one file a model, with what every sample gave, so that two
of the same samples can be compared by pairs.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.bootstrap import Difference, paired_difference
from trainer.data.split import HeldOut
from trainer.errors import DataError, SettingsError
from trainer.filing import replacing
from trainer.metrics import Measured

_SHOWN = ("recall@20", "recall@50", "ndcg@100", "mrr@10", "coverage@100")
"""Columns of a table whose columns nobody chose, as far as they were measured."""

_NO_MEASUREMENT = "is no measurement; `trainer evaluate --out` writes such files"
_DAMAGED = (
    *(ValueError, KeyError, EOFError, TypeError, AttributeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What NumPy makes of a file that is no archive of arrays."""


@dataclass(frozen=True, slots=True)
class Result:
    """A model measured on the samples of `asked`, which stands for what is known and wanted of them."""

    model: str
    asked: str
    measured: Measured


def digest(asked: HeldOut) -> str:
    """What tells samples, known and wanted features apart from others."""
    found = hashlib.sha256()
    for part in (asked.known, asked.wanted):
        found.update("\n".join(part.sample_names or ()).encode("utf-8", "surrogateescape"))
        found.update(part.indptr.tobytes() + np.asarray(part.indices).tobytes())
    return found.hexdigest()


def write_result(result: Result, path: Path) -> None:
    """Write `result` as NumPy's .npz, an array a metric, aside and renamed."""
    about = {"model": np.array(result.model), "asked": np.array(result.asked)}
    coverage = {name: np.array(value) for name, value in result.measured.coverage.items()}
    with replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **about, **result.measured.values, **coverage)


def read_result(path: Path) -> Result:
    """What `write_result` left at `path`."""
    try:
        # Opened here: NumPy leaves open what turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, npt.NDArray[Any]] = {name: stored[name] for name in stored.files}
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    except _DAMAGED as error:
        raise DataError(_NO_MEASUREMENT, path) from error
    model, asked = (str(arrays.pop(name, "")) for name in ("model", "asked"))
    values = {name: array for name, array in arrays.items() if array.ndim == 1}
    coverage = {name: array for name, array in arrays.items() if array.ndim == 0}
    lengths = {len(array) for array in values.values()}
    are_numbers = all(array.dtype == np.float64 and np.isfinite(array).all() for array in arrays.values())
    if not are_numbers or len(values) + len(coverage) < len(arrays) or len(lengths) != 1 or 0 in lengths:
        raise DataError(_NO_MEASUREMENT, path)
    return Result(model, asked, Measured(values, {name: float(array) for name, array in coverage.items()}))


def keep(results: Sequence[Result], folder: Path) -> None:
    """Write each result to `folder`, made if need be, by its model's name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"no measurement can be written here: {error.strerror}", folder) from error
    for result in results:
        write_result(result, folder / f"{result.model}.npz")


def differences(first: Result, second: Result, *, seed: int) -> dict[str, Difference]:
    """By how much `first` is above `second`, by the metrics that both have of every sample. Measurements of different
    samples cannot be compared: `SettingsError`.
    """
    if first.asked != second.asked:
        raise SettingsError("the two were measured on other samples or other features; measure both on one split")
    ours, theirs = first.measured.values, second.measured.values
    return {name: paired_difference(ours[name], theirs[name], seed=seed) for name in ours if name in theirs}


def headline(names: Sequence[str]) -> str:
    """The metric by which models are compared first: nDCG@100, else nDCG at the largest k there is."""
    found = [name for name in names if name.startswith("ndcg@")]
    return "ndcg@100" if "ndcg@100" in found else max(found, key=lambda name: int(name.partition("@")[2]))


def table(results: Sequence[Result], *, shown: Sequence[str], seed: int) -> str:
    """A row a model, with means ± standard errors, and by how much the first one is above each other. `shown` are the
    columns, some usual ones if there are none.
    """
    first, *others = results
    names = list(first.measured.means())
    unknown = [name for name in shown if name not in names]
    if unknown:
        raise SettingsError(f"show: {unknown[0]} was not measured; there is {', '.join(names)}")
    shown = shown or [name for name in _SHOWN if name in names] or [headline(names)]
    main = headline(names)
    apart = {other.model: differences(first, other, seed=seed)[main] for other in others}
    rows = [["", *shown, f"{first.model} minus it, {main}"]]
    for one in results:
        told = _difference_text(apart[one.model]) if one.model in apart else ""
        rows.append([one.model, *(_mean_text(one.measured, name) for name in shown), told])
    return _columns(rows)


def as_json(results: Sequence[Result], *, seed: int) -> dict[str, Any]:
    """Means by `model.metric`; `standard_errors` of the same names; and under `differences` by model how the first one
    compares to it in the metric that is looked at first.
    """
    first, *others = results
    main = headline(list(first.measured.values))
    means = {f"{one.model}.{name}": mean for one in results for name, mean in one.measured.means().items()}
    errors = {
        f"{one.model}.{name}": one.measured.standard_error(name) for one in results for name in one.measured.values
    }
    apart = {other.model: {"metric": main, **asdict(differences(first, other, seed=seed)[main])} for other in others}
    return {**means, "standard_errors": errors, "differences": apart}


def comparison(first: Result, second: Result, *, seed: int) -> str:
    """A row a metric: both means, the difference with its interval, and how often resamples found none."""
    names = (first.model, second.model) if first.model != second.model else ("first", "second")
    rows = [["", *names, "difference", "resamples ≤ 0"]]
    ours, theirs = first.measured.means(), second.measured.means()
    for name, apart in differences(first, second, seed=seed).items():
        share = f"{apart.not_above:.1%}"
        rows.append([name, f"{ours[name]:.4f}", f"{theirs[name]:.4f}", _difference_text(apart), share])
    return _columns(rows)


def _mean_text(measured: Measured, name: str) -> str:
    mean, error = measured.means()[name], measured.standard_error(name)
    return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


def _difference_text(apart: Difference) -> str:
    return f"{apart.mean:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)
