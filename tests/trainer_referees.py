"""Tiny datasets for the baselines, and their recommendations as lists."""

from collections.abc import Sequence

import numpy as np

from trainer.recommends import Recommends
from trainer.referees.interactions import interactions
from trainer.sparse import SparseDataset, round_up

LIVE = 9


def dataset(rows: Sequence[Sequence[int]], live: int = LIVE) -> SparseDataset:
    """Features of each sample, of a width rounded up as DSSTNE does."""
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return SparseDataset("d", round_up(live), indptr, np.array([feature for row in rows for feature in row], np.uint32))


def random_matrix(samples: int, live: int, *, density: float = 0.3, seed: int = 0):
    """CSR matrix [samples, live], and the same dense in float64."""
    dense = np.random.default_rng(seed).random((samples, live)) < density
    return interactions(dataset([np.flatnonzero(row).tolist() for row in dense], live), live=live), dense.astype(float)


def answers(recommends: Recommends, known: SparseDataset, k: int) -> list[list[int]]:
    """All blocks one after the other."""
    return [row for ids in recommends.best(known, k=k) for row in ids.tolist()]
