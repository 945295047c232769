"""Whether one recommender is better than another: the paired bootstrap over samples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the first of two is better in the mean."""

    mean: float
    low: float
    high: float
    """95 % of the resamples' means lie from `low` to `high`."""
    not_above: float
    """Share of resamples whose mean is 0 or less."""


def paired_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> Difference:
    """The mean of `first` - `second`, both [samples] with values of the same samples, at least one; the percentile
    bootstrap (Efron & Tibshirani 1993, chapter 13) draws whole samples, so what makes one hard for both cancels out.
    """
    apart = first - second
    rng = np.random.default_rng(seed)
    at_once = max(_AT_ONCE // len(apart), 1)
    means = np.concatenate(
        [
            apart[rng.integers(len(apart), size=(min(at_once, resamples - start), len(apart)))].mean(axis=1)
            for start in range(0, resamples, at_once)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(apart.mean()), float(low), float(high), float((means <= 0).mean()))
