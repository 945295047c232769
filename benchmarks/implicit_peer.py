"""implicit's recommendations from a matrix factorisation of the same width: its fastest way to a top-k."""

from collections.abc import Callable

import numpy as np
from implicit.cpu.matrix_factorization_base import (  # pyright: ignore[reportMissingImports]  # of the peers' own
    MatrixFactorizationBase,
)
from scipy.sparse import csr_matrix  # pyright: ignore[reportMissingImports]

from benchmarks.data import Shape, make_ratings


class _Factors(MatrixFactorizationBase):  # pyright: ignore[reportUntypedBaseClass]
    """Factors that need no fitting: time does not depend on what they hold."""

    def fit(self, *_: object, **__: object) -> None:
        """Never asked for."""

    def save(self, *_: object) -> None:
        """Never asked for."""


def recommendations(*, users: int, items: int, hidden: int, batch: int, k: int) -> Callable[[], float]:
    """The best `k` items of every user that the user does not have yet; counts users."""
    ratings = make_ratings(Shape(users=users, items=items))
    ones = np.ones(len(ratings.indices), np.float32)
    matrix = csr_matrix((ones, ratings.indices, ratings.indptr), shape=(users, items))
    rng = np.random.default_rng(0)
    model = _Factors()
    model.user_factors = rng.random((users, hidden), np.float32)
    model.item_factors = rng.random((items, hidden), np.float32)

    def work() -> float:
        for first in range(0, users, batch):
            some = np.arange(first, min(first + batch, users))
            model.recommend(some, matrix[some], N=k, filter_already_liked_items=True)
        return float(users)

    return work
