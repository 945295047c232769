"""Layers fitted in closed form: what is best on validation samples, put beside what was trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.closed_form import ClosedForm
from trainer.content import layer_datasets
from trainer.data.split import HeldOut
from trainer.data.validation import at_most
from trainer.errors import InputError, NetworkError
from trainer.evaluate import NetworkRecommender
from trainer.hosts import from_first
from trainer.metrics import measured
from trainer.model import group_of
from trainer.network_closed_form import closed_layers, trained_part
from trainer.network_types import LayerSpec, NetworkSpec
from trainer.pace import metric_k
from trainer.predict import Ready
from trainer.recommends import Recommends
from trainer.referees.interactions import interactions
from trainer.referees.ranking import Scorer
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.spectrum import Spectrum, spectrum
from trainer.state import TrainState, create_state, weights_of
from trainer.train import TrainingData
from trainer.weights import Connection, Weights

Worths = npt.NDArray[np.float64]
_MOST_ASKED = 1000
"""Validation samples that a choice is made by."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was chosen for one layer."""

    layer: str
    closed_form: ClosedForm
    """With one value of each."""

    def __str__(self) -> str:
        chosen = self.closed_form
        return (
            f"{self.layer}: ridge {chosen.ridge[0]:g}, item power {chosen.item_power[0]:g}, "
            f"user power {chosen.user_power[0]:g}, scale {chosen.scale[0]:g}"
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """By what is chosen: a metric on validation samples."""

    validation: HeldOut
    metric: str = "ndcg@100"
    attributes: SparseDataset | None = None
    """Items × attributes, where Input layers want profiles."""

    @classmethod
    def of(cls, validation: HeldOut, metric: str, attributes: SparseDataset | None = None) -> "Judge":
        """By at most a thousand of the validation samples."""
        return cls(at_most(validation, _MOST_ASKED), metric, attributes)

    @property
    def live(self) -> int:
        """How many features there are, padding left out."""
        known = self.validation.known
        return known.width if known.features is None else len(known.features)

    def linear(self, matrices: tuple[Any, Any]) -> Worths:
        """Of a linear model that goes through both matrices."""
        live = matrices[0].shape[0]
        return self.worths(Scorer("", live, lambda liked: (liked @ matrices[0]) @ matrices[1]), live)

    def worths(self, recommender: Recommends, live: int) -> Worths:
        """[samples] the metric of what is recommended."""
        known, k = self.validation.known, metric_k(self.metric) or 0
        lists = recommender.best(known, k=k)
        return measured(lists, self.validation.wanted, known, live=live, ks=(k,)).values[self.metric]

    def choice(self, worths: Sequence[Worths]) -> int:
        """Which is best on average; the first one unless another is better by more than a standard error of their
        difference, sample by sample, since the best of many is best by chance, too. All processes choose alike.
        """
        best = int(np.argmax([worth.mean() for worth in worths]))
        difference = worths[best] - worths[0]
        error = difference.std() / np.sqrt(len(difference))
        return int(from_first(np.array([best if difference.mean() > error else 0]))[0])


def choose(layer: LayerSpec, dataset: SparseDataset, judge: Judge | None) -> ClosedForm:
    """The ridge and powers that rank best by themselves; scales are left open."""
    form = _stated(layer)
    settings = [(powers, ridge) for powers in form.powers for ridge in form.ridge]
    best = 0
    if judge is not None and len(settings) > 1:
        worths: list[Worths] = []
        for powers in form.powers:
            found = _spectrum(dataset, powers, layer.width)
            worths += [judge.linear(found.weights(ridge)) for ridge in form.ridge]
        best = judge.choice(worths)
    powers, ridge = settings[best]
    return replace(form, ridge=(ridge,), item_power=powers[:1], user_power=powers[1:])


def completed(
    spec: NetworkSpec,
    trained: tuple[NetworkSpec, TrainState] | None,
    forms: dict[str, ClosedForm],
    data: TrainingData,
    settings: TrainSettings,
    mesh: Mesh,
) -> TrainState:
    """The state of `spec` from that of its trained part, if anything was trained, with the layers of `forms` fitted to
    `data` at the first of their scales.
    """
    before = Weights(()) if trained is None else weights_of(trained[1], trained[0])
    learnt = {} if trained is None else _by_ends(trained[0], before)
    for layer in closed_layers(spec):
        source = layer.sources[0]
        output = next(one for one in spec.outputs if layer.name in one.sources)
        found = _spectrum(sparse_input(data, source), forms[layer.name].powers[0], layer.width)
        down, up = (from_first(part) for part in found.weights(forms[layer.name].ridge[0]))
        scale = np.float32(forms[layer.name].scale[0])
        learnt[source, layer.name] = Connection(down, np.zeros(layer.width, np.float32))
        learnt[layer.name, output.name] = Connection(scale * up, np.zeros(output.width, np.float32))
    connections = tuple(learnt[one.source.name, one.target.name] for one in spec.connections)
    weights = replace(before, connections=connections)
    return create_state(spec, settings, mesh, weights=weights, steps=1)._replace(opt_state={})


def training_data(spec: NetworkSpec, both: SparseDataset, attributes: SparseDataset | None = None) -> TrainingData:
    """One dataset as every layer's input and target, or what is made of it where a layer wants attributes."""
    found = layer_datasets((*spec.inputs, *spec.outputs), both, attributes)
    inputs, targets = ({layer.name: found[layer.dataset] for layer in role} for role in (spec.inputs, spec.outputs))
    return TrainingData(inputs, targets)


def data_of(spec: NetworkSpec, data: TrainingData) -> TrainingData:
    """The data of the layers that `spec` has."""
    names = {layer.name for layer in spec.layers}
    inputs, targets = (
        {name: one for name, one in role.items() if name in names} for role in (data.inputs, data.targets)
    )
    return TrainingData(inputs, targets)


def trainable(spec: NetworkSpec) -> NetworkSpec:
    """What of a network is trained; `NetworkError` where that is nothing."""
    part = trained_part(spec)
    if not part.layers:
        raise NetworkError("nothing is left to train; networks that are fitted alone want a run directory", "$.Layers")
    return part


def finished(
    spec: NetworkSpec,
    trained: tuple[NetworkSpec, TrainState] | None,
    data: TrainingData,
    settings: TrainSettings,
    mesh: Mesh,
) -> TrainState:
    """As `completed`, with the first of everything that may be tried."""
    forms = {layer.name: choose(layer, sparse_input(data, layer.sources[0]), None) for layer in closed_layers(spec)}
    return completed(spec, trained, forms, data, settings, mesh)


def scaled(spec: NetworkSpec, layer: str, state: TrainState, factor: float, mesh: Mesh) -> TrainState:
    """The state with what `layer` contributes to its Output multiplied."""
    number = next(n for n, one in enumerate(spec.connections) if one.source.name == layer)
    group = group_of(spec.connections[number], mesh.shape["model"])
    part = state.params[group][str(number)]
    kernel = jax.jit(lambda kernel: kernel * np.float32(factor))(part["kernel"])
    changed = {**state.params[group], str(number): {**part, "kernel": kernel}}
    return state._replace(params={**state.params, group: changed})


def best_scales(
    spec: NetworkSpec,
    state: TrainState,
    forms: dict[str, ClosedForm],
    mesh: Mesh,
    judge: Judge | None,
    *,
    batch_size: int,
) -> tuple[TrainState, tuple[Fit, ...]]:
    """The state, which has the first of every scale, with the best ones, chosen layer by layer; as it is where there is
    nothing to choose by.
    """
    fits: list[Fit] = []
    for layer, form in forms.items():
        best = 0
        if judge is not None and len(form.scale) > 1:
            states = (scaled(spec, layer, state, scale / form.scale[0], mesh) for scale in form.scale)
            worths = [judge.worths(_recommender(spec, one, mesh, judge, batch_size), judge.live) for one in states]
            best = judge.choice(worths)
            state = scaled(spec, layer, state, form.scale[best] / form.scale[0], mesh)
        fits.append(Fit(layer, replace(form, scale=(form.scale[best],))))
    return state, tuple(fits)


def sparse_input(data: TrainingData, name: str) -> SparseDataset:
    """The dataset of an Input layer, or `InputError` where nothing can be fitted to it."""
    dataset = data.inputs[name]
    if not isinstance(dataset, SparseDataset) or not isinstance(dataset.indices, np.ndarray):
        raise InputError(f"layer {name}: ClosedForm fits a layer to sparse data that are held in memory")
    return dataset


def _recommender(spec: NetworkSpec, state: TrainState, mesh: Mesh, judge: Judge, batch_size: int) -> NetworkRecommender:
    ready = Ready(spec, state.params, mesh, state.statistics, attributes=judge.attributes)
    return NetworkRecommender(ready, judge.live, batch_size)


def _stated(layer: LayerSpec) -> ClosedForm:
    if layer.closed_form is None:
        raise ValueError(f"layer {layer.name} is trained")
    return layer.closed_form


def _spectrum(dataset: SparseDataset, powers: tuple[float, float], rank: int) -> Spectrum:
    matrix = interactions(dataset, live=dataset.width)
    return spectrum(matrix, rank=rank, item_power=powers[0], user_power=powers[1])


def _by_ends(spec: NetworkSpec, weights: Weights) -> dict[tuple[str, str], Connection]:
    ends = ((one.source.name, one.target.name) for one in spec.connections)
    return dict(zip(ends, weights.connections, strict=True))
