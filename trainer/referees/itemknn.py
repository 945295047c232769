"""Neighbours by cosine: a feature scores the sum of its similarities to the known ones among its nearest features.

The similarity of features that `c` samples have both is c / (√(n_i n_j) + shrink), `n` samples having each (Sarwar et
al. 2001; the shrinkage as in Dacrema et al. 2019).
"""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from trainer.referees.choosing import Choosing
from trainer.referees.ranking import Referee, Scorer, best_of, rows_at_once

_NEIGHBOURS = (20, 50, 100, 200)
_SHRINKS = (0.0, 10.0, 100.0)
_DEFAULT = (100, 10.0)


def fit(matrix: Any, choosing: Choosing, _seed: int) -> Referee:
    """From the CSR matrix [samples, live]: of 20, 50, 100, 200 neighbours and shrinkages 0, 10, 100; without validation
    100 and 10.
    """
    live = matrix.shape[1]

    def fitted(setting: tuple[int, float]) -> Scorer:
        count, shrink = setting
        weights = similarities(matrix, count=count, shrink=shrink)
        return Scorer(f"k {count}, shrink {shrink:g}", live, lambda known: (known @ weights).toarray())

    return choosing.fitted(list(product(_NEIGHBOURS, _SHRINKS)), _DEFAULT, fitted)


def similarities(matrix: Any, *, count: int, shrink: float) -> Any:
    """CSR matrix [live, live]: column `j` has the similarities of the `count` features nearest to `j`, ties by lower
    id, none of them 0.
    """
    live = matrix.shape[1]
    columns = matrix.T.tocsr()  # [samples, live] -> [live, samples]
    norms = np.sqrt(columns.sum(axis=1, dtype=np.float32))
    found: list[tuple[npt.NDArray[Any], ...]] = []
    step = rows_at_once(live)
    for start in range(0, live, step):
        both = (columns[start : start + step] @ matrix).toarray()  # [block, live]
        rows = np.arange(len(both))
        both[rows, start + rows] = 0
        both /= np.maximum(norms[start : start + step, None] * norms + np.float32(shrink), np.float32(1))
        nearest = best_of(both, count)
        near = np.where(nearest >= 0, both[rows[:, None], nearest], 0)
        at, rank = np.nonzero(near)
        found.append((near[at, rank], nearest[at, rank], start + at))
    value, neighbour, feature = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return csr_array((value, (neighbour, feature)), shape=(live, live))
