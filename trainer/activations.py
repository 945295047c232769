"""From a layer's sums to its output, and what chance makes of it in training (DSSTNE spec 5.3, 5.8). Layers of more
columns than units keep the columns beyond at zero.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from trainer.network_types import Activation, LayerKind, LayerSpec

_SMALLEST_SUM = 1e-12


def activate(layer: LayerSpec, sums: jax.Array) -> jax.Array:
    """The output of `layer` from its sums, both [batch, columns], of which the layer's width count.

    SoftMax, ReluMax and LinearMax share one out among the units: e^z, max(0, z) or z, divided by the sum of their
    absolute values over the units of all devices; of SoftMax z is divided by the layer's temperature.
    """
    width = layer.width
    live = None if sums.shape[1] == width else (jnp.arange(sums.shape[1]) < width)[None, :]
    if layer.activation is Activation.SOFT_MAX:
        sums = sums / layer.contrast.temperature
        return jax.nn.softmax(sums if live is None else jnp.where(live, sums, -jnp.inf), axis=1)
    output = _function(layer)(sums)
    if live is not None:
        output = jnp.where(live, output, 0.0)
    if layer.activation in (Activation.RELU_MAX, Activation.LINEAR_MAX):
        total = jnp.abs(output).sum(axis=1, keepdims=True)
        some = total > _SMALLEST_SUM
        return jnp.where(some, output / jnp.where(some, total, 1.0), 0.0)
    return output


def _function(layer: LayerSpec) -> Callable[[jax.Array], jax.Array]:
    """The activation of single units."""
    functions: dict[Activation, Callable[[jax.Array], jax.Array]] = {
        Activation.SIGMOID: jax.nn.sigmoid,
        Activation.TANH: jnp.tanh,
        Activation.RECTIFIED_LINEAR: jax.nn.relu,
        Activation.LINEAR: lambda z: z,
        Activation.SOFT_PLUS: jax.nn.softplus,
        Activation.SOFT_SIGN: jax.nn.soft_sign,
        Activation.RELU_MAX: jax.nn.relu,
        Activation.LINEAR_MAX: lambda z: z,
        Activation.GELU: lambda z: jax.nn.gelu(z, approximate=False),
        Activation.SILU: jax.nn.silu,
        Activation.LEAKY_RECTIFIED_LINEAR: lambda z: jnp.maximum(z, layer.relu_slope * z),
        Activation.EXPONENTIAL_LINEAR: lambda z: jnp.where(z > 0, z, _negative_part(layer.elu_alpha, z)),
        Activation.SCALED_EXPONENTIAL_LINEAR: lambda z: (
            layer.selu_lambda * jnp.where(z > 0, z, _negative_part(layer.elu_alpha, z))
        ),
    }
    return functions[layer.activation]


def _negative_part(alpha: float, z: jax.Array) -> jax.Array:
    # At 0 the slope is alpha, as DSSTNE has it from the output; a minimum would share the tie.
    return alpha * jnp.expm1(jnp.where(z > 0, 0.0, z))


def dropout(layer: LayerSpec, output: jax.Array, kept: jax.Array) -> jax.Array:
    """`output` where `kept`, both [batch, units]. Units of Sigmoid and Input layers are not scaled; ELU and SELU
    keep mean and variance; others are divided by 1 - `layer.dropout`.
    """
    p = layer.dropout
    if layer.kind is LayerKind.INPUT or layer.activation is Activation.SIGMOID:
        return jnp.where(kept, output, 0.5)
    if _is_exponential(layer):
        scale = layer.selu_lambda if layer.activation is Activation.SCALED_EXPONENTIAL_LINEAR else 1.0
        floor = -scale * layer.elu_alpha
        a = 1.0 / math.sqrt((1.0 - p) + floor**2 * p * (1.0 - p))
        return a * jnp.where(kept, output, floor) - a * p * floor
    return jnp.where(kept, output / (1.0 - p), 0.0)


def drawn(mean: jax.Array, log_variance: jax.Array, rng: jax.Array) -> jax.Array:
    """Draws from normal distributions, [batch, units] each, through which gradients pass (Kingma and Welling 2014)."""
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(rng, mean.shape)


def _is_exponential(layer: LayerSpec) -> bool:
    return layer.activation in (Activation.EXPONENTIAL_LINEAR, Activation.SCALED_EXPONENTIAL_LINEAR)
