"""Settings chosen by what they reach on a validation part."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from trainer.data.split import HeldOut, answerable
from trainer.metrics import hits, ranking_values
from trainer.referees.ranking import Referee

_K = 100
Setting = TypeVar("Setting")


def chosen(
    grid: Sequence[Setting], default: Setting, fitted: Callable[[Setting], Referee], validation: HeldOut | None
) -> Referee:
    """What is `fitted` with the setting of the grid that has the best nDCG@100, the first of equals; with the default
    where there is nothing to choose by. The best one is fitted again, so that there is only one at a time.
    """
    if validation is None or not validation.wanted.nnz:
        return fitted(default)
    return fitted(max(grid, key=lambda setting: ndcg(fitted(setting), validation)))


def ndcg(referee: Referee, validation: HeldOut) -> float:
    """nDCG@100 over the samples of which something is known and something wanted; 0 where there is none."""
    asked = answerable(validation.known, validation.wanted)
    counts = np.diff(asked.wanted.indptr)
    total, row = 0.0, 0
    for ids in referee.best(asked.known, k=_K):
        found = hits(ids, asked.wanted, first=row)
        total += float(ranking_values(found, counts[row : row + len(ids)], ks=(_K,))[f"ndcg@{_K}"].sum())
        row += len(ids)
    return total / max(1, row)
