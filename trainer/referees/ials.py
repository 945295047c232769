"""Factors by alternating least squares on everything that is stored and, weighted less, everything that is not (Hu et
al. 2008), regularised by frequency (Rendle et al. 2021, *Revisiting the Performance of iALS on Item Recommendation
Benchmarks*).

It minimises Σ_stored (1 - w_u·h_i)² + α₀ Σ_all (w_u·h_i)² + Σ_u λ (n_u + α₀ features)^ν |w_u|² + Σ_i λ (n_i + α₀
samples)^ν |h_i|², `n` being how many are stored, with ν = 1, 64 factors and 16 sweeps over both sides, each of which
solves exactly. A sample never seen is one more of these solves.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.referees.choosing import Choosing
from trainer.referees.ranking import Referee, Scorer

_FLOATS = 1 << 22
"""Factors that are gathered at once: 16 MiB."""
_ROWS = 1024


class Settings(NamedTuple):
    """What is chosen, and what is given."""

    unobserved: float
    """α₀."""
    strength: float
    """λ."""
    exponent: float = 1.0
    """ν."""
    factors: int = 64
    sweeps: int = 16
    deviation: float = 0.1
    """Of the norm of initial factors."""

    def __str__(self) -> str:
        return f"{self.factors} factors, α₀ {self.unobserved:g}, λ {self.strength:g}"


_GRID = tuple(Settings(unobserved, strength) for unobserved, strength in product((0.1, 0.3, 1.0), (0.003, 0.01, 0.03)))
_DEFAULT = Settings(0.3, 0.01)


def fit(matrix: Any, choosing: Choosing, seed: int) -> Referee:
    """From the CSR matrix [samples, live]: α₀ of 0.1, 0.3, 1 and λ of 0.003, 0.01, 0.03; without validation 0.3 and
    0.01.
    """

    def fitted(settings: Settings) -> Scorer:
        _, features = learnt(matrix, settings, seed)

        def scores(known: Any) -> npt.NDArray[np.float32]:
            return solved(features, known, settings) @ features.T  # [rows, factors] -> [rows, live]

        return Scorer(str(settings), matrix.shape[1], scores)

    return choosing.fitted(_GRID, _DEFAULT, fitted)


def learnt(matrix: Any, settings: Settings, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factors of samples [samples, factors] and of features [live, factors]; a sweep solves samples, then features."""
    rng = np.random.default_rng(seed)
    scale = settings.deviation / np.sqrt(settings.factors)
    features = rng.normal(0, scale, (matrix.shape[1], settings.factors)).astype(np.float32)
    samples = np.zeros((matrix.shape[0], settings.factors), np.float32)
    columns = matrix.T.tocsr()  # [samples, live] -> [live, samples]
    for _ in range(settings.sweeps):
        samples = solved(features, matrix, settings)
        features = solved(samples, columns, settings)
    return samples, features


def solved(other: npt.NDArray[np.float32], rows: Any, settings: Settings) -> npt.NDArray[np.float32]:
    """The best factors [rows, factors] of the rows of a CSR matrix [rows, others], given those of the other side
    [others, factors]: rows of similar lengths are gathered and solved together.
    """
    count, factors = other.shape
    lengths = np.diff(rows.indptr)
    strengths = settings.strength * (lengths + settings.unobserved * count) ** settings.exponent
    shared = settings.unobserved * (other.T @ other)
    padded = np.concatenate([other, np.zeros((1, factors), np.float32)])
    indices = np.append(rows.indices, count)
    answers = np.empty((len(lengths), factors), np.float32)
    longest_first = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(lengths):
        longest = int(lengths[longest_first[start]])
        step = max(1, min(_ROWS, _FLOATS // (factors * max(longest, factors))))
        chosen_rows = longest_first[start : start + step]
        rank = np.arange(longest)
        inside = rank < lengths[chosen_rows, None]
        places = np.where(inside, rows.indptr[chosen_rows, None] + rank, len(indices) - 1)
        own = padded[indices[places]]  # [block, longest, factors]
        left = own.transpose(0, 2, 1) @ own + shared  # [block, factors, factors]
        left[:, range(factors), range(factors)] += strengths[chosen_rows, None].astype(np.float32)
        answers[chosen_rows] = np.linalg.solve(left, own.sum(axis=1)[..., None])[..., 0]
        start += step
    return answers
