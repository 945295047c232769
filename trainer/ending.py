"""A training to its end, as settings and network ask for it: with early stopping on samples kept from it, the best
epoch kept, or the network trained anew for as many epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
from jax.sharding import Mesh

from trainer.content import layer_datasets, wants_attributes
from trainer.data.netcdf import Dataset
from trainer.data.split import HeldOut
from trainer.data.validation import at_most, can_hold_out, hold_out_features
from trainer.errors import InputError
from trainer.evaluate import NetworkRecommender
from trainer.fitting import Fit, Judge, best_scales, choose, completed, data_of, sparse_input
from trainer.metrics import measured
from trainer.network_closed_form import closed_layers, trained_part
from trainer.network_types import LayerSpec, NetworkSpec
from trainer.pace import EarlyStopping, metric_k, pace_of
from trainer.predict import Ready
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.state import TrainState
from trainer.stopping import Judged, Measure, Stopper
from trainer.train import Checkpoints, EpochReport, TrainingData, digest_of, train

_MOST_MEASURED = 2000
"""Validation samples that are asked after each epoch."""
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
    fits: tuple[Fit, ...] = ()
    """What was chosen for layers that are fitted in closed form."""

    def __str__(self) -> str:
        return "; ".join([self._ending(), *map(str, self.fits)])

    def _ending(self) -> str:
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
    again: TrainingData | None = None,
    stopping: EarlyStopping | None = None,
    checkpoints: Checkpoints | None = None,
    attributes: SparseDataset | None = None,
) -> Trained:
    """Train `spec` (shapes resolved) as `train` does, and fit what is to be fitted in closed form. Where the network
    states `EarlyStopping`, or `stopping` is given in its place, its metric is measured after every epoch on
    `validation`, which must not be trained on; without one, a share of each sample's features is taken out of `data`
    for it, unless no sample has enough of them: then every epoch is trained. With `Refit` it is in the end trained anew
    on all of `data`; where validation is given, on `again`, if it is. `attributes` (items × attributes) are those that
    profiles among `data` were made of; they are made anew of what is left to train on.
    """
    pace = pace_of(spec.training, settings)
    rule = stopping or pace.stopping
    part = trained_part(spec)
    if rule is not None and validation is None and not can_hold_out(data.targets[spec.output.name]):
        rule = None
    refits, rest = rule is not None and rule.refit and (validation is None or again is not None), data
    if rule is not None and validation is None and (pace.epochs or part is not spec):
        rest, validation = _taken_out(spec, data, attributes, share=rule.validation, seed=settings.seed)
    stages = _Stages(settings, mesh, tell, checkpoints, attributes)
    in_the_end = (again or data) if refits else None
    found = stages.trained(part, data_of(part, rest), rule, validation, refits=refits) if part.layers else None
    fits: tuple[Fit, ...] = ()
    if part is not spec:
        # Chosen before anything has learnt from what it is chosen by.
        before, fits = stages.fitted(spec, found and (part, found), rest, rule, validation)
        found = replace(found or Trained(before, 0), state=before) if in_the_end is None else found
    if in_the_end is None:
        if found is None:
            raise ValueError("a network is trained or fitted, or both")
        return replace(found, fits=fits)
    if found is not None:
        found = stages.trained_anew(part, data_of(part, in_the_end), found)
    if part is spec and found is not None:
        return found
    trained = found and (part, found.state)
    forms = {fit.layer: fit.closed_form for fit in fits}
    state = completed(spec, trained, forms, in_the_end, settings, mesh)
    return replace(found or Trained(state, 0), state=state, fits=fits)


@dataclass(frozen=True, slots=True)
class _Stages:
    """What of a training's circumstances stays the same through its stages."""

    settings: TrainSettings
    mesh: Mesh
    tell: Callable[[EpochReport], None]
    checkpoints: Checkpoints | None
    attributes: SparseDataset | None

    def trained(
        self,
        spec: NetworkSpec,
        data: TrainingData,
        rule: EarlyStopping | None,
        validation: HeldOut | None,
        *,
        refits: bool,
    ) -> Trained:
        """Trained on `data` until it is best."""
        pace, settings, mesh = pace_of(spec.training, self.settings), self.settings, self.mesh
        if rule is None or validation is None or pace.epochs == 0:
            state = train(spec, data, settings, mesh=mesh, tell=self.tell, checkpoints=self.checkpoints)
            return Trained(state, pace.epochs)
        measure = measure_of(
            spec, mesh, validation, metric=rule.metric, batch_size=pace.batch_size, attributes=self.attributes
        )
        about = (digest_of(validation.known) + digest_of(validation.wanted)).hex()
        stopper = Stopper(replace(rule, refit=refits), measure, about=about)
        state = train(spec, data, settings, mesh=mesh, tell=self.tell, checkpoints=self.checkpoints, stopper=stopper)
        return Trained(state, stopper.best_epoch, stopper.judged)

    def trained_anew(self, spec: NetworkSpec, data: TrainingData, before: Trained) -> Trained:
        """Trained on `data` for as many epochs as were best before."""
        kept = self.checkpoints and replace(self.checkpoints, folder=self.checkpoints.folder / _REFIT)
        epochs, judged = before.epochs, before.judged
        for array in jax.tree.leaves((before.state.params, before.state.statistics)):
            array.delete()
        state = train(spec, data, self.settings, mesh=self.mesh, tell=self.tell, checkpoints=kept, until=epochs)
        return Trained(state, epochs, judged, refit=True)

    def fitted(
        self,
        spec: NetworkSpec,
        trained: tuple[NetworkSpec, Trained] | None,
        data: TrainingData,
        rule: EarlyStopping | None,
        validation: HeldOut | None,
    ) -> tuple[TrainState, tuple[Fit, ...]]:
        """With the layers that are fitted in closed form to `data`, and what was chosen for them."""
        judge = None if validation is None else Judge.of(validation, (rule or EarlyStopping()).metric, self.attributes)
        forms = {
            layer.name: choose(layer, sparse_input(data, layer.sources[0]), judge) for layer in closed_layers(spec)
        }
        part = trained and (trained[0], trained[1].state)
        state = completed(spec, part, forms, data, self.settings, self.mesh)
        size = pace_of(spec.training, self.settings).batch_size
        return best_scales(spec, state, forms, self.mesh, judge, batch_size=size)


def measure_of(
    spec: NetworkSpec,
    mesh: Mesh,
    validation: HeldOut,
    *,
    metric: str,
    batch_size: int,
    attributes: SparseDataset | None = None,
) -> Measure:
    """The mean of `metric` over the validation samples that have something wanted, or over some thousand of them."""
    k = metric_k(metric)
    if k is None:
        raise ValueError(f"{metric} names no metric")
    asked = at_most(validation, _MOST_MEASURED)
    known, wanted = asked.known, asked.wanted
    live = known.width if known.features is None else len(known.features)

    def measure(state: TrainState) -> float:
        ready = Ready(spec, state.params, mesh, state.statistics, attributes=attributes)
        lists = NetworkRecommender(ready, live, batch_size).best(known, k=k)
        return measured(lists, wanted, known, live=live, ks=(k,)).means()[metric]

    return measure


def _taken_out(
    spec: NetworkSpec, data: TrainingData, attributes: SparseDataset | None, *, share: float, seed: int
) -> tuple[TrainingData, HeldOut]:
    """What is left to train on, and what is kept from it for validation: features of what is recommended. Profiles are
    made anew, so that they do not tell of what is kept.
    """
    whole = data.targets[spec.output.name]
    given = {**data.inputs, **data.targets}
    others = [layer for layer in (*spec.inputs, *spec.outputs) if given[layer.name] is not whole]
    if not isinstance(whole, SparseDataset) or (others and (attributes is None or not all(map(_is_profile, others)))):
        raise InputError(
            "EarlyStopping: features can be kept from training only where every layer has the same sparse dataset, or "
            "profiles made of it"
        )
    rest, validation = hold_out_features(whole, share=share, seed=seed)
    profiles = layer_datasets(others, rest, attributes)

    def left(role: Mapping[str, Dataset]) -> dict[str, Dataset]:
        return {name: rest if one is whole else profiles[spec.layer(name).dataset] for name, one in role.items()}

    return TrainingData(left(data.inputs), left(data.targets)), validation


def _is_profile(layer: LayerSpec) -> bool:
    return wants_attributes([layer])
