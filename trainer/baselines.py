"""Recommenders that a network is measured beside."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from trainer.data.split import HeldOut
from trainer.recommends import Recommends
from trainer.sparse import SparseDataset

NAMES = ("popularity",)
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Popularity:
    """Recommends to every sample the features that most samples have and this one has not; ties by lower id."""

    best_first: npt.NDArray[np.int32]
    """[features]"""

    @classmethod
    def of(cls, training: SparseDataset, *, live: int) -> "Popularity":
        """By the samples of `training` and its first `live` features."""
        counts = np.bincount(training.indices, minlength=live)[:live]
        return cls(np.argsort(-counts, kind="stable").astype(np.int32))

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """As `Recommends` has it."""
        place = np.empty(len(self.best_first), np.int64)
        place[self.best_first] = np.arange(len(self.best_first))
        for start in range(0, known.samples, _ROWS):
            ends = known.indptr[start : start + _ROWS + 1]
            yield np.stack(
                [_unseen(self.best_first, place[known.indices[first:last]], k) for first, last in pairwise(ends)]
            )


def fit(name: str, training: SparseDataset, *, live: int, validation: HeldOut | None, seed: int) -> Recommends:
    """The baseline called `name`, one of `NAMES`, taught the first `live` features of `training`; what it has to choose
    it chooses by `validation`, what is random by `seed`.
    """
    del name, validation, seed
    return Popularity.of(training, live=live)


def _unseen(best_first: npt.NDArray[np.int32], seen: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int32]:
    reach = min(k + len(seen), len(best_first))
    kept = np.ones(reach, bool)
    kept[seen[seen < reach]] = False
    found = best_first[:reach][kept][:k]
    return np.pad(found, (0, k - len(found)), constant_values=-1)
