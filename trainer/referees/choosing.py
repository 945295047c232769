"""Settings chosen by what they reach on a validation part."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from trainer.data.split import HeldOut
from trainer.metrics import Mean, ranking_means
from trainer.referees.interactions import interactions
from trainer.referees.ranking import Recommends

_K = 100
Setting = TypeVar("Setting")


def chosen(
    grid: Sequence[Setting], default: Setting, fitted: Callable[[Setting], Recommends], validation: HeldOut | None
) -> Recommends:
    """What is `fitted` with the setting of the grid that has the best nDCG@100, the first of equals; with the default
    where there is nothing to choose by. The best one is fitted again, so that there is only one at a time.
    """
    if validation is None or not validation.wanted.nnz:
        return fitted(default)
    return fitted(max(grid, key=lambda setting: ndcg(fitted(setting), validation)))


def ndcg(recommends: Recommends, validation: HeldOut) -> float:
    """nDCG@100 over the samples of which something is wanted."""
    mean, row = Mean(), 0
    width = validation.wanted.width
    for ids in recommends.best(validation.known, k=_K):
        wanted = interactions(validation.wanted, live=width, rows=range(row, row + len(ids)))
        held_out = [wanted.indices[first:last] for first, last in zip(wanted.indptr, wanted.indptr[1:], strict=False)]
        mean = mean.merge(ranking_means(ids, held_out, ks=(_K,))[f"ndcg@{_K}"])
        row += len(ids)
    return mean.compute()
