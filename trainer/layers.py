"""The layers as flax modules of a few lines, the activations, dropout and initial weights. Weights that
touch features are stored [features, units], rows spread over mesh axis `model`; the batch is spread over
`data`. Rows beyond a layer's width exist only so that the rows divide by the devices; they stay zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from trainer.network import Activation, LayerSpec, WeightInit, WeightScheme
from trainer.sparse import SparseBatch

ActivationFunction = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True, slots=True)
class Size:
    """A side of a weight matrix: its units, and the rows or columns stored for them."""

    units: int
    stored: int


class SparseDense(nnx.Module):
    """Sum of the kernel rows a sample's features select, plus bias: [batch, units]."""

    def __init__(self, features: Size, units: Size, *, init: WeightInit, rng: jax.Array) -> None:
        kernel = initial_kernel(init, rng, shape=(features.stored, units.units), fans=(features.units, units.units))
        kernel = _zero_beyond(kernel, features.units)
        self.kernel = nnx.Param(jnp.pad(kernel, ((0, 0), (0, units.stored - units.units))))
        self.bias = nnx.Param(_initial_bias(init, units))

    def __call__(self, batch: SparseBatch, *, corruption: "Corruption") -> jax.Array:
        """Output before the activation; only [batch, units] crosses devices."""
        sums = jax.shard_map(
            corruption.gather_sum,
            in_specs=(P("model", None), P("data"), P()),
            out_specs=P("data", None),
        )(self.kernel[...], batch, corruption.rng)
        return sums + self.bias[...][None, :]


class Dense(nnx.Module):
    """Hidden to hidden: [batch, in] -> [batch, out]."""

    def __init__(self, inputs: int, units: int, *, init: WeightInit, rng: jax.Array) -> None:
        self.kernel = nnx.Param(initial_kernel(init, rng, shape=(inputs, units), fans=(inputs, units)))
        self.bias = nnx.Param(_initial_bias(init, Size(units, units)))

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Output before the activation."""
        return hidden @ self.kernel[...] + self.bias[...][None, :]


class FeatureOutput(nnx.Module):
    """Hidden to features: logits [batch, features], each device computes its own features."""

    def __init__(self, inputs: int, features: Size, *, init: WeightInit, rng: jax.Array) -> None:
        kernel = initial_kernel(init, rng, shape=(features.stored, inputs), fans=(inputs, features.units))
        self.kernel = nnx.Param(_zero_beyond(kernel, features.units))
        self.bias = nnx.Param(_initial_bias(init, features))

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Logits, spread over `data` and `model`."""
        # [batch, hidden] x [features, hidden] -> [batch, features]
        logits = jnp.einsum("bh,fh->bf", hidden, self.kernel[...]) + self.bias[...][None, :]
        return jax.lax.with_sharding_constraint(logits, P("data", "model"))


@dataclass(frozen=True, slots=True)
class Corruption:
    """What happens to the values of a sparse input on the way to its sum."""

    normalize: bool
    """Scale every sample to length 1."""
    p: float
    """Denoising: chance of a stored feature to be hidden; the others are scaled by 1 / (1 - p)."""
    rng: jax.Array | None
    """`None`: no denoising."""

    def gather_sum(self, kernel: jax.Array, batch: SparseBatch, rng: jax.Array | None) -> jax.Array:
        """This shard's rows of `kernel` summed by sample, then over shards: [batch, units]."""
        first = jax.lax.axis_index("model") * kernel.shape[0]
        local = batch.indices - first
        owned = (local >= 0) & (local < kernel.shape[0])
        values = jnp.where(owned, self._values(batch, rng), 0.0)
        taken = kernel.at[jnp.where(owned, local, 0)].get(mode="promise_in_bounds")
        sums = jax.ops.segment_sum(taken * values[:, None], batch.rows, len(batch.sample_mask), indices_are_sorted=True)
        return jax.lax.psum(sums, "model")

    def _values(self, batch: SparseBatch, rng: jax.Array | None) -> jax.Array:
        samples = len(batch.sample_mask)
        values = jnp.ones(batch.indices.shape, jnp.float32) if batch.values is None else batch.values
        if self.normalize:
            squares = jax.ops.segment_sum(jnp.square(values), batch.rows, samples, indices_are_sorted=True)
            length = jnp.sqrt(jnp.maximum(squares, 1e-12))
            values = values / length.at[batch.rows].get(mode="fill", fill_value=1.0)
        if rng is not None and self.p > 0:
            row = batch.rows + jax.lax.axis_index("data") * samples
            kept = _uniform_at(rng, row, batch.indices) >= self.p
            values = jnp.where(kept, values / (1.0 - self.p), 0.0)
        return values


def _uniform_at(rng: jax.Array, rows: jax.Array, features: jax.Array) -> jax.Array:
    """A number in [0, 1) for each (row, feature): the same whatever the mesh or the entry's place."""

    def draw(row: jax.Array, feature: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(rng, row), feature))

    return jax.vmap(draw)(rows, features)


def activation_function(layer: LayerSpec) -> ActivationFunction:
    """The activation of a layer as a function of single units (DSSTNE spec 5.3).

    SoftMax is the identity here: it ranks alike, and what needs the probabilities divides over all shards.
    """
    functions: dict[Activation, ActivationFunction] = {
        Activation.SIGMOID: jax.nn.sigmoid,
        Activation.TANH: jnp.tanh,
        Activation.RECTIFIED_LINEAR: jax.nn.relu,
        Activation.LINEAR: lambda z: z,
        Activation.SOFT_MAX: lambda z: z,
        Activation.LEAKY_RECTIFIED_LINEAR: lambda z: jnp.maximum(z, layer.relu_slope * z),
        Activation.EXPONENTIAL_LINEAR: lambda z: jnp.where(z > 0, z, _negative_part(layer.elu_alpha, z)),
        Activation.SCALED_EXPONENTIAL_LINEAR: lambda z: (
            layer.selu_lambda * jnp.where(z > 0, z, _negative_part(layer.elu_alpha, z))
        ),
    }
    return functions[layer.activation]


def _negative_part(alpha: float, z: jax.Array) -> jax.Array:
    return alpha * jnp.expm1(jnp.minimum(z, 0.0))


def dropout(layer: LayerSpec, activations: jax.Array, rng: jax.Array) -> jax.Array:
    """Activations [batch, units] with each dropped at chance `layer.dropout` (DSSTNE spec 5.8).

    Dropped Sigmoid units become ½ and the kept ones are not scaled; ELU and SELU keep mean and variance.
    """
    p = layer.dropout
    kept = jax.random.uniform(rng, activations.shape) >= p
    if layer.activation is Activation.SIGMOID:
        return jnp.where(kept, activations, 0.5)
    if layer.activation in (Activation.EXPONENTIAL_LINEAR, Activation.SCALED_EXPONENTIAL_LINEAR):
        scale = layer.selu_lambda if layer.activation is Activation.SCALED_EXPONENTIAL_LINEAR else 1.0
        floor = -scale * layer.elu_alpha
        a = 1.0 / math.sqrt((1.0 - p) + floor**2 * p * (1.0 - p))
        return a * jnp.where(kept, activations, floor) - a * p * floor
    return jnp.where(kept, activations / (1.0 - p), 0.0)


def initial_kernel(init: WeightInit, rng: jax.Array, *, shape: tuple[int, int], fans: tuple[int, int]) -> jax.Array:
    """Initial weights of `shape` by DSSTNE's schemes (spec 5.12); `fans` are units in and out.

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


def _initial_bias(init: WeightInit, units: Size) -> jax.Array:
    return jnp.where(jnp.arange(units.stored) < units.units, jnp.float32(init.bias), 0.0)


def _zero_beyond(kernel: jax.Array, rows: int) -> jax.Array:
    return jnp.where(jnp.arange(kernel.shape[0])[:, None] < rows, kernel, 0.0)
