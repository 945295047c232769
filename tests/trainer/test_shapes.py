import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.network_types import Kernel, LayerKind, LayerSpec, LayerType, PoolingFunction, SharedWeights
from trainer.shapes import (
    bias_size,
    convolution_sides,
    filter_shape,
    pooling_sides,
    topological,
    weight_shape,
    why_not_convolved,
    why_not_pooled,
    window_padding,
    window_sides,
)

IMAGE = (32, 32, 3)


def hidden(name: str, *sources: str, skips: tuple[str, ...] = (), shared: tuple[SharedWeights, ...] = ()) -> LayerSpec:
    return LayerSpec(name, LayerKind.HIDDEN, (4,), sources, skips=skips, shared=shared)


def names(layers: tuple[LayerSpec, ...]) -> str:
    return " ".join(layer.name for layer in layers)


@pytest.mark.parametrize(
    ("side", "size", "stride", "out", "padding"),
    [
        (32, 5, 1, 32, 2),
        (32, 4, 1, 32, 2),
        (32, 2, 2, 16, 0),
        (32, 3, 2, 15, 0),
        (7, 3, 3, 2, 0),
        (3, 3, 2, 1, 0),
        (3, 3, 1, 1, 0),
        (2, 5, 2, 1, 2),
        (1, 1, 1, 1, 0),
        (4, 1, 2, 2, 0),
    ],
)
def test_a_window_goes_by_dsstnes_rule_but_for_a_kernel_as_long_as_its_side(
    side: int, size: int, stride: int, out: int, padding: int
) -> None:
    kernel = Kernel((size,), (stride,))
    assert window_sides((side, 9), kernel) == (out,)
    assert window_padding((side, 9), kernel) == (padding,)


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 5))
def test_every_window_holds_a_unit(side: int, size: int, stride: int) -> None:
    kernel = Kernel((size,), (stride,))
    (out,), (padding,) = window_sides((side,), kernel), window_padding((side,), kernel)
    assert -padding + size > 0
    assert (out - 1) * stride - padding < side


def test_what_a_source_or_stride_leaves_out_counts_as_one() -> None:
    assert window_sides((8,), Kernel((3, 3), (2,))) == (3, 1)
    assert filter_shape((8, 8), Kernel((3, 5), (1, 1)), 6) == (6, 1, 5, 3)


def test_filters_come_after_the_kernels_dimensions() -> None:
    kernel = Kernel((5, 3), (1, 2))
    assert convolution_sides(IMAGE, kernel, 16) == (32, 15, 16)
    assert filter_shape(IMAGE, kernel, 16) == (16, 3, 3, 5)
    assert why_not_convolved(IMAGE, kernel) is None


def test_a_source_of_more_dimensions_than_kernel_and_channels_is_not_convolved() -> None:
    assert why_not_convolved(IMAGE, Kernel()) == (
        "a source of 3 dimensions is too many for a kernel of 1; at most 2 are wanted"
    )


@pytest.mark.parametrize(
    ("function", "sources", "sides"),
    [
        (PoolingFunction.MAX, [IMAGE], (16, 16, 3)),
        (PoolingFunction.AVERAGE, [IMAGE], (16, 16, 3)),
        (PoolingFunction.LRN, [IMAGE], IMAGE),
        (PoolingFunction.MAXOUT, [IMAGE, IMAGE], IMAGE),
        (PoolingFunction.DOT_PRODUCT, [IMAGE, IMAGE, IMAGE], (2,)),
        (PoolingFunction.COSINE, [(8,), (8,)], (1,)),
    ],
)
def test_pooling_has_its_functions_sides(
    function: PoolingFunction, sources: list[tuple[int, ...]], sides: tuple[int, ...]
) -> None:
    assert why_not_pooled(sources, function) is None
    assert pooling_sides(sources, function, Kernel((2, 2), (2, 2))) == sides


@pytest.mark.parametrize(
    ("function", "sources", "problem"),
    [
        (PoolingFunction.NONE, [(8,)], "Function is missing"),
        (PoolingFunction.STOCHASTIC, [(8,)], "Stochastic pooling is not supported"),
        (PoolingFunction.GLOBAL_TEMPORAL, [(8,)], "GlobalTemporal pooling is not supported"),
        (PoolingFunction.DOT_PRODUCT, [(8,)], "DotProduct needs two or more sources"),
        (PoolingFunction.LRN, [(8,), (8,)], "LRN pools one source, not 2"),
        (PoolingFunction.AVERAGE, [], "Average pools one source, not 0"),
        (PoolingFunction.MAXOUT, [(8,), (4,)], "Maxout needs sources of equal size, not 8, 4 units"),
        (PoolingFunction.MAXOUT, [], "Maxout needs a source"),
    ],
)
def test_what_cannot_be_pooled_is_told_why(
    function: PoolingFunction, sources: list[tuple[int, ...]], problem: str
) -> None:
    assert why_not_pooled(sources, function) == problem


def test_weights_lead_from_units_to_units_and_filters_from_channels_to_filters() -> None:
    image = LayerSpec("Image", LayerKind.INPUT, IMAGE)
    dense = LayerSpec("Dense", LayerKind.HIDDEN, (5, 2))
    filters = LayerSpec("Filters", LayerKind.HIDDEN, (32, 32, 7), type=LayerType.CONVOLUTIONAL, kernel=Kernel((3, 3)))
    assert (weight_shape(image, dense), bias_size(dense)) == ((3072, 10), 10)
    assert (weight_shape(image, filters), bias_size(filters)) == ((7, 3, 3, 3), 7)


def test_layers_keep_their_order_where_they_can() -> None:
    layers = (hidden("A", "C"), hidden("B"), hidden("C"), hidden("D", "A", "B"))
    assert names(topological(layers)) == "B C A D"
    assert names(topological(layers[1:3])) == "B C"


def test_skips_and_lenders_of_weights_come_first() -> None:
    lent = (SharedWeights("A", "A", "C"),)
    layers = (hidden("A"), hidden("B", "A", shared=lent), hidden("C", "A"), hidden("D", "A", skips=("E",)), hidden("E"))
    assert names(topological(layers)) == "A C B E D"


def test_a_lender_of_weights_may_come_later_where_it_is_fed_by_the_borrower() -> None:
    tied = (SharedWeights("In", "Code", "Out", transposed=True),)
    assert names(topological((hidden("In"), hidden("Code", "In", shared=tied), hidden("Out", "Code")))) == "In Code Out"


def test_a_circle_is_named() -> None:
    with pytest.raises(ValueError, match="layers feed each other in a circle: C <- B <- C"):
        topological((hidden("A"), hidden("D", "C"), hidden("B", "A", "C"), hidden("C", skips=("B",))))


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="layer A: no layer is called 'B'"):
        topological((hidden("A", "B"),))


def test_thousands_of_layers_are_put_in_order_at_once() -> None:
    chain = [hidden(str(n), str(n + 1)) for n in range(5000)]
    assert topological((*chain, hidden("5000")))[0].name == "5000"
