"""Settings chosen by what they reach on a validation part."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from trainer.data.split import HeldOut, answerable
from trainer.metrics import hits, ranking_values
from trainer.referees.ranking import Referee

_K = 100
Setting = TypeVar("Setting")


class Choosing:
    """Chooses one setting, once: by nDCG@100 on validation samples, or the default where there are none."""

    def __init__(self, validation: HeldOut | None) -> None:
        self._validation = validation
        self._chosen: list[Any] = []

    def fitted(self, grid: Sequence[Setting], default: Setting, fit: Callable[[Setting], Referee]) -> Referee:
        """What is fitted with the setting of the grid that is best, the first of equals. A second call takes the
        setting of the first. The best one is fitted again, so that there is only one at a time.
        """
        if not self._chosen:
            validation = self._validation
            if validation is None or not validation.wanted.nnz:
                self._chosen = [default]
            else:
                self._chosen = [max(grid, key=lambda setting: ndcg(fit(setting), validation))]
        return fit(self._chosen[0])


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
