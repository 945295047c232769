"""Small networks and batches, and the same things dense, for tests of the model's side."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from trainer.data.batches import paired_batches
from trainer.deal import deals_of, with_deals
from trainer.network_types import Activation, LayerKind, LayerSpec, NetworkSpec, OptimizerName, OptimizerSpec
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh, to_mesh
from trainer.sparse import SparseBatch, SparseDataset
from trainer.state import TrainState, create_state, make_step, weights_of
from trainer.weights import Weights

MESHES = [(1, 1), (1, 2), (1, 8), (2, 4), (8, 1)]

Rows = Sequence[Sequence[int]]


def mesh_of(shape: tuple[int, int]) -> Mesh:
    """A mesh of `data` × `model` virtual devices."""
    return make_mesh(shape[0], jax.devices()[: shape[0] * shape[1]])


def chain(
    features: tuple[int, int], *, hidden: Sequence[int] = (5,), activation: Activation = Activation.SIGMOID, **own: Any
) -> NetworkSpec:
    """Features in, hidden layers `Hidden1` …, features out; plain SGD unless `own` says otherwise."""
    widths = [features[0], *hidden, features[1]]
    kinds = [LayerKind.INPUT, *[LayerKind.HIDDEN] * len(hidden), LayerKind.OUTPUT]
    names = [f"{kind.name.title()}{position}" for position, kind in enumerate(kinds)]
    datasets = ["gl_input", *[""] * len(hidden), "gl_output"]
    layers = [
        LayerSpec(
            name=names[position],
            kind=kinds[position],
            shape=(widths[position],),
            sources=(names[position - 1],) if position else (),
            sparse=True,
            dataset=datasets[position],
            activation=activation if kinds[position] is LayerKind.HIDDEN else Activation.SIGMOID,
        )
        for position in range(len(widths))
    ]
    return NetworkSpec("toy", tuple(layers), **{"optimizer": OptimizerSpec(OptimizerName.SGD, weight_decay=0.0), **own})


def with_layer(spec: NetworkSpec, position: int, **changes: Any) -> NetworkSpec:
    """`spec` with fields of one layer replaced."""
    layers = list(spec.layers)
    layers[position] = replace(layers[position], **changes)
    return replace(spec, layers=tuple(layers))


def random_rows(samples: int, width: int, *, seed: int = 0, most: int = 6) -> list[list[int]]:
    """Distinct features of each sample, not in order; the first sample has none."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, samples)
    return [[]] + [rng.permutation(width)[:count].tolist() for count in counts[1:]]


def batch_of(
    rows: Rows,
    width: int,
    *,
    shards: int = 1,
    batch: int | None = None,
    spare: int = 3,
    values: Sequence[Sequence[float]] | None = None,
) -> SparseBatch:
    """`rows` as `SparseBatch` promises them, `spare` entries of padding in the fullest shard."""
    size = batch or len(rows)
    part = size // shards
    of_shard = [[(n % part, f, n) for n, row in _numbered(rows, s, part) for f in row] for s in range(shards)]
    capacity = max(len(entries) for entries in of_shard) + spare
    indices = np.full((shards, capacity), width, np.int32)
    places = np.full((shards, capacity), part, np.int32)
    for s, entries in enumerate(of_shard):
        indices[s, : len(entries)] = [feature for _, feature, _ in entries]
        places[s, : len(entries)] = [row for row, _, _ in entries]
    analog = None
    if values is not None:
        analog = np.zeros((shards, capacity), np.float32)
        for s in range(shards):
            flat = [value for n, _ in _numbered(rows, s, part) for value in values[n]]
            analog[s, : len(flat)] = flat
        analog = analog.reshape(-1)
    mask = (np.arange(size) < len(rows)).astype(np.float32)
    return SparseBatch(indices.reshape(-1), places.reshape(-1), analog, mask)


def _numbered(rows: Rows, shard: int, part: int) -> list[tuple[int, Sequence[int]]]:
    return [(n, row) for n, row in enumerate(rows) if n // part == shard]


def dataset_of(rows: Rows, width: int) -> SparseDataset:
    """`rows` as a dataset of indicators."""
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    return SparseDataset("d", width, indptr, np.array([feature for row in rows for feature in row], np.uint32))


def dense(rows: Rows, width: int, *, values: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """`rows` as a matrix of float64, [samples, width]."""
    matrix = np.zeros((len(rows), width))
    for n, row in enumerate(rows):
        matrix[n, list(row)] = 1.0 if values is None else values[n]
    return matrix


class Run:
    """A few steps on the same samples: losses before each, and the weights after the last."""

    def __init__(
        self,
        spec: NetworkSpec,
        rows: tuple[Rows, Rows],
        *,
        mesh: tuple[int, int] = (1, 1),
        steps: int = 3,
        batch: int | None = None,
        settings: TrainSettings | None = None,
        start: Weights | None = None,
    ) -> None:
        settings, on = settings or TrainSettings(), mesh_of(mesh)
        spec = with_deals(spec, [layer.name for layer in spec.layers], shards=mesh[1])
        state: TrainState = create_state(spec, settings, on, weights=start)
        step = make_step(spec, settings, on)
        made = paired_batches(
            {layer.name: dataset_of(rows[0], layer.width) for layer in spec.inputs},
            {layer.name: dataset_of(rows[1], layer.width) for layer in spec.outputs},
            batch_size=batch or len(rows[0]),
            shards=mesh[0],
            order=np.arange(len(rows[0])),
            deals=deals_of(spec, mesh[1]),
        )
        inputs, targets = to_mesh(next(made), on)
        self.losses, self.regularizations = [], []
        for _ in range(steps):
            state, report = step(state, inputs, targets)
            self.losses.append(float(report.loss_sum))
            self.regularizations.append(float(report.regularization_sum))
        self.state = state
        self.weights = weights_of(state, spec)
        self.connections = self.weights.connections
