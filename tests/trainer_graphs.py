"""Networks that between them hold every kind of layer, with their samples and their weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from trainer_networks import batch_of

from trainer.dense import DenseBatch
from trainer.model import Batches
from trainer.network_types import (
    Activation,
    Divergence,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    PoolingFunction,
    SharedWeights,
    Sparseness,
)
from trainer.sparse import SparseBatch
from trainer.weights import Connection, Normalization, Weights

Array = npt.NDArray[np.float64]

SAMPLES, BATCH = 7, 8
"""One sample of a batch is padding."""


def sparse_input(name: str, *shape: int, **own: Any) -> LayerSpec:
    """An Input layer of stored features; one called `Weighted…` has weights of samples, too."""
    return LayerSpec(name, LayerKind.INPUT, shape, sparse=True, **own)


def dense_input(name: str, *shape: int, **own: Any) -> LayerSpec:
    """An Input layer with a value for every unit."""
    return LayerSpec(name, LayerKind.INPUT, shape, **own)


def hidden(name: str, units: int, sources: str, **own: Any) -> LayerSpec:
    """A fully connected Hidden layer of Tanh units; `sources` by spaces."""
    given: dict[str, Any] = {"activation": Activation.TANH, **own}
    return LayerSpec(name, LayerKind.HIDDEN, (units,), tuple(sources.split()), **given)


def output(name: str, units: int, sources: str, **own: Any) -> LayerSpec:
    """A fully connected Output layer of Sigmoid units with stored targets, unless `own` says otherwise."""
    given: dict[str, Any] = {"sparse": True, **own}
    return LayerSpec(name, LayerKind.OUTPUT, (units,), tuple(sources.split()), **given)


def convolution(name: str, shape: tuple[int, ...], sources: str, kernel: Kernel, **own: Any) -> LayerSpec:
    """A Hidden layer of Tanh filters."""
    given: dict[str, Any] = {"kind": LayerKind.HIDDEN, "activation": Activation.TANH, "filters": shape[-1], **own}
    return LayerSpec(
        name, shape=shape, sources=tuple(sources.split()), type=LayerType.CONVOLUTIONAL, kernel=kernel, **given
    )


def pooling(name: str, function: PoolingFunction, shape: tuple[int, ...], sources: str, **own: Any) -> LayerSpec:
    """A Hidden pooling layer."""
    given: dict[str, Any] = {"kind": LayerKind.HIDDEN, **own}
    return LayerSpec(
        name, shape=shape, sources=tuple(sources.split()), type=LayerType.POOLING, pooling=function, **given
    )


def network(*layers: LayerSpec, **own: Any) -> NetworkSpec:
    """The layers, trained by SGD at learning rate 1 without decay: a step is minus the gradient."""
    plain = OptimizerSpec(OptimizerName.SGD, learning_rate=1.0, weight_decay=0.0)
    given: dict[str, Any] = {"optimizer": plain, **own}
    return NetworkSpec("graph", layers, **given)


def branching() -> NetworkSpec:
    """Several inputs, sources, skips and outputs, normalisations, pooling over whole layers; an output feeds on."""
    three = "Merged Normed Level"
    return network(
        sparse_input("Words", 21, normalize=True),
        sparse_input("WeightedRatings", 10, analog=True),
        dense_input("Features", 6),
        hidden(
            "Merged",
            6,
            "Words WeightedRatings Features",
            activation=Activation.SIGMOID,
            skips=("Features",),
            sparse=True,
        ),
        hidden("Normed", 6, "Merged", skips=("Merged", "Features"), batch_normalization=True),
        hidden("Level", 6, "Normed", activation=Activation.EXPONENTIAL_LINEAR, elu_alpha=0.7, layer_normalization=True),
        hidden("Shares", 4, "Normed Merged", activation=Activation.SOFT_MAX),
        pooling("Dots", PoolingFunction.DOT_PRODUCT, (2,), three),
        pooling("Cosines", PoolingFunction.COSINE, (2,), "Level Merged Normed"),
        pooling("Greatest", PoolingFunction.MAXOUT, (6,), three),
        output("First", 13, "Level Dots Greatest Shares", loss_weight=0.5, skips=("Late",)),
        hidden("After", 4, "First Cosines", activation=Activation.SOFT_PLUS, normalize=True),
        output("WeightedSecond", 11, "After Cosines", activation=Activation.SOFT_MAX),
        output(
            "Third",
            6,
            "Level Words First",
            sparse=False,
            activation=Activation.LINEAR,
            loss=ErrorFunction.L2,
            loss_weight=2.0,
            skips=("Greatest",),
        ),
        hidden("Late", 13, "Words"),
        pooling(
            "Match",
            PoolingFunction.COSINE,
            (1,),
            "Level Greatest",
            kind=LayerKind.OUTPUT,
            activation=Activation.LINEAR,
            loss=ErrorFunction.L2,
        ),
        sparseness=Sparseness(0.2, 0.5),
    )


def spatial() -> NetworkSpec:
    """Convolution and window pooling in one to three dimensions, of dense and of sparse inputs, shared filters."""
    square, pair = Kernel((3, 3), (1, 1)), Kernel((2, 2), (2, 2))
    lent = SharedWeights("Image", "Image", "Maps")
    return network(
        dense_input("Image", 5, 4, 2),
        dense_input("Row", 9, 2),
        sparse_input("Block", 3, 3, 3),
        convolution("Maps", (5, 4, 3), "Image", square, batch_normalization=True),
        pooling("Peaks", PoolingFunction.MAX, (2, 2, 3), "Maps", kernel=pair),
        pooling("Response", PoolingFunction.LRN, (2, 2, 3), "Peaks"),
        pooling("Means", PoolingFunction.AVERAGE, (5, 4, 3), "Maps", kernel=square),
        convolution("Strided", (2, 2, 2), "Means Maps", pair),
        convolution("Line", (4, 2), "Row", Kernel((3,), (2,)), skips=("Strided",)),
        convolution("Solid", (3, 3, 3, 2), "Block", Kernel((2, 2, 2), (1, 1, 1))),
        convolution("Twin", (5, 4, 3), "Image", square, shared=(lent,)),
        convolution(
            "Picture",
            (5, 4, 1),
            "Twin",
            square,
            kind=LayerKind.OUTPUT,
            activation=Activation.LINEAR,
            loss=ErrorFunction.L2,
        ),
        output("Output", 13, "Response Strided Line Solid"),
    )


def sharing() -> NetworkSpec:
    """Matrices between wide and hidden layers in all four directions, of 7 units and 5; each is used again in all four,
    straight and turned. Of the wide layers that feed others, half are outputs.
    """
    owners = [("WideA", "OwnHidden"), ("HiddenA", "OwnHidden"), ("WideA", "OwnOutput"), ("HiddenA", "OwnOutput")]
    borrowers: list[LayerSpec] = []
    for turned, units, sources in ((False, 5, "WideA WideB HiddenA HiddenB"), (True, 7, "ThinA ThinB FewA FewB")):
        for number in range(2):
            own: dict[str, Any] = {
                "shared": tuple(
                    SharedWeights(source, *owners[2 * number + position % 2], transposed=turned)
                    for position, source in enumerate(sources.split())
                )
            }
            name = f"{'Turned' if turned else 'Straight'}{number}"
            borrowers += [hidden(name, units, sources, **own), output(f"{name}Out", units, sources, **own)]
    return network(
        sparse_input("WideA", 7),
        dense_input("ThinA", 5),
        output("WideB", 7, "ThinA"),
        output("ThinB", 5, "WideA", sparse=False, activation=Activation.LINEAR, loss=ErrorFunction.L2),
        hidden("HiddenA", 7, "WideA ThinA"),
        hidden("HiddenB", 7, "WideB"),
        hidden("FewA", 5, "ThinB"),
        hidden("FewB", 5, "WideA"),
        hidden("OwnHidden", 5, "WideA HiddenA"),
        output("OwnOutput", 5, "WideA HiddenA"),
        *borrowers,
        output("Output", 13, "OwnHidden Straight0 Straight1 Turned0 Turned1"),
    )


def noisy() -> NetworkSpec:
    """All that acts in training only, on layers of every type; features whose columns are padded."""
    limits: dict[str, Any] = {"delta_norm": 0.4, "weight_norm": 1.2}
    return network(
        sparse_input("Words", 21),
        dense_input("Picture", 4, 3, 2, dropout=0.2),
        convolution("Maps", (4, 3, 3), "Picture", Kernel((3, 3), (1, 1)), batch_normalization=True, **limits),
        hidden("Code", 6, "Words Maps", activation=Activation.SIGMOID, sparse=True, dropout=0.3, **limits),
        hidden("Shares", 4, "Code", activation=Activation.SOFT_MAX, layer_normalization=True, **limits),
        output("First", 13, "Code Shares", activation=Activation.SOFT_MAX, **limits),
        output(
            "Elu",
            11,
            "Code",
            sparse=False,
            activation=Activation.EXPONENTIAL_LINEAR,
            loss=ErrorFunction.L2,
            dropout=0.3,
            **limits,
        ),
        hidden("Mean", 5, "Code", activation=Activation.LINEAR),
        hidden("LogVariance", 5, "Code", activation=Activation.LINEAR),
        pooling("Latent", PoolingFunction.GAUSSIAN, (5,), "Mean LogVariance", divergence=Divergence(0.2, 4)),
        hidden("After", 5, "First Elu", skips=("Latent",), **limits),
        output("Output", 21, "After Code", shared=(SharedWeights("Code", "Words", "Code", transposed=True),), **limits),
        denoising=0.4,
        sparseness=Sparseness(0.2, 0.5),
        decay=0.1,
        optimizer=OptimizerSpec(OptimizerName.MOMENTUM, learning_rate=0.2),
    )


def limited() -> NetworkSpec:
    """Lengths limited: of deltas, and of weights in each of their layouts; `Tied` borrows and limits nothing."""
    return network(
        sparse_input("Words", 21),
        dense_input("Row", 5, 2),
        convolution("Maps", (5, 3), "Row", Kernel((3,), (1,)), weight_norm=0.4),
        hidden("Code", 6, "Words Maps", delta_norm=0.05, weight_norm=0.5),
        output("Output", 13, "Code", delta_norm=0.1, weight_norm=0.6),
        output("Tied", 21, "Code", shared=(SharedWeights("Code", "Words", "Code", transposed=True),), weight_norm=0.01),
    )


@dataclass(frozen=True, slots=True)
class Given:
    """The samples of an Input or Output layer."""

    dense: Array
    """[samples, units], what is stored more than once added up."""
    rows: list[list[int]] | None
    values: list[list[float]] | None
    weights: npt.NDArray[np.float32] | None

    def batch(self, shards: int) -> SparseBatch | DenseBatch:
        """As the trainer takes it, for a mesh of so many data shards."""
        missing = (0, BATCH - SAMPLES)
        weights = None if self.weights is None else np.pad(self.weights, missing)
        if self.rows is None:
            mask = (np.arange(BATCH) < SAMPLES).astype(np.float32)
            return DenseBatch(np.pad(self.dense, (missing, (0, 0))).astype(np.float32), mask, weights)
        batch = batch_of(self.rows, self.dense.shape[1], shards=shards, batch=BATCH, values=self.values)
        return batch._replace(weights=weights)


def given_to(spec: NetworkSpec, *, seed: int = 0) -> dict[str, Given]:
    """Random samples for every Input and Output layer; inputs that are not normalised store features twice."""
    return {
        layer.name: _given(layer, 100 * seed + number) for number, layer in enumerate((*spec.inputs, *spec.outputs))
    }


def batches_of(layers: tuple[LayerSpec, ...], given: Mapping[str, Given], shards: int) -> Batches:
    """The samples of some layers as the trainer takes them."""
    return {layer.name: given[layer.name].batch(shards) for layer in layers}


def _given(layer: LayerSpec, seed: int) -> Given:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2.0, SAMPLES).astype(np.float32) if layer.name.startswith("Weighted") else None
    if not layer.sparse:
        return Given(rng.normal(size=(SAMPLES, layer.width)).astype(np.float32).astype(np.float64), None, None, weights)
    twice = layer.kind is LayerKind.INPUT and not layer.normalize
    rows = [rng.choice(layer.width, count, replace=twice).tolist() for count in [0, 1, 2, 3, 4, 5, 4]]
    values = [rng.normal(size=len(row)).astype(np.float32).tolist() for row in rows] if layer.analog else None
    dense = np.zeros((SAMPLES, layer.width))
    for n, row in enumerate(rows):
        np.add.at(dense[n], row, 1.0 if values is None else values[n])
    return Given(dense, rows, values, weights)


def random_weights(spec: NetworkSpec, seed: int = 0) -> Weights:
    """Weights, biases, scales and running statistics that are nowhere 0 or 1."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int, scale: float = 0.6) -> npt.NDArray[np.float32]:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def norm(layer: LayerSpec, *, running: bool) -> Normalization:
        units = layer.filters or layer.width
        spread = (0.5 + rng.random(units)).astype(np.float32)
        learnt = Normalization(1.0 + drawn(units, scale=0.3), drawn(units))
        return learnt._replace(mean=drawn(units), variance=spread) if running else learnt

    connections: list[Connection] = []
    for number, connection in enumerate(spec.connections):
        source, target = connection.source, connection.target
        shape = (source.width, target.width)
        if target.type is LayerType.CONVOLUTIONAL:
            shape = (target.filters, (*source.sides, 1)[len(target.kernel.size)], *target.kernel.size[::-1])
        kernel = drawn(*shape) if connection.owner == number else None
        connections.append(Connection(kernel, drawn(target.filters or target.width)))
    return Weights(
        tuple(connections),
        {layer.name: norm(layer, running=True) for layer in spec.layers if layer.batch_normalization},
        {layer.name: norm(layer, running=False) for layer in spec.layers if layer.layer_normalization},
    )


def moved(weights: Weights, path: tuple[str, int | str, str], place: tuple[int, ...], by: float) -> Weights:
    """The weights with one entry of one array moved, that array in float64; `path` as ("connections", 2, "bias")."""
    group, key, field = path
    parts = getattr(weights, group)
    part = parts[key]
    array = getattr(part, field).astype(np.float64)
    array[place] += by
    new = part._replace(**{field: array})
    if isinstance(key, int):
        return replace(weights, connections=(*parts[:key], new, *parts[key + 1 :]))
    return replace(weights, **{group: {**parts, key: new}})
