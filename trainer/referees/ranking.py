"""From scores to the best features: blocks of rows, without what is known of them, ties by lower id."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.recommends import Recommends
from trainer.referees.interactions import interactions
from trainer.sparse import SparseDataset

_ROWS = 1024
_SCORES = 1 << 25
"""Scores that are held at once: 128 MiB."""

Scores = Callable[[Any], npt.NDArray[np.float32]]
"""CSR matrix [rows, live] of what is known to fresh scores [rows, live]; those of known features do not matter."""


class Referee(Recommends, Protocol):
    """A baseline that has learnt; ties by lower id."""

    @property
    def described(self) -> str:
        """Its settings in a few words; empty where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Scorer:
    """Recommends by a score for every feature."""

    described: str
    live: int
    scores: Scores

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """As `Recommends` has it."""
        for matrix in blocks(known, self.live):
            scores = self.scores(matrix)
            scores[matrix.nonzero()] = -np.inf
            yield best_of(scores, k)


def blocks(known: SparseDataset, live: int) -> Iterator[Any]:
    """CSR matrices [rows, live] of a dataset, a block of rows after the other."""
    step = rows_at_once(live)
    for start in range(0, known.samples, step):
        yield interactions(known, live=live, rows=range(start, min(start + step, known.samples)))


def rows_at_once(width: int) -> int:
    """Rows of so many float32 that are held at once."""
    return max(1, min(_ROWS, _SCORES // max(1, width)))


def best_of(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int32]:
    """Ids [rows, k] of the best of scores [rows, features], best first, ties by lower id; -1 where there are no more or
    the score is -inf.
    """
    rows, features = scores.shape
    reach = min(k, features)
    if reach == features:
        ids = np.broadcast_to(np.arange(features), scores.shape)
    else:
        last = np.partition(scores, features - reach, axis=1)[:, features - reach, None]
        above = scores > last
        level = scores == last
        missing = reach - above.sum(axis=1, keepdims=True)
        chosen = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= missing))
        ids = np.nonzero(chosen)[1].reshape(rows, reach)  # [rows, features] -> [rows, reach]
    found = np.take_along_axis(scores, ids, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    ids = np.where(np.isneginf(np.take_along_axis(found, order, axis=1)), -1, ids)
    return np.pad(ids, ((0, 0), (0, k - reach)), constant_values=-1).astype(np.int32)
