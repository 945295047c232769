"""Layers fitted in closed form: what is best on validation samples, put beside what was trained."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from trainer.closed_form import ClosedForm
from trainer.data.split import HeldOut, answerable, some_rows
from trainer.errors import InputError
from trainer.hosts import from_first
from trainer.metrics import measured
from trainer.model import group_of
from trainer.network_closed_form import closed_layers
from trainer.network_types import LayerSpec, NetworkSpec
from trainer.pace import metric_k
from trainer.referees.interactions import interactions
from trainer.referees.ranking import Scorer
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.spectrum import Spectrum, spectrum
from trainer.state import TrainState, create_state, weights_of
from trainer.train import TrainingData
from trainer.weights import Connection, Weights

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

    @classmethod
    def of(cls, validation: HeldOut, metric: str) -> "Judge":
        """By at most a thousand of the validation samples, evenly spread over them."""
        asked = answerable(validation.known, validation.wanted)
        samples = asked.known.samples
        chosen = np.zeros(samples, bool)
        chosen[np.linspace(0, samples - 1, min(samples, _MOST_ASKED)).astype(np.int64)] = True
        return cls(HeldOut(some_rows(asked.known, chosen), some_rows(asked.wanted, chosen)), metric)

    def linear(self, matrices: tuple[Any, Any]) -> float:
        """The metric of a linear model that goes through both matrices."""
        known, k = self.validation.known, metric_k(self.metric) or 0
        scorer = Scorer("", matrices[0].shape[0], lambda liked: (liked @ matrices[0]) @ matrices[1])
        lists = scorer.best(known, k=k)
        return measured(lists, self.validation.wanted, known, live=matrices[0].shape[0], ks=(k,)).means()[self.metric]


def choose(layer: LayerSpec, dataset: SparseDataset, judge: Judge | None) -> ClosedForm:
    """The ridge and powers that rank best by themselves; scales are left open."""
    form = _stated(layer)
    settings = [(powers, ridge) for powers in form.powers for ridge in form.ridge]
    best = settings[0]
    if judge is not None and len(settings) > 1:
        worth: dict[Any, float] = {}
        for powers in form.powers:
            found = _spectrum(layer, dataset, powers)
            worth |= {(powers, ridge): judge.linear(found.weights(ridge)) for ridge in form.ridge}
        # All processes go on with what the first one found.
        best = settings[int(from_first(np.array([max(range(len(settings)), key=lambda n: worth[settings[n]])]))[0])]
    (item_power, user_power), ridge = best
    return replace(form, ridge=(ridge,), item_power=(item_power,), user_power=(user_power,))


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
    learnt = {} if trained is None else _by_ends(trained[0], weights_of(trained[1], trained[0]))
    for layer in closed_layers(spec):
        source = layer.sources[0]
        output = next(one for one in spec.outputs if layer.name in one.sources)
        found = _spectrum(layer, sparse_input(data, source), forms[layer.name].powers[0])
        down, up = (from_first(part) for part in found.weights(forms[layer.name].ridge[0]))
        scale = np.float32(forms[layer.name].scale[0])
        learnt[source, layer.name] = Connection(down, np.zeros(layer.width, np.float32))
        learnt[layer.name, output.name] = Connection(scale * up, np.zeros(output.width, np.float32))
    connections = tuple(learnt[one.source.name, one.target.name] for one in spec.connections)
    norms = Weights(()) if trained is None else weights_of(trained[1], trained[0])
    weights = replace(norms, connections=connections)
    return create_state(spec, settings, mesh, weights=weights, steps=1)._replace(opt_state={})


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
    measure: Callable[[TrainState], float] | None,
) -> tuple[TrainState, tuple[Fit, ...]]:
    """The state, which has the first of every scale, with the best by `measure`, layer by layer; with the first ones
    where there is no measure.
    """
    fits: list[Fit] = []
    for layer, form in forms.items():
        best = 0
        if measure is not None and len(form.scale) > 1:
            base = scaled(spec, layer, state, 1.0 / form.scale[0], mesh) if form.scale[0] else None
            if base is None:
                raise InputError(f"layer {layer}: ClosedForm: the first Scale is 0; put it behind another")
            worth = [measure(scaled(spec, layer, base, scale, mesh)) for scale in form.scale]
            best = int(from_first(np.array([int(np.argmax(worth))]))[0])
            state = scaled(spec, layer, base, form.scale[best], mesh)
        fits.append(Fit(layer, replace(form, scale=(form.scale[best],))))
    return state, tuple(fits)


def sparse_input(data: TrainingData, name: str) -> SparseDataset:
    """The dataset of an Input layer, or `InputError` where nothing can be fitted to it."""
    dataset = data.inputs[name]
    if not isinstance(dataset, SparseDataset) or not isinstance(dataset.indices, np.ndarray):
        raise InputError(f"layer {name}: ClosedForm fits a layer to sparse data that are held in memory")
    return dataset


def _stated(layer: LayerSpec) -> ClosedForm:
    if layer.closed_form is None:
        raise ValueError(f"layer {layer.name} is trained")
    return layer.closed_form


def _spectrum(layer: LayerSpec, dataset: SparseDataset, powers: tuple[float, float]) -> Spectrum:
    matrix = interactions(dataset, live=dataset.width)
    return spectrum(matrix, rank=layer.width, item_power=powers[0], user_power=powers[1])


def _by_ends(spec: NetworkSpec, weights: Weights) -> dict[tuple[str, str], Connection]:
    ends = ((one.source.name, one.target.name) for one in spec.connections)
    return dict(zip(ends, weights.connections, strict=True))
