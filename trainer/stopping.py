"""What early stopping remembers between epochs: the best value of a metric, the parameters that reached it, on the
host, and whether the training is to end. How the metric is measured is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from trainer.hosts import from_first, gathered, placed
from trainer.pace import EarlyStopping
from trainer.sharding import tree_shardings
from trainer.state import TrainState

Measure = Callable[[TrainState], float]
"""The metric of a state whose features are in order; higher is better."""
Remembered = dict[str, Any]
"""Parts of a `TrainState`, as NumPy arrays."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What validation said of an epoch, and of the best one so far."""

    metric: str
    value: float
    best: float
    best_epoch: int


class Stopper:
    """Judges every epoch by `measure` and remembers the best, the first of equals. `about` names the validation
    samples, so that a checkpoint of others is refused. Of several processes all have one, and the first one's measure
    counts.
    """

    def __init__(self, rule: EarlyStopping, measure: Measure, *, about: str = "") -> None:
        self.rule, self.about, self._measure = rule, about, measure
        self._epoch = 0
        self.judged: Judged | None = None
        self.kept: Remembered = {}

    @property
    def ended(self) -> bool:
        """Whether the training has learnt what it will."""
        patience = 0 if self.judged is None else self._epoch - self.judged.best_epoch
        return patience >= self.rule.patience and self._epoch >= self.rule.min_epochs

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept; 0 before there is one."""
        return 0 if self.judged is None else self.judged.best_epoch

    def after_epoch(self, epoch: int, state: Callable[[], TrainState]) -> Judged:
        """Measure the state after an epoch, and remember it if none was better."""
        brought = state()
        value = float(from_first(np.array([self._measure(brought)], np.float64))[0])
        before = self.judged
        if before is None or value > before.best:
            self.judged = Judged(self.rule.metric, value, value, epoch)
            self.kept = jax.tree.map(_copied, _lasting(brought))
        else:
            self.judged = Judged(self.rule.metric, value, before.best, before.best_epoch)
        self._epoch = epoch
        return self.judged

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint is to tell beside `kept`."""
        judged = self.judged
        return {"epoch": self._epoch, "judged": judged and [judged.value, judged.best, judged.best_epoch]}

    def restore(self, told: Mapping[str, Any], kept: Remembered) -> None:
        """Go on from what `to_json` told and what was `kept`."""
        self._epoch, self.kept = told["epoch"], kept
        self.judged = told["judged"] and Judged(self.rule.metric, *told["judged"])

    def best(self, last: TrainState, mesh: Mesh) -> TrainState:
        """The state of the best epoch on the devices, features in order. It takes the place of `last`, whose arrays are
        freed first.
        """
        for array in jax.tree.leaves((last.params, last.opt_state, last.statistics)):
            array.delete()
        return last._replace(**placed(self.kept, tree_shardings(self.kept, mesh)), opt_state={})


def shapes_kept(state: TrainState) -> Remembered:
    """Shapes of what is kept, of an abstract state with its features in order."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _lasting(state))


def _lasting(state: TrainState) -> Remembered:
    return {"step": state.step, "params": state.params, "statistics": state.statistics, "brake": state.brake}


def _copied(array: Any) -> Any:
    """A copy on the host: what the devices show of theirs, the next step writes over."""
    return np.array(gathered(array))
