"""Referee what most samples have. It has no settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.referees.choosing import Choosing
from trainer.referees.ranking import blocks
from trainer.sparse import SparseDataset


@dataclass(frozen=True, slots=True)
class Popularity:
    """Features by how many samples have them."""

    best_first: npt.NDArray[np.int32]
    """[live] every feature."""
    described: str = ""

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """As `Recommends` has it, without a score for every feature."""
        place = np.empty(len(self.best_first), np.int64)
        place[self.best_first] = np.arange(len(self.best_first))
        for matrix in blocks(known, len(self.best_first)):
            bounds = zip(matrix.indptr, matrix.indptr[1:], strict=False)
            yield np.stack([self._unseen(place[matrix.indices[first:last]], k) for first, last in bounds])

    def _unseen(self, seen: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int32]:
        reach = min(k + len(seen), len(self.best_first))
        kept = np.ones(reach, bool)
        kept[seen[seen < reach]] = False
        found = self.best_first[:reach][kept][:k]
        return np.pad(found, (0, k - len(found)), constant_values=-1)


def fit(matrix: Any, _choosing: Choosing, _seed: int) -> Popularity:
    """Counts the CSR matrix [samples, live]; ties by lower id."""
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return Popularity(np.argsort(-counts, kind="stable").astype(np.int32))
