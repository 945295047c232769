"""Any network that is written, read and written again is the same, and so is its file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_files import (
    CONVOLUTIONAL,
    HIDDEN,
    INPUT,
    LITERAL_SPEC,
    OUTPUT,
    POOLING,
    assert_same_weights,
    content_of,
    drawn,
)

from trainer.errors import DataError
from trainer.loss_parameters import Contrast
from trainer.network_file import read_network_file, write_network
from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    Kernel,
    LayerKind,
    LayerSpec,
    LayerType,
    MarginalScale,
    Negatives,
    NetworkKind,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    PoolingFunction,
    ResponseNormalization,
    Sampling,
    Schedule,
    SharedWeights,
    Sparseness,
    WeightInit,
    WeightScheme,
)
from trainer.pace import EarlyStopping, TrainingSpec
from trainer.shapes import convolution_sides, pooling_sides, weight_shape

decimals = st.integers(-9999, 9999).map(lambda n: n / 1000)


chances = st.integers(0, 99).map(lambda n: n / 100)


scales = st.integers(1, 9999).map(lambda n: n / 1000)


small = st.integers(1, 4)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


weight_inits = st.builds(WeightInit, st.sampled_from(WeightScheme), scales, decimals)


penalties = st.builds(Sparseness, chances, decimals)


optimizers = st.builds(
    OptimizerSpec, st.sampled_from(OptimizerName), st.none() | scales, st.none() | scales, st.none() | scales,
    st.none() | scales, scales, st.integers(0, 2**32 - 1), st.sampled_from(Schedule), st.integers(0, 2**32 - 1),
)  # fmt: skip


stoppings = st.builds(
    EarlyStopping, st.sampled_from(["ndcg@100", "recall@1"]), st.integers(1, 2**31 - 1), st.sampled_from([0.1, 0.15]),
    st.integers(0, 99), st.booleans(),
)  # fmt: skip


counts = st.none() | st.integers(0, 2**31 - 1)


trainings = st.builds(TrainingSpec, counts, counts, st.none() | stoppings)


@st.composite
def kernels(draw: st.DrawFn, most: int = 3) -> Kernel:
    dimensions = draw(st.integers(1, most))
    size, stride = (draw(st.tuples(*[small] * dimensions)) for _ in range(2))
    return Kernel(size, stride)


@st.composite
def fed_layers(draw: st.DrawFn, name: str, kind: LayerKind, before: list[LayerSpec], **own: Any) -> LayerSpec:
    """A layer of any type over some of those before it."""
    layer = LayerSpec(
        name, kind, activation=draw(st.sampled_from(Activation)), sparse=draw(st.booleans()), dropout=draw(chances),
        weight_init=draw(weight_inits), sparseness=draw(penalties), relu_slope=draw(decimals),
        weight_norm=draw(scales), delta_norm=draw(scales), kernel=draw(kernels()), **own,
    )  # fmt: skip
    if kind is HIDDEN:
        layer = replace(layer, batch_normalization=draw(st.booleans()), layer_normalization=draw(st.booleans()))
    layer_type = draw(st.sampled_from(LayerType))
    source = draw(st.sampled_from(before))
    if layer_type is CONVOLUTIONAL and len(source.sides) <= len(layer.kernel.size) + 1:
        filters = draw(small)
        shape = convolution_sides(source.sides, layer.kernel, filters)
        return replace(layer, type=layer_type, sources=(source.name,), filters=filters, shape=shape)
    if layer_type is POOLING:
        pooling = draw(st.sampled_from([f for f in PoolingFunction if 0 < f < PoolingFunction.STOCHASTIC]))
        over = [source]
        if pooling in (PoolingFunction.MAXOUT, PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE):
            over = [other for other in before if other.width == source.width]
        if len(over) > 1 or pooling not in (PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE):
            shape = pooling_sides([other.sides for other in over], pooling, layer.kernel)
            over_names = tuple(other.name for other in over)
            return replace(layer, type=layer_type, pooling=pooling, sources=over_names, shape=shape)
    over = draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique_by=lambda other: other.name))
    shape = draw(
        st.sampled_from([other.sides for other in before]) | st.lists(small, min_size=1, max_size=4).map(tuple)
    )
    return replace(layer, sources=tuple(other.name for other in over), shape=shape)


def with_shared(layer: LayerSpec, before: list[LayerSpec]) -> LayerSpec:
    """The layer using another's matrix wherever one fits, transposed if it must be."""
    named = {other.name: other for other in before}
    entries: list[SharedWeights] = []
    lenders = [o for o in before if o.type is not POOLING and o.sources and not o.shared]
    for source in layer.sources if layer.type is not POOLING else ():
        wanted = weight_shape(named[source], layer)
        for lender in lenders:
            shape = weight_shape(named[lender.sources[0]], lender)
            if shape == wanted or (len(shape) == 2 and shape[::-1] == wanted):
                entries.append(SharedWeights(source, lender.sources[0], lender.name, transposed=shape != wanted))
                break
    return replace(layer, shared=tuple(entries))


@st.composite
def networks(draw: st.DrawFn) -> NetworkSpec:
    """Legal graphs of all kinds; layers stand in any order."""
    labels = draw(st.lists(names, min_size=8, max_size=8, unique=True))
    layers: list[LayerSpec] = []
    for _ in range(draw(st.integers(1, 2))):
        shape = draw(st.lists(small, min_size=1, max_size=4).map(tuple))
        own = {"normalize": draw(st.booleans()), "analog": draw(st.booleans()), "dataset": draw(names)}
        layers.append(LayerSpec(labels.pop(), INPUT, shape, sparse=draw(st.booleans()), **own))
    for kind in [HIDDEN] * draw(st.integers(0, 4)) + [OUTPUT] * draw(st.integers(1, 2)):
        own = {} if kind is HIDDEN else {"dataset": draw(names), "loss_weight": draw(scales)}
        layer = draw(fed_layers(labels.pop(), kind, layers, **own))
        if kind is OUTPUT:
            layer = replace(layer, loss=draw(st.none() | st.sampled_from([ErrorFunction.L1, ErrorFunction.L2])))
            layer = replace(layer, contrast=Contrast(margin=draw(decimals)))
            layer = replace(layer, sampling=draw(st.builds(Sampling, st.sampled_from(Negatives), st.integers(0, 9))))
        skips = draw(st.lists(st.sampled_from(layers), max_size=2, unique_by=lambda other: other.name))
        if layer.type is not POOLING:
            layer = replace(layer, skips=tuple(other.name for other in skips if other.width == layer.width))
        layers.append(with_shared(layer, layers) if draw(st.booleans()) else layer)
    return NetworkSpec(
        draw(names), tuple(draw(st.permutations(layers))), draw(st.sampled_from(NetworkKind)), ErrorFunction.L2,
        draw(st.builds(MarginalScale, decimals, decimals, decimals, decimals)), denoising=draw(chances),
        sparseness=draw(penalties), shuffle=draw(st.booleans()), decay=draw(scales),
        optimizer=draw(st.none() | optimizers), maxout_k=draw(st.integers(-(2**31), 2**31 - 1)),
        response_normalization=draw(st.builds(ResponseNormalization, decimals, st.integers(1, 9), decimals, decimals)),
        delta_boost=draw(st.builds(DeltaBoost, decimals, decimals)), bfloat16=draw(st.booleans()),
        training=draw(trainings),
    )  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=networks())
def test_a_network_read_is_the_network_written_and_writes_the_same_file(tmp_path: Path, spec: NetworkSpec) -> None:
    weights = drawn(spec)
    write_network(tmp_path / "first.nc", spec, weights)
    read, back = read_network_file(tmp_path / "first.nc")
    assert read == spec
    assert_same_weights(back, weights)
    write_network(tmp_path / "second.nc", read, back)
    assert content_of(tmp_path / "second.nc") == content_of(tmp_path / "first.nc")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(allow_nan=False, allow_infinity=False), chance=st.floats(0, 0.999))
def test_numbers_between_those_of_the_file_settle_when_first_written(
    tmp_path: Path, value: float, chance: float
) -> None:
    odd = replace(LITERAL_SPEC, sparseness=Sparseness(chance, value), denoising=chance, decay=value)
    odd = replace(odd, layers=(*odd.layers[:2], replace(odd.layers[2], loss_weight=value)))
    with np.errstate(over="ignore"):
        is_too_large = np.isinf(np.float32(value))
    if is_too_large:
        with pytest.raises(DataError, match="attribute decay cannot hold"):
            write_network(tmp_path / "first.nc", odd, drawn(odd))
        return
    write_network(tmp_path / "first.nc", odd, drawn(odd))
    write_network(tmp_path / "second.nc", *read_network_file(tmp_path / "first.nc"))
    assert content_of(tmp_path / "second.nc") == content_of(tmp_path / "first.nc")
