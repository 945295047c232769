"""What layers ask of each other: shapes that follow from sources and datasets, sizes that must agree, weights that
can be shared, losses that fit their outputs. Errors name the JSON path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from trainer.errors import NetworkError
from trainer.network_closed_form import closed_layers, why_not_closed_form
from trainer.network_names import SPEAKER, takes_logits, why_not_output
from trainer.network_types import (
    AUTO,
    Activation,
    ErrorFunction,
    LayerKind,
    LayerSpec,
    LayerType,
    Negatives,
    NetworkSpec,
    PoolingFunction,
    SharedWeights,
)
from trainer.shapes import (
    convolution_sides,
    pooling_sides,
    topological,
    weight_shape,
    why_not_convolved,
    why_not_pooled,
)

Shapes = Mapping[str, tuple[int, ...]]
"""Sides of datasets, by name."""


def resolve_shapes(spec: NetworkSpec, shapes: Shapes) -> NetworkSpec:
    """`spec` with every `AUTO` replaced: by the sides of the layer's dataset in `shapes`, or, where a layer
    convolves or pools, by what its sources make of it.

    A dataset that is not there, one larger than its layer in any dimension, and layers that do not fit each
    other raise `NetworkError`.
    """
    layers = [_with_dataset(layer, number, shapes) for number, layer in enumerate(spec.layers)]
    spec = checked(replace(spec, layers=tuple(layers)))
    for number, layer in enumerate(spec.layers):
        if layer.kind in (LayerKind.INPUT, LayerKind.OUTPUT):
            _check_dataset(layer, number, shapes[layer.dataset])
    return spec


def checked(spec: NetworkSpec, file: str | None = None) -> NetworkSpec:
    """`spec` with the shapes that follow from those known; layers that do not fit each other raise `NetworkError`."""
    if not spec.inputs or not spec.outputs:
        raise NetworkError("an Input and an Output layer are wanted", "$.Layers", file)
    try:
        order = topological(spec.layers)
    except ValueError as error:
        raise NetworkError(str(error), "$.Layers", file) from error
    places = {layer.name: number for number, layer in enumerate(spec.layers)}
    known: dict[str, LayerSpec] = {}
    for layer in order:
        sources = [known[name] for name in layer.sources]
        known[layer.name] = _derived(layer, sources, _Place(places[layer.name], file))
    spec = replace(spec, layers=tuple(known[layer.name] for layer in spec.layers))
    for number, layer in enumerate(spec.layers):
        place = _Place(number, file)
        _check_skips(layer, [known[name] for name in layer.skips], place)
        for entry in layer.shared:
            _check_shared(layer, entry, known, place)
        _check_loss(spec, layer, place)
        why = why_not_closed_form(layer, spec.layers) if layer in closed_layers(spec) else None
        if why is not None:
            raise place.fail(why, "ClosedForm")
        if layer.zero_diagonal:
            _check_diagonal(layer, [known[name] for name in layer.sources], place)
    return spec


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer stands in the file."""

    number: int
    file: str | None = None

    def fail(self, message: str, key: str = "") -> NetworkError:
        """The error to raise about the layer, or about one of its keys."""
        return NetworkError(message, f"$.Layers[{self.number}]{'.' if key else ''}{key}", self.file)


def _with_dataset(layer: LayerSpec, number: int, shapes: Shapes) -> LayerSpec:
    """The layer with what only its dataset can say."""
    if layer.kind not in (LayerKind.INPUT, LayerKind.OUTPUT):
        return layer
    if layer.dataset not in shapes:
        known = ", ".join(sorted(shapes)) or "none"
        raise _Place(number).fail(
            f"{SPEAKER}Unable to find data set {layer.dataset} to determine dimensions for layer: {layer.name}; "
            f"there is {known}",
            "DataSet",
        )
    sides = shapes[layer.dataset]
    if layer.type is LayerType.FULLY_CONNECTED:
        return replace(layer, shape=sides) if layer.shape is AUTO else layer
    if layer.type is LayerType.CONVOLUTIONAL and not layer.filters:
        return replace(layer, filters=(*sides, 1, 1, 1)[len(layer.kernel.size)])
    return layer


def _check_dataset(layer: LayerSpec, number: int, sides: Sequence[int]) -> None:
    if any(own < wanted for own, wanted in zip_longest(layer.sides, sides, fillvalue=1)):
        raise _Place(number).fail(
            f"layer {layer.name} has {_in_words(layer.sides)} units, dataset {layer.dataset} {_in_words(sides)}", "N"
        )


def _derived(layer: LayerSpec, sources: Sequence[LayerSpec], place: _Place) -> LayerSpec:
    if layer.type is LayerType.POOLING:
        return _pooled(layer, sources, place)
    if layer.type is LayerType.CONVOLUTIONAL:
        return _convolved(layer, sources, place)
    return layer


def _pooled(layer: LayerSpec, sources: Sequence[LayerSpec], place: _Place) -> LayerSpec:
    resolved = all(source.shape is not AUTO for source in sources)
    # Their number can be wrong whatever their sizes.
    sides = [source.sides if resolved else (1,) for source in sources]
    problem = why_not_pooled(sides, layer.pooling)
    if problem is None and layer.pooling is PoolingFunction.GAUSSIAN:
        problem = _why_not_drawn(layer)
    if problem is not None:
        raise place.fail(problem)
    return replace(layer, shape=pooling_sides(sides, layer.pooling, layer.kernel)) if resolved else layer


def _why_not_drawn(layer: LayerSpec) -> str | None:
    if layer.kind is not LayerKind.HIDDEN:
        return "only a Hidden layer can be Gaussian"
    return "Gaussian needs two different sources" if len(set(layer.sources)) < len(layer.sources) else None


def _convolved(layer: LayerSpec, sources: Sequence[LayerSpec], place: _Place) -> LayerSpec:
    for source in sources:
        if source.shape is AUTO or not layer.filters:
            continue
        problem = why_not_convolved(source.sides, layer.kernel)
        if problem is not None:
            raise place.fail(f"{source.name}: {problem}", "Source")
        sides = convolution_sides(source.sides, layer.kernel, layer.filters)
        if layer.shape is AUTO:
            layer = replace(layer, shape=sides)
        elif layer.sides != sides:
            wanted = f"layer {layer.name} has {_in_words(layer.sides)} units"
            raise place.fail(f"{wanted}, the convolution of {source.name} {_in_words(sides)}", "Source")
    return layer


def _check_skips(layer: LayerSpec, skips: Sequence[LayerSpec], place: _Place) -> None:
    for skip in skips:
        if AUTO not in (layer.shape, skip.shape) and skip.width != layer.width:
            raise place.fail(
                "NNNetwork::NNNetwork: Layer dimensions do not match for skip connection between layer "
                f"{skip.name} and {layer.name}: {skip.width} and {layer.width} units",
                "Skip",
            )


def _check_shared(layer: LayerSpec, entry: SharedWeights, known: Mapping[str, LayerSpec], place: _Place) -> None:
    source, owner = known.get(entry.source_input), known.get(entry.source_output)
    weights = f"weights between {entry.source_input} and {entry.source_output}"
    if source is None or owner is None or owner.type is LayerType.POOLING or source.name not in owner.sources:
        raise place.fail(f"there are no {weights}", "SharedWeights")
    if any(other.input == source.name for other in owner.shared):
        raise place.fail(f"the {weights} are themselves shared", "SharedWeights")
    if entry.transposed and LayerType.CONVOLUTIONAL in (layer.type, owner.type):
        raise place.fail("the filters of a convolution cannot be transposed", "SharedWeights")
    ends = (source, owner, layer, known[entry.input])
    if any(end.shape is AUTO for end in ends):
        return
    lent, own = weight_shape(source, owner), weight_shape(known[entry.input], layer)
    lent = lent[::-1] if entry.transposed else lent
    if lent != own:
        turned = "transposed " if entry.transposed else ""
        raise place.fail(
            f"the {turned}{weights} are {_in_words(lent)}, between {entry.input} and {layer.name} "
            f"{_in_words(own)} are wanted",
            "SharedWeights",
        )


def _check_loss(spec: NetworkSpec, layer: LayerSpec, place: _Place) -> None:
    """Refuse a loss that has no gradient on the activation of an Output layer."""
    if layer.kind is not LayerKind.OUTPUT:
        return
    activation = Activation.LINEAR if layer.type is LayerType.POOLING else layer.activation
    problem = why_not_output(spec.loss_of(layer), activation)
    if problem is not None:
        raise place.fail(problem)
    if spec.loss_of(layer) is ErrorFunction.PAIRWISE:
        _check_pairs(layer, place)
    by_unit = activation is not Activation.SOFT_MAX or not takes_logits(spec.loss_of(layer), activation)
    if layer.negative_weight != 1 and not by_unit:
        raise place.fail("a SoftMax has no loss of single units that NegativeWeight could multiply", "ErrorFunction")
    if layer.contrast.temperature != 1 and by_unit:
        raise place.fail("only a SoftMax has a Temperature", "ErrorFunction")


def _check_pairs(layer: LayerSpec, place: _Place) -> None:
    if layer.sampling.by is Negatives.NONE:
        raise place.fail(
            'BPR pairs each feature of a sample with each other one, too many; add "Sampling": {}',
            "ErrorFunction",
        )
    if layer.negative_weight != 1:
        raise place.fail("BPR has no loss of single units that NegativeWeight could multiply", "ErrorFunction")


def _check_diagonal(layer: LayerSpec, sources: Sequence[LayerSpec], place: _Place) -> None:
    if layer.type is not LayerType.FULLY_CONNECTED:
        raise place.fail("only a FullyConnected layer has a diagonal", "ZeroDiagonal")
    inputs = [one for one in sources if one.kind is LayerKind.INPUT]
    fitting = [one.name for one in inputs if AUTO in (one.shape, layer.shape) or one.width == layer.width]
    if not fitting:
        raise place.fail("an Input with as many units is wanted among the sources", "ZeroDiagonal")
    if any(entry.input in fitting for entry in layer.shared):
        raise place.fail(f"the weights from {' and '.join(fitting)} must be the layer's own", "ZeroDiagonal")


def _in_words(sides: Sequence[int]) -> str:
    return " × ".join(map(str, sides))
