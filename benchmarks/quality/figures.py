"""The arithmetic of the table: means over seeds with their errors, one model held against another, and a bar."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.quality.running import BySeed, Found
from trainer.bootstrap import paired_difference
from trainer.errors import SettingsError

_RESAMPLES_SEED = 0
_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean and its standard error: of several seeds' means, or, of one seed, of its users."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[_Values]) -> "Figure":
        """Of the values [users] of each seed."""
        several = np.array([one.mean() for one in values]) if len(values) > 1 else values[0]
        error = float(several.std(ddof=1) / np.sqrt(len(several))) if len(several) > 1 else None
        return cls(float(several.mean()), error)


@dataclass(frozen=True, slots=True)
class Apart:
    """By how much a model is above another on the seeds that both have."""

    figure: Figure
    """Of the differences user by user."""
    low: float
    """95 % of the resamples of all seeds' users together lie from here …"""
    high: float
    """… to here."""
    seeds: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a bar is met."""

    wanted: float
    reached: float
    seeds: int
    """That all who matter have."""

    @property
    def met(self) -> bool:
        """Whether at least what is wanted was reached."""
        return self.reached >= self.wanted


def figure(found: BySeed, metric: str) -> Figure:
    """Of a model, that has one seed at least."""
    return Figure.of([found[seed].result.measured.values[metric] for seed in sorted(found)])


def apart(ours: BySeed, theirs: BySeed, metric: str) -> Apart | None:
    """`ours` minus `theirs` by pairs; `None` where they share no seed. Models that were asked otherwise cannot be
    compared: `SettingsError`.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        return None
    pairs: list[tuple[_Values, _Values]] = []
    for seed in shared:
        first, second = ours[seed].result, theirs[seed].result
        if first.asked != second.asked:
            raise SettingsError(f"{first.model} and {second.model} were asked otherwise with seed {seed}")
        pairs.append((first.measured.values[metric], second.measured.values[metric]))
    pooled = [np.concatenate(side) for side in zip(*pairs, strict=True)]
    resampled = paired_difference(pooled[0], pooled[1], seed=_RESAMPLES_SEED)
    return Apart(Figure.of([a - b for a, b in pairs]), resampled.low, resampled.high, len(shared))


def verdict(found: Found) -> Verdict | None:
    """Of the row's first model; `None` where it or one that it is held against was not measured."""
    row, bar = found.row, found.row.bar
    names = (row.models[0], *bar.over)
    if any(name not in found.models for name in names):
        return None
    shared = set.intersection(*(set(found.models[name]) for name in names))
    if not shared:
        return None
    metric = row.metrics[0]

    def mean(name: str) -> float:
        return figure({seed: found.models[name][seed] for seed in shared}, metric).mean

    best = max((mean(name) for name in bar.over), default=0.0)
    return Verdict(best * bar.times + bar.plus, mean(row.models[0]), len(shared))
