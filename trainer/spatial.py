"""Layers whose units have a place: convolution and pooling as pure functions from flat values to flat values.

A layer of sides (Nx, Ny, Nz, Nw), 1 to 4 of them, is [batch, units] with unit x + Nx (y + Ny (z + Nz w)).
A kernel of d dimensions moves over the first d sides. The sizes follow from `trainer.shapes`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from trainer.network_types import Kernel, PoolingFunction, ResponseNormalization
from trainer.shapes import window_padding, window_sides

_SHORTEST = 1e-8
"""Added to both lengths of a cosine."""


def convolve(
    values: jax.Array, filters: jax.Array, sides: tuple[int, ...], kernel: Kernel, *, out_sides: tuple[int, ...]
) -> jax.Array:
    """Cross-correlation of a layer with filters, without bias: [batch, units] -> [batch, units out] float32.

    `filters` are [filters, channels, (z), (y), x] of the type of `values`, float32 or bfloat16; sums are
    float32. The channels are the side after the kernel's, and so are the filters in `out_sides`.
    """
    windows = _windows(sides, kernel, out_sides)
    # [batch, channels, (z), (y), x] x [filters, channels, (z), (y), x] -> [batch, filters, (z), (y), x]
    sums = jax.lax.conv_general_dilated(
        _placed(values, windows),
        filters,
        window_strides=[window.stride for window in windows],
        padding=[window.padding for window in windows],
        preferred_element_type=jnp.float32,
    )
    return _flat(sums)


def pool(
    function: PoolingFunction,
    sources: Sequence[jax.Array],
    sides: Sequence[tuple[int, ...]],
    kernel: Kernel,
    response: ResponseNormalization,
) -> jax.Array:
    """What a pooling layer makes of its sources (DSSTNE spec 5.13): float32 [batch, units] -> [batch, units out].

    Each function reads what concerns it: `kernel` is for Max and Average, `response` for LRN. One that
    `trainer.shapes` does not let pass raises `ValueError`.
    """
    match function:
        case PoolingFunction.MAX:
            return _window_maximum(sources[0], _windows(sides[0], kernel, window_sides(sides[0], kernel)))
        case PoolingFunction.AVERAGE:
            return _window_mean(sources[0], _windows(sides[0], kernel, window_sides(sides[0], kernel)))
        case PoolingFunction.LRN:
            return _normalize_response(sources[0], sides[0], response)
        case PoolingFunction.MAXOUT:
            return _maximum(tuple(sources))
        case PoolingFunction.DOT_PRODUCT:
            return jnp.stack([_dot(sources[0], source) for source in sources[1:]], axis=1)
        case PoolingFunction.COSINE:
            return jnp.stack([_cosine(sources[0], source) for source in sources[1:]], axis=1)
        case _:
            raise ValueError(f"pooling function {function.name} cannot be computed")


@dataclass(frozen=True, slots=True)
class _Window:
    """How a kernel moves along one side."""

    side: int
    """Units it moves over."""
    stops: int
    """Places where it stops: units that come out."""
    size: int
    stride: int
    before: int
    """Units of padding it begins with."""

    @property
    def padding(self) -> tuple[int, int]:
        """Padding at both ends; a negative one leaves out units that no window reaches."""
        return self.before, (self.stops - 1) * self.stride + self.size - self.side - self.before

    def counts(self) -> npt.NDArray[np.float32]:
        """[stops] units under the window that are not padding."""
        first = np.arange(self.stops) * self.stride - self.before
        inside = np.minimum(first + self.size, self.side) - np.maximum(first, 0)
        return inside.astype(np.float32)


def _windows(sides: tuple[int, ...], kernel: Kernel, stops: tuple[int, ...]) -> list[_Window]:
    """The windows of a kernel by dimension, x last; strides, sides and stops that are missing are 1."""
    windows = [
        # A kernel as long as its side stops once, where it covers all of it: files say otherwise at stride 1.
        _Window(side, stop, size, stride, padding)
        for size, padding, stride, side, stop in zip(
            kernel.size,
            window_padding(sides, kernel),
            itertools.chain(kernel.stride, itertools.repeat(1)),
            itertools.chain(sides, itertools.repeat(1)),
            itertools.chain(stops, itertools.repeat(1)),
            strict=False,
        )
    ]
    return windows[::-1]


def _placed(values: jax.Array, windows: list[_Window]) -> jax.Array:
    # [batch, units] -> [batch, channels, (z), (y), x]; sides after the channels count as channels
    places = [window.side for window in windows]
    return values.reshape(values.shape[0], values.shape[1] // math.prod(places), *places)


def _flat(placed: jax.Array) -> jax.Array:
    # [batch, channels, (z), (y), x] -> [batch, units]
    return placed.reshape(placed.shape[0], math.prod(placed.shape[1:]))


def _window_maximum(values: jax.Array, windows: list[_Window]) -> jax.Array:
    return _flat(_reduce(_placed(values, windows), windows, -jnp.inf, jax.lax.max))


def _window_mean(values: jax.Array, windows: list[_Window]) -> jax.Array:
    sums = _reduce(_placed(values, windows), windows, 0.0, jax.lax.add)
    counts = functools.reduce(np.multiply.outer, [window.counts() for window in windows])
    return _flat(sums / counts[None, None])


def _reduce(placed: jax.Array, windows: list[_Window], start: float, combine: Callable[..., jax.Array]) -> jax.Array:
    """Every window made one: [batch, channels, (z), (y), x], as far as windows stop."""
    # A reduction leaves out by itself what no window reaches, and takes no negative padding.
    padding = [(window.before, max(window.padding[1], 0)) for window in windows]
    return jax.lax.reduce_window(
        placed,
        start,
        combine,
        window_dimensions=(1, 1, *(window.size for window in windows)),
        window_strides=(1, 1, *(window.stride for window in windows)),
        padding=[(0, 0), (0, 0), *padding],
    )


def _normalize_response(values: jax.Array, sides: tuple[int, ...], response: ResponseNormalization) -> jax.Array:
    """x / (k + alpha / n · Σ x²)^beta over the `n` channels around each unit's (Krizhevsky et al. 2012, 3.3).

    Of an even `n`, the greater half lies above, as in cuDNN.
    """
    before = (response.n - 1) // 2
    # [batch, units] -> [batch, channels, places]
    maps = values.reshape(values.shape[0], sides[-1], math.prod(sides[:-1]))
    squares = jax.lax.reduce_window(
        jnp.square(maps),
        0.0,
        jax.lax.add,
        window_dimensions=(1, response.n, 1),
        window_strides=(1, 1, 1),
        padding=[(0, 0), (before, response.n - 1 - before), (0, 0)],
    )
    return _flat(maps * (response.k + response.alpha / response.n * squares) ** -response.beta)


@jax.custom_jvp
def _maximum(sources: tuple[jax.Array, ...]) -> jax.Array:
    """The greatest of the sources, unit by unit."""
    return functools.reduce(jnp.maximum, sources)


@_maximum.defjvp
def _maximum_jvp(
    primals: tuple[tuple[jax.Array, ...]], tangents: tuple[tuple[jax.Array, ...]]
) -> tuple[jax.Array, jax.Array]:
    """Every source that equals the maximum gets the whole gradient; JAX would share it out."""
    (sources,), (changes,) = primals, tangents
    greatest = _maximum(sources)
    passed = [jnp.where(source == greatest, change, 0.0) for source, change in zip(sources, changes, strict=True)]
    return greatest, functools.reduce(jnp.add, passed)


def _dot(first: jax.Array, second: jax.Array) -> jax.Array:
    # [batch, units] x [batch, units] -> [batch]
    return jnp.sum(first * second, axis=1)


def _cosine(first: jax.Array, second: jax.Array) -> jax.Array:
    """[batch]; where a vector is zero, it has no direction: the cosine is 0, and so is its gradient."""
    squares, other_squares = _dot(first, first), _dot(second, second)
    directed = (squares > 0) & (other_squares > 0)
    length = jnp.sqrt(jnp.where(directed, squares, 1.0)) + _SHORTEST
    other_length = jnp.sqrt(jnp.where(directed, other_squares, 1.0)) + _SHORTEST
    return jnp.where(directed, _dot(first, second) / (length * other_length), 0.0)
