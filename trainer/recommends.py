"""What a recommender is to those who measure it."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trainer.sparse import SparseDataset


class Recommends(Protocol):
    """A recommender that has learnt."""

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """Ids [rows, k] of the features that each sample of `known`, in its order, should have besides those, best
        first and by blocks of rows; -1 stands where none is left. What is known is never listed.
        """
        ...
