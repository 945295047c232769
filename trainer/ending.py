"""A training to its end, as settings and network ask for it: with early stopping on samples kept from it, the best
epoch kept, or the network trained anew for as many epochs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jax.sharding import Mesh

from trainer.data.split import HeldOut, answerable
from trainer.data.validation import hold_out_samples
from trainer.errors import InputError
from trainer.evaluate import NetworkRecommender
from trainer.metrics import measured
from trainer.network_types import NetworkSpec
from trainer.pace import EarlyStopping, metric_k, pace_of
from trainer.predict import Ready
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.state import TrainState
from trainer.stopping import Judged, Measure, Stopper
from trainer.train import Checkpoints, EpochReport, TrainingData, digest_of, train

_REFIT = "refit"
"""Folder of the second training's checkpoints, in that of the first one's."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a training."""

    state: TrainState
    epochs: int
    """It was trained for, the best epoch where it stopped early."""
    judged: Judged | None = None
    """What validation said of the last epoch and of the best; `None` where there was none."""
    refit: bool = False

    def __str__(self) -> str:
        if self.judged is None:
            return f"trained for {self.epochs} epochs"
        best = f"{self.judged.metric} {self.judged.best:.4f}"
        if self.refit:
            return f"trained anew on all samples for {self.epochs} epochs, the best number: {best}"
        return f"kept epoch {self.epochs}: {best}"


def train_to_its_end(
    spec: NetworkSpec,
    data: TrainingData,
    settings: TrainSettings,
    *,
    mesh: Mesh,
    tell: Callable[[EpochReport], None],
    validation: HeldOut | None = None,
    stopping: EarlyStopping | None = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train `spec` (shapes resolved) as `train` does. Where the network states `EarlyStopping`, or `stopping` is given
    in its place, its metric is measured on `validation`, which must not be trained on, after every epoch; without one,
    samples are taken out of `data` for it. `Refit` counts only then: given samples are nobody's to train on.
    """
    pace = pace_of(spec.training, settings)
    rule = stopping or pace.stopping
    if rule is None or pace.epochs == 0:
        state = train(spec, data, settings, mesh=mesh, tell=tell, checkpoints=checkpoints)
        return Trained(state, pace.epochs)
    refits, rest = rule.refit and validation is None, data
    if validation is None:
        rest, validation = _taken_out(data, rule.validation, settings.seed)
    measure = measure_of(spec, mesh, validation, metric=rule.metric, batch_size=pace.batch_size)
    about = (digest_of(validation.known) + digest_of(validation.wanted)).hex()
    stopper = Stopper(replace(rule, refit=refits), measure, about=about)
    state = train(spec, rest, settings, mesh=mesh, tell=tell, checkpoints=checkpoints, stopper=stopper)
    if refits:
        del state
        again = None if checkpoints is None else replace(checkpoints, folder=checkpoints.folder / _REFIT)
        state = train(spec, data, settings, mesh=mesh, tell=tell, checkpoints=again, until=stopper.best_epoch)
    return Trained(state, stopper.best_epoch, stopper.judged, refits)


def measure_of(spec: NetworkSpec, mesh: Mesh, validation: HeldOut, *, metric: str, batch_size: int) -> Measure:
    """The mean of `metric` over the validation samples that have something wanted."""
    k = metric_k(metric)
    if k is None:
        raise ValueError(f"{metric} names no metric")
    asked = answerable(validation.known, validation.wanted)
    known, wanted = asked.known, asked.wanted
    live = known.width if known.features is None else len(known.features)

    def measure(state: TrainState) -> float:
        ready = Ready(spec, state.params, mesh, state.statistics)
        lists = NetworkRecommender(ready, live, batch_size).best(known, k=k)
        return measured(lists, wanted, known, live=live, ks=(k,)).means()[metric]

    return measure


def _taken_out(data: TrainingData, share: float, seed: int) -> tuple[TrainingData, HeldOut]:
    """What is left to train on, and validation samples."""
    whole = next(iter(data.inputs.values()))
    if not isinstance(whole, SparseDataset) or any(
        one is not whole for one in (*data.inputs.values(), *data.targets.values())
    ):
        raise InputError(
            "EarlyStopping: samples can be kept from training only where every layer has the same sparse dataset"
        )
    rest, validation = hold_out_samples(whole, share=share, seed=seed)
    return TrainingData(dict.fromkeys(data.inputs, rest), dict.fromkeys(data.targets, rest)), validation
