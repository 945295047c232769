"""Convolution and pooling against loops over single units in float64, and against their finite differences."""

import math
import re
from collections.abc import Callable, Sequence

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.network_types import Kernel, PoolingFunction, ResponseNormalization
from trainer.spatial import convolve, pool

Array = npt.NDArray[np.float64]
Sides = tuple[int, ...]
Compute = Callable[..., jax.Array]

RESPONSE = ResponseNormalization(k=2.0, n=5, alpha=0.5, beta=0.75)
NO_KERNEL = Kernel()
KERNELS = {
    "odd, 1-D": ((7, 3), Kernel((3,), (1,))),
    "even, 1-D": ((7, 3), Kernel((4,), (1,))),
    "one unit": ((3, 2), Kernel((1,), (1,))),
    "stride 2": ((9, 2), Kernel((3,), (2,))),
    "stride 3 with a rest": ((10, 2), Kernel((3,), (3,))),
    "even with stride": ((8, 1), Kernel((4,), (2,))),
    "stride beyond the kernel": ((7, 2), Kernel((1,), (3,))),
    "longer than its side by an odd number": ((2, 3), Kernel((5,), (1,))),
    "longer than its side by an even number": ((3, 2), Kernel((5,), (2,))),
    "as long as its side": ((3, 2), Kernel((3,), (1,))),
    "as long as its side with stride": ((4, 2), Kernel((4,), (2,))),
    "2-D": ((5, 4, 2), Kernel((3, 2), (1, 2))),
    "2-D over one dimension": ((5,), Kernel((2, 3), (1, 1))),
    "2-D with one stride": ((5, 3, 2), Kernel((2, 2), (2,))),
    "2-D without channels": ((4, 3), Kernel((2, 2), (2, 1))),
    "3-D": ((4, 2, 3, 2), Kernel((2, 3, 2), (2, 1, 1))),
    "3-D without channels": ((3, 2, 3), Kernel((2, 3, 1), (1, 1, 2))),
}
each_kernel = pytest.mark.parametrize(("sides", "kernel"), KERNELS.values(), ids=KERNELS.keys())


@each_kernel
def test_convolution_and_its_gradients_are_those_of_a_loop(sides: Sides, kernel: Kernel) -> None:
    channels = sides[len(kernel.size)] if len(sides) > len(kernel.size) else 1
    values = _numbers(2, math.prod(sides))
    filters = _numbers(3, channels, *reversed(kernel.size), seed=1)
    out_sides = (*(len(stops) for stops in _stops(sides, kernel)), 3)

    _compare(
        lambda values, filters: convolve(values, filters, sides, kernel, out_sides=out_sides),
        lambda values, filters: _convolution(values, filters, sides, kernel),
        values,
        filters,
    )


def test_convolution_in_bfloat16_is_summed_in_float32() -> None:
    sides, kernel = (600, 2), Kernel((512,), (1,))
    filters = jnp.ones((1, 2, 512), jnp.bfloat16)
    values = jnp.ones((1, 1200), jnp.bfloat16)

    sums = convolve(values, filters, sides, kernel, out_sides=(600, 1))
    slopes = jax.grad(lambda values: jnp.sum(convolve(values, filters, sides, kernel, out_sides=(600, 1))))(values)

    assert sums.dtype == jnp.float32
    assert sums[0, 255] == 2 * 511  # bfloat16 has no such number
    assert slopes.dtype == jnp.bfloat16


@each_kernel
@pytest.mark.parametrize("function", [PoolingFunction.MAX, PoolingFunction.AVERAGE], ids=["Max", "Average"])
def test_window_pooling_and_its_gradient_are_those_of_a_loop(
    sides: Sides, kernel: Kernel, function: PoolingFunction
) -> None:
    pick = np.max if function is PoolingFunction.MAX else np.mean
    # All below zero: padding would win.
    values = -1.0 - np.abs(_numbers(2, math.prod(sides)))

    _compare(
        lambda values: pool(function, [values], [sides], kernel, RESPONSE),
        lambda values: _window_pooling(values, sides, kernel, pick),
        values,
    )


@pytest.mark.parametrize("function", [PoolingFunction.MAX, PoolingFunction.AVERAGE], ids=["Max", "Average"])
def test_sides_beyond_the_kernel_stay_as_they_are(function: PoolingFunction) -> None:
    pick = np.max if function is PoolingFunction.MAX else np.mean

    _compare(
        lambda values: pool(function, [values], [(5, 3, 2)], Kernel((3,), (2,)), RESPONSE),
        lambda values: _window_pooling(values, (5, 3, 2), Kernel((3,), (2,)), pick),
        _numbers(2, 30),
    )


@pytest.mark.parametrize("n", [1, 4, 5, 9])
@pytest.mark.parametrize("sides", [(6,), (1, 2, 2, 5)])
def test_response_normalization_and_its_gradient_are_those_of_a_loop(sides: Sides, n: int) -> None:
    response = ResponseNormalization(k=1.5, n=n, alpha=0.8, beta=0.7)

    _compare(
        lambda values: pool(PoolingFunction.LRN, [values], [sides], NO_KERNEL, response),
        lambda values: _response_normalization(values, sides, response),
        _numbers(2, math.prod(sides)),
    )


def test_maxout_takes_the_greatest_source_of_each_unit() -> None:
    sources = _numbers(3, 3, 4)  # no two alike

    _compare(
        lambda *sources: pool(PoolingFunction.MAXOUT, sources, [(4,)] * 3, NO_KERNEL, RESPONSE),
        lambda *sources: np.max(sources, axis=0),
        *sources,
    )


def test_every_source_that_equals_the_maximum_gets_the_whole_gradient() -> None:
    sources = [jnp.array([[1.0, 5.0, 2.0]]), jnp.array([[1.0, 3.0, 2.0]]), jnp.array([[0.0, 5.0, 2.0]])]

    def weighed(sources: list[jax.Array]) -> jax.Array:
        greatest = pool(PoolingFunction.MAXOUT, sources, [(3,)] * 3, NO_KERNEL, RESPONSE)
        return jnp.sum(greatest * jnp.array([[7.0, 8.0, 9.0]]))

    slopes = jax.jit(jax.grad(weighed))(sources)

    np.testing.assert_array_equal(np.concatenate(slopes), [[7, 8, 9], [7, 0, 9], [0, 8, 9]])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "function", [PoolingFunction.DOT_PRODUCT, PoolingFunction.COSINE], ids=["DotProduct", "Cosine"]
)
def test_products_of_the_first_source_with_each_other_one(function: PoolingFunction, count: int) -> None:
    def oracle(*sources: Array) -> Array:
        products = [np.sum(sources[0] * other, axis=1) for other in sources[1:]]
        if function is PoolingFunction.COSINE:
            lengths = [np.linalg.norm(source, axis=1) + 1e-8 for source in sources]
            products = [product / (lengths[0] * other) for product, other in zip(products, lengths[1:], strict=True)]
        return np.stack(products, axis=1)

    _compare(
        lambda *sources: pool(function, sources, [(5,)] * count, NO_KERNEL, RESPONSE),
        oracle,
        *(_numbers(3, 5, seed=seed) for seed in range(count)),
    )


def test_zero_vectors_have_cosine_0_and_gradient_0_and_leave_other_samples_alone() -> None:
    full, zero = np.array([3.0, 4.0]), np.zeros(2)
    first = np.stack([zero, full, zero, full]).astype(np.float32)
    second = np.stack([full, zero, zero, full]).astype(np.float32)

    def cosines(first: jax.Array, second: jax.Array) -> jax.Array:
        return pool(PoolingFunction.COSINE, [first, second], [(2,), (2,)], NO_KERNEL, RESPONSE)

    slopes = jax.jit(jax.jacobian(cosines, argnums=(0, 1)))(first, second)

    np.testing.assert_allclose(cosines(jnp.asarray(first), jnp.asarray(second)), [[0], [0], [0], [1]], atol=1e-6)
    np.testing.assert_allclose(slopes, np.zeros((2, 4, 1, 4, 2)), atol=1e-6)


def test_cosine_of_very_short_vectors_is_pulled_to_0() -> None:
    short = jnp.array([[1e-8, 0.0]])

    cosine = pool(PoolingFunction.COSINE, [short, short], [(2,), (2,)], NO_KERNEL, RESPONSE)

    np.testing.assert_allclose(cosine, [[0.25]], rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        PoolingFunction.NONE,
        PoolingFunction.STOCHASTIC,
        PoolingFunction.LCN,
        PoolingFunction.GLOBAL_TEMPORAL,
    ],
)
def test_functions_that_are_names_only_are_refused(function: PoolingFunction) -> None:
    with pytest.raises(ValueError, match=f"^pooling function {function.name} cannot be computed$"):
        pool(function, [jnp.zeros((1, 4))], [(4,)], NO_KERNEL, RESPONSE)


def _pooling(function: PoolingFunction, sources: int) -> Compute:
    return lambda *values: pool(function, values, [(4, 2)] * sources, Kernel((3,), (1,)), RESPONSE)


COMPUTED: dict[str, tuple[Compute, list[Sides]]] = {
    # name: function, shapes of what it takes
    "1-D convolution": (
        lambda values, filters: convolve(values, filters, (4, 2), Kernel((4,), (1,)), out_sides=(1, 2)),
        [(8, 8), (2, 2, 4)],
    ),
    "3-D convolution": (
        lambda values, filters: convolve(
            values, filters, (2, 2, 2), Kernel((2, 2, 1), (1, 1, 1)), out_sides=(1, 1, 2, 3)
        ),
        [(8, 8), (3, 1, 1, 2, 2)],
    ),
    "Max": (_pooling(PoolingFunction.MAX, 1), [(8, 8)]),
    "Average": (_pooling(PoolingFunction.AVERAGE, 1), [(8, 8)]),
    "LRN": (_pooling(PoolingFunction.LRN, 1), [(8, 8)]),
    "Maxout": (_pooling(PoolingFunction.MAXOUT, 2), [(8, 8), (8, 8)]),
    "DotProduct": (_pooling(PoolingFunction.DOT_PRODUCT, 2), [(8, 8), (8, 8)]),
    "Cosine": (_pooling(PoolingFunction.COSINE, 2), [(8, 8), (8, 8)]),
}
each_function = pytest.mark.parametrize(("compute", "shapes"), COMPUTED.values(), ids=COMPUTED.keys())


@each_function
def test_values_and_gradients_compile_for_every_kind_of_accelerator(compute: Compute, shapes: list[Sides]) -> None:
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    step = jax.jit(jax.value_and_grad(lambda inputs: jnp.sum(compute(*inputs))))

    exported = jax.export.export(step, platforms=["cuda", "tpu", "cpu"])(inputs)

    assert exported.platforms == ("cuda", "tpu", "cpu")


@each_function
def test_a_batch_spread_over_devices_stays_where_it_is(compute: Compute, shapes: list[Sides]) -> None:
    inputs = [_singles(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    by_sample, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    spread = [jax.device_put(array, by_sample if array.ndim == 2 else everywhere) for array in inputs]

    compiled = jax.jit(compute).lower(*spread).compile()

    assert not re.findall(r"all-\w+|collective-\w+", compiled.as_text() or "")
    np.testing.assert_allclose(compiled(*spread), compute(*inputs), rtol=1e-5, atol=1e-6)


def _numbers(*shape: int, seed: int = 0) -> Array:
    """Numbers around 0 in some order, no two alike."""
    return np.random.default_rng(seed).permutation(np.linspace(-1, 1.1, math.prod(shape))).reshape(shape)


def _singles(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(_numbers(*shape, seed=seed), jnp.float32)


def _compare(compute: Compute, oracle: Callable[..., Array], *inputs: Array) -> None:
    """Values are the oracle's, and gradients, of a sum of weighed outputs, its central differences."""
    expected = oracle(*inputs)
    weights = _numbers(*expected.shape, seed=99)
    singles = [jnp.asarray(array, jnp.float32) for array in inputs]
    weighed = jnp.asarray(weights, jnp.float32)

    def total(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = compute(*inputs)
        return jnp.sum(outputs * weighed), outputs

    slopes, outputs = jax.jit(jax.grad(total, argnums=tuple(range(len(inputs))), has_aux=True))(*singles)

    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=2e-6)
    for number, slope in enumerate(slopes):
        differences = _differences(lambda *inputs: float(np.sum(oracle(*inputs) * weights)), inputs, number)
        np.testing.assert_allclose(slope, differences, rtol=2e-4, atol=2e-5)


def _differences(total: Callable[..., float], inputs: Sequence[Array], number: int, step: float = 1e-5) -> Array:
    moved = [array.copy() for array in inputs]
    found = np.zeros_like(inputs[number])
    for place in np.ndindex(found.shape):
        ends: list[float] = []
        for change in (-step, step):
            moved[number][place] = inputs[number][place] + change
            ends.append(total(*moved))
        moved[number][place] = inputs[number][place]
        found[place] = (ends[1] - ends[0]) / (2 * step)
    return found


def _stops(sides: Sides, kernel: Kernel) -> list[list[int]]:
    """By kernel dimension, the first unit of each window; below 0 where it begins in the padding."""
    found: list[list[int]] = []
    for dimension, size in enumerate(kernel.size):
        stride = kernel.stride[dimension] if dimension < len(kernel.stride) else 1
        length = sides[dimension] if dimension < len(sides) else 1
        if length <= size:
            found.append([-((size - length + 1) // 2)])
        elif stride == 1:
            found.append([unit - size // 2 for unit in range(length)])
        else:
            found.append(list(range(0, length - size + 1, stride)))
    return found


def _grid(sample: Array, sides: Sides, dimensions: int) -> Array:
    """One sample's units as [x, (y), (z), channels]: x runs fastest."""
    places = [*sides, 1, 1, 1][:dimensions]
    return sample.reshape((*places, -1), order="F")


def _inside(stop: Sequence[int], kernel: Kernel, grid: Array) -> list[tuple[Sides, Sides]]:
    """(place in the kernel, place in the grid) of what a window covers and is not padding."""
    pairs = [(tap, tuple(map(sum, zip(stop, tap, strict=True)))) for tap in np.ndindex(kernel.size)]
    return [(tap, at) for tap, at in pairs if all(0 <= a < n for a, n in zip(at, grid.shape, strict=False))]


def _convolution(values: Array, filters: Array, sides: Sides, kernel: Kernel) -> Array:
    stops = _stops(sides, kernel)
    outputs = np.zeros((len(values), *map(len, stops), len(filters)))
    for sample in range(len(values)):
        grid = _grid(values[sample], sides, len(kernel.size))
        for out in np.ndindex(outputs.shape[1:-1]):
            stop = [begins[number] for begins, number in zip(stops, out, strict=True)]
            for tap, at in _inside(stop, kernel, grid):
                for number, taps in enumerate(filters):
                    outputs[(sample, *out, number)] += taps[(slice(None), *reversed(tap))] @ grid[at]
    return np.stack([sample.ravel(order="F") for sample in outputs])


def _window_pooling(values: Array, sides: Sides, kernel: Kernel, pick: Callable[..., Array]) -> Array:
    stops = _stops(sides, kernel)
    outputs: list[Array] = []
    for sample in values:
        grid = _grid(sample, sides, len(kernel.size))
        found = np.zeros((*map(len, stops), grid.shape[-1]))
        for out in np.ndindex(found.shape[:-1]):
            stop = [begins[number] for begins, number in zip(stops, out, strict=True)]
            found[out] = pick([grid[at] for _, at in _inside(stop, kernel, grid)], axis=0)
        outputs.append(found.ravel(order="F"))
    return np.stack(outputs)


def _response_normalization(values: Array, sides: Sides, response: ResponseNormalization) -> Array:
    outputs = np.zeros_like(values)
    places, channels = math.prod(sides[:-1]), sides[-1]
    below = (response.n - 1) // 2
    for sample, place, channel in np.ndindex(len(values), places, channels):
        neighbours = range(max(channel - below, 0), min(channel - below + response.n, channels))
        squares = sum(values[sample, place + places * other] ** 2 for other in neighbours)
        unit = place + places * channel
        scale = (response.k + response.alpha / response.n * squares) ** response.beta
        outputs[sample, unit] = values[sample, unit] / scale
    return outputs
