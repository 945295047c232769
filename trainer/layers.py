"""The layers as flax modules of a few lines, and the weights they begin with. Weights that touch features are stored
[features, units], rows spread over mesh axis `model`; the batch is spread over `data`. Rows beyond a layer's width
exist only so that the rows divide by the devices; they stay zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from trainer.deal import IN_ORDER, Deal, deal_of, is_wide
from trainer.network_types import ConnectionSpec, WeightInit, WeightScheme
from trainer.shapes import filter_shape, has_zero_diagonal
from trainer.sharding import batch_specs, over_parts
from trainer.sparse import SparseBatch

_EPSILON = 1e-5
"""Added to a variance before its root, as cuDNN did."""
_PIECE, _PIECE_NUMBERS = 1 << 12, 1 << 22
"""Entries that are worth a turn of a loop, unless what is made of them gets larger than so many numbers."""
_SLOWEST_AVERAGE = 0.01
"""Least share of a batch in the running statistics: they are means at first, then forget."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the matrix [in, out] of a fully connected layer is stored."""

    rows: Deal
    columns: Deal
    by_output: bool
    """Stored as its transpose, [out, in]."""
    group: str
    """Of its parameters, which tells where they live: `inputs` and `outputs` have their rows spread over axis
    `model`, `hidden` is everywhere."""


def layout_of(connection: ConnectionSpec, shards: int) -> Layout:
    """The layout of a matrix by the layers it stands between."""
    source, target = deal_of(connection.source, shards), deal_of(connection.target, shards)
    if is_wide(connection.source):
        return Layout(source, target, False, "inputs")
    if is_wide(connection.target):
        return Layout(target, source, True, "outputs")
    return Layout(source, target, False, "hidden")


class Linear(nnx.Module):
    """Kernel and biases of a fully connected layer; no kernel where another's is used."""

    def __init__(self, connection: ConnectionSpec, *, own: bool, shards: int, rng: jax.Array) -> None:
        layout, init = layout_of(connection, shards), connection.target.weight_init
        if own:
            fans = (connection.source.width, connection.target.width)
            kernel = _dealt_kernel(init, rng, layout.rows, columns=layout.columns.units, fans=fans)
            kernel = without_diagonal(kernel) if has_zero_diagonal(connection) else kernel
            missing = layout.columns.stored - layout.columns.units
            self.kernel = nnx.Param(jnp.pad(kernel, ((0, 0), (0, missing))))
        self.bias = nnx.Param(_initial_bias(init, layout.rows if layout.by_output else layout.columns))


class Convolution(nnx.Module):
    """Filters [filters, channels, …, y, x] and biases [filters]."""

    def __init__(self, connection: ConnectionSpec, *, own: bool, rng: jax.Array) -> None:
        layer, init = connection.target, connection.target.weight_init
        if own:
            shape = filter_shape(connection.source.sides, layer.kernel, layer.filters)
            fans = (connection.source.width, layer.width)
            flat = initial_kernel(init, rng, shape=(shape[0], math.prod(shape[1:])), fans=fans)
            self.kernel = nnx.Param(flat.reshape(shape))
        self.bias = nnx.Param(_initial_bias(init, Deal(layer.filters, layer.filters)))


class BatchNorm(nnx.Module):
    """(x - mean) / √(variance + 1e-5) · scale + bias by channel, mean and variance of the batch in training, running
    ones otherwise (DSSTNE spec 5.9).
    """

    def __init__(self, channels: int) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(channels)), nnx.BatchStat(jnp.zeros(channels))
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, sums: jax.Array, *, mask: jax.Array | None) -> jax.Array:
        """Normalised sums [batch, channels · places]; `mask` [batch] says what counts, and is given in training."""
        # [batch, units] -> [batch, channels, places of a channel]
        x = sums.reshape(sums.shape[0], len(self.scale), -1)
        mean, variance = self.mean[...], self.variance[...]
        if mask is not None:
            mean, variance = self._learn(x, mask)
        scaled = self.scale[...] * jax.lax.rsqrt(variance + _EPSILON)
        return ((x - mean[None, :, None]) * scaled[None, :, None] + self.bias[...][None, :, None]).reshape(sums.shape)

    def _learn(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight = mask[:, None, None]
        count = jnp.maximum(mask.sum() * x.shape[2], 1.0)
        mean = (x * weight).sum(axis=(0, 2)) / count
        variance = (jnp.square(x - mean[None, :, None]) * weight).sum(axis=(0, 2)) / count
        calls = self.count[...]
        share = jnp.maximum(1.0 / (calls.astype(jnp.float32) + 1.0), _SLOWEST_AVERAGE)
        unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
        self.mean[...] = jax.lax.stop_gradient((1.0 - share) * self.mean[...] + share * mean)
        self.variance[...] = jax.lax.stop_gradient((1.0 - share) * self.variance[...] + share * unbiased)
        self.count[...] = calls + 1
        return mean, variance


class LayerNorm(nnx.Module):
    """Sums of each sample brought to mean 0 and variance 1, then scale and bias by unit (Ba et al. 2016)."""

    def __init__(self, units: int) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(units)), nnx.Param(jnp.zeros(units))

    def __call__(self, sums: jax.Array) -> jax.Array:
        """Normalised sums [batch, units]."""
        centred = sums - sums.mean(axis=1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=1, keepdims=True) + _EPSILON)
        return scaled * self.scale[...][None, :] + self.bias[...][None, :]


@dataclass(frozen=True, slots=True)
class Corruption:
    """What happens to the values of a sparse input on the way to its sum."""

    normalize: bool
    """Scale every sample to length 1."""
    p: float
    """Chance of a stored feature to be hidden, the layer's own or the network's denoising; the others are scaled by
    1 / (1 - p)."""
    rng: jax.Array | None
    """`None`: no denoising."""
    deal: Deal = IN_ORDER
    """How the features are stored; here in order."""

    def product(self, kernel: jax.Array, batch: SparseBatch, *, spread: bool = False) -> jax.Array:
        """Sum of the kernel rows a sample's features select, [batch, units]; only that crosses devices. `kernel` is
        [features, units], its rows spread over the devices. `spread`: each device keeps its share of the units.
        """
        out = P("data", "model") if spread else P("data", None)
        gather_sum = partial(self._gather_sum, spread=spread)
        product = jax.shard_map(gather_sum, in_specs=(P("model", None), batch_specs(batch), P()), out_specs=out)
        return product(kernel, batch, self.rng)

    def dense(self, batch: SparseBatch, columns: int) -> jax.Array:
        """The same input with its zeros, [batch, columns]; duplicates add up."""

        def scatter(batch: SparseBatch, rng: jax.Array | None) -> jax.Array:
            zeros = jnp.zeros((len(batch.sample_mask), columns), jnp.float32)
            return zeros.at[batch.rows, batch.indices].add(self.values(batch, rng), mode="drop")

        return jax.shard_map(scatter, in_specs=(batch_specs(batch), P()), out_specs=P("data", None))(batch, self.rng)

    def _gather_sum(self, kernel: jax.Array, batch: SparseBatch, rng: jax.Array | None, *, spread: bool) -> jax.Array:
        values = self.values(batch, rng)
        local = batch.indices - jax.lax.axis_index("model") * kernel.shape[0]

        def summed(local: jax.Array, rows: jax.Array, values: jax.Array) -> jax.Array:
            owned = (local >= 0) & (local < kernel.shape[0])
            taken = kernel.at[jnp.where(owned, local, 0)].get(mode="promise_in_bounds")
            taken = taken * jnp.where(owned, values, 0.0)[:, None]
            # Rows of several parts are in order by part only.
            is_sorted = batch.rows.ndim == 1
            return jax.ops.segment_sum(taken, rows, len(batch.sample_mask), indices_are_sorted=is_sorted)

        pieces = [entry_pieces(entry, kernel.shape[1]) for entry in (local, batch.rows, values)]

        def more(number: jax.Array, so_far: jax.Array) -> jax.Array:
            return so_far + summed(*(one[number] for one in pieces))

        sums = jax.lax.fori_loop(1, len(pieces[0]), more, summed(*(one[0] for one in pieces)))
        if spread:
            return jax.lax.psum_scatter(sums, "model", scatter_dimension=1, tiled=True)
        return jax.lax.psum(sums, "model")

    def values(self, batch: SparseBatch, rng: jax.Array | None) -> jax.Array:
        """What the entries of a device's part of a batch weigh, of the shape of its `indices`; within `shard_map`."""
        values = jnp.ones(batch.indices.shape, jnp.float32) if batch.values is None else batch.values
        if batch.weights is not None:
            values = values * batch.weights.at[batch.rows].get(mode="fill", fill_value=0.0)
        if self.normalize:
            real = jnp.where(batch.rows < len(batch.sample_mask), values, 0.0)
            squares = over_parts(_row_sums(jnp.square(real).reshape(-1), batch), batch)
            length = jnp.sqrt(jnp.maximum(squares, 1e-12))
            values = values / length.at[batch.rows].get(mode="fill", fill_value=1.0)
        if rng is not None and self.p > 0:
            row = batch.rows + jax.lax.axis_index("data") * len(batch.sample_mask)
            draw = _uniform_at(rng, row.reshape(-1), self.deal.unit(batch.indices).reshape(-1))
            values = jnp.where(draw.reshape(values.shape) >= self.p, values / (1.0 - self.p), 0.0)
        return values


def entry_pieces(entries: jax.Array, units: int) -> jax.Array:
    """The entries of a batch, [parts, capacity] where it is dealt, as [pieces, …], of each of which [entries, `units`]
    can be made.
    """
    if entries.ndim == 1:
        entries = entries.reshape(-1, math.gcd(len(entries), _PIECE))
    parts, capacity = entries.shape
    enough = min(_PIECE, _PIECE_NUMBERS // units)
    fitting = (count for count in range(1, parts) if parts % count == 0 and count * capacity >= enough)
    return entries.reshape(-1, next(fitting, parts) * capacity)


def _row_sums(values: jax.Array, batch: SparseBatch) -> jax.Array:
    # [entries, …] -> [batch, …]
    is_sorted = batch.rows.ndim == 1 or batch.rows.shape[0] == 1
    rows = batch.rows.reshape(-1)
    return jax.ops.segment_sum(values, rows, len(batch.sample_mask), indices_are_sorted=is_sorted)


def _uniform_at(rng: jax.Array, rows: jax.Array, features: jax.Array) -> jax.Array:
    """A number in [0, 1) for each (row, feature): the same whatever the mesh or the entry's place."""

    def draw(row: jax.Array, feature: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(rng, row), feature))

    return jax.vmap(draw)(rows, features)


def limit_deltas(sums: jax.Array, samples: jax.Array, *, length: float) -> jax.Array:
    """`sums` [batch, units] as they are; on the way back a sample's deltas are shortened to `length` (DSSTNE spec
    5.10). Deltas there are those of the summed loss, while what passes here is the mean's over `samples`.
    """

    @jax.custom_vjp
    def same(sums: jax.Array, _: jax.Array) -> jax.Array:
        return sums

    def backward(samples: jax.Array, deltas: jax.Array) -> tuple[jax.Array, None]:
        longest = jnp.sqrt(jnp.square(deltas).sum(axis=1, keepdims=True)) * samples
        return jnp.where(longest > length, deltas * (length / jnp.maximum(longest, 1e-30)), deltas), None

    same.defvjp(lambda sums, samples: (sums, samples), backward)
    return same(sums, samples)


def limit_weights(kernel: jax.Array, *, length: float, by_output: bool) -> jax.Array:
    """`kernel` ([in, out], or `by_output` [out, in] or filters [filters, …]) with the incoming weights of each unit no
    longer than `length` (DSSTNE spec 5.10); shape as before.
    """
    axes = tuple(range(1, kernel.ndim)) if by_output else (0,)
    longest = jnp.sqrt(jnp.square(kernel).sum(axis=axes, keepdims=True))
    return jnp.where(longest > length, kernel * (length / jnp.maximum(longest, 1e-30)), kernel)


def of_length_one(values: jax.Array) -> jax.Array:
    """Each sample's `values`, [batch, units], scaled to length 1; what is 0 stays 0."""
    return values / jnp.sqrt(jnp.maximum(jnp.square(values).sum(axis=1, keepdims=True), 1e-12))


def stored_features(batch: SparseBatch) -> jax.Array:
    """How many features are stored of each sample, [batch]."""

    def of_shard(batch: SparseBatch) -> jax.Array:
        ones = jnp.ones(batch.rows.size, jnp.float32)
        return over_parts(jax.ops.segment_sum(ones, batch.rows.reshape(-1), len(batch.sample_mask)), batch)

    return jax.shard_map(of_shard, in_specs=(batch_specs(batch),), out_specs=P("data"), check_vma=False)(batch)


def without_diagonal(matrix: jax.Array) -> jax.Array:
    """A matrix of features in their order, those that lead to themselves at 0."""
    row, column = (jax.lax.broadcasted_iota(jnp.int32, matrix.shape, axis) for axis in (0, 1))
    return jnp.where(row == column, 0.0, matrix)


@jax.custom_vjp
def keep_diagonal(matrix: jax.Array) -> jax.Array:
    """A matrix of features in their order as it is; the gradient of its diagonal is 0, so that what begins with zeros
    there keeps them without a copy of it.
    """
    return matrix


keep_diagonal.defvjp(lambda matrix: (matrix, None), lambda _, gradient: (without_diagonal(gradient),))


def matmul(values: jax.Array, kernel: jax.Array, *, transposed: bool, bfloat16: bool) -> jax.Array:
    """[batch, in] times [in, out], or [out, in] where `transposed`, summed in float32."""
    product: Callable[..., Any] = partial(jnp.einsum, "bi,oi->bo" if transposed else "bi,io->bo")
    if not bfloat16:
        return product(values, kernel)
    return product(values.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def initial_kernel(init: WeightInit, rng: jax.Array, *, shape: tuple[int, ...], fans: tuple[int, int]) -> jax.Array:
    """Initial weights of `shape`, float32, by DSSTNE's schemes (spec 5.12); `fans` are units in and out.

    More rows do not change the rows before them, so the draw does not depend on the number of devices.
    """
    fan_in, fan_out = fans
    if init.scheme is WeightScheme.CONSTANT:
        return jnp.full(shape, -init.scale, jnp.float32)
    if init.scheme is WeightScheme.SELU:
        return jax.random.normal(rng, shape, jnp.float32) / fan_in
    if init.scheme is WeightScheme.GAUSSIAN:
        return init.scale * jax.random.normal(rng, shape, jnp.float32)
    if init.scheme is WeightScheme.UNIT_BALL:
        return init.scale * (1.0 - jax.random.uniform(rng, shape, jnp.float32))
    half_range = {
        WeightScheme.XAVIER: 0.5 * init.scale * math.sqrt(6.0 / (fan_in + fan_out)),
        WeightScheme.CAFFE_XAVIER: init.scale * math.sqrt(3.0 / fan_out),
        WeightScheme.UNIFORM: init.scale,
    }[init.scheme]
    return jax.random.uniform(rng, shape, jnp.float32, -half_range, half_range)


def _dealt_kernel(init: WeightInit, rng: jax.Array, rows: Deal, *, columns: int, fans: tuple[int, int]) -> jax.Array:
    """[stored rows, columns], drawn row by row in the order of the units, so that every deal gives a unit the same; in
    three sides, so that each device draws only what it is to hold.
    """
    drawn = initial_kernel(init, rng, shape=(rows.size, rows.parts, columns), fans=fans)
    unit = jnp.arange(rows.size)[:, None] * rows.parts + jnp.arange(rows.parts)[None, :]
    drawn = jnp.where((unit < rows.units)[:, :, None], drawn, 0.0)
    return drawn.swapaxes(0, 1).reshape(rows.stored, columns)


def _initial_bias(init: WeightInit, units: Deal) -> jax.Array:
    return jnp.where(units.unit(jnp.arange(units.stored)) < units.units, jnp.float32(init.bias), 0.0)


@jax.custom_vjp
def scale_gradient(values: jax.Array, factor: float) -> jax.Array:
    """`values` (any shape) as they are; their gradient is multiplied by `factor`: of a matrix used n times DSSTNE takes
    the mean (spec 5.5).
    """
    del factor
    return values


def _scale_forward(values: jax.Array, factor: float) -> tuple[jax.Array, float]:
    return values, factor


def _scale_backward(factor: float, gradient: jax.Array) -> tuple[jax.Array, None]:
    return gradient * factor, None


scale_gradient.defvjp(_scale_forward, _scale_backward)
