"""What is minimised beside the losses: stray mean activations of hidden units, and the divergence of a Gaussian layer
from the standard normal. Arrays are [batch, units], a mask [batch] says which samples are real.
"""

import jax
import jax.numpy as jnp
import numpy as np

from trainer.loss_parameters import Divergence
from trainer.network_types import LayerSpec, NetworkSpec, Sparseness


def layer_penalty(spec: NetworkSpec, layer: LayerSpec, output: jax.Array, mask: jax.Array) -> jax.Array:
    """The sparseness penalty of a Hidden layer by its own and the network's numbers."""
    if spec.sparseness.beta <= 0 or not layer.sparse:
        return jnp.zeros((), jnp.float32)
    own, common = layer.sparseness, spec.sparseness
    chosen = Sparseness(own.p if own.p > 0 else common.p, own.beta if own.beta > 0 else common.beta)
    return sparseness_penalty(chosen, output, mask)


def sparseness_penalty(sparseness: Sparseness, output: jax.Array, mask: jax.Array) -> jax.Array:
    """beta · Σ_units KL(p ‖ m), m the mean activation over the real samples (DSSTNE spec 5.6).

    m is clipped to [1e-6, 0.999999] where the formula needs it, and the gradient passes the clip,
    as DSSTNE adds beta (-p/m + (1 - p)/(1 - m)) whatever m was.
    """
    p = sparseness.p
    # [batch, units] -> [units]
    mean = (output * mask[:, None]).sum(axis=0) / jnp.maximum(mask.sum(), 1.0)
    mean = mean + jax.lax.stop_gradient(jnp.clip(mean, 1e-6, 0.999999) - mean)
    divergence = -p * jnp.log(mean) - (1.0 - p) * jnp.log1p(-mean) - _entropy(p)
    return sparseness.beta * divergence.sum()


def divergence_penalty(
    divergence: Divergence,
    mean: jax.Array,
    log_variance: jax.Array,
    mask: jax.Array,
    step: jax.Array | None,
    *,
    features: jax.Array | None = None,
) -> jax.Array:
    """weight · min(1, step / anneal) · KL(N(mean, variance) ‖ N(0, 1)), KL = ½ Σ_units (variance + mean² - 1 - log
    variance), the mean over the real samples (Kingma and Welling 2014; annealed as by Liang et al. 2018); each sample's
    times its stored `features` [batch], where they are given (Shenbin et al. 2020).

    A sample's loss is a sum over its units, too, but that of a SoftMax is divided by its stored features: where a paper
    sums over them, its weight is to be divided by how many a sample has. Weights of samples do not count. `step` is the
    number of updates before; without one the weight is whole.
    """
    # [batch, units] -> [batch]
    terms = jnp.exp(log_variance) + jnp.square(mean) - 1.0 - log_variance
    of_sample = jnp.where(mask > 0, 0.5 * terms.sum(axis=1), 0.0)
    of_sample = of_sample if features is None else of_sample * features
    found = divergence.weight * of_sample.sum() / jnp.maximum(mask.sum(), 1.0)
    if step is None or divergence.anneal == 0:
        return found
    return found * jnp.minimum(step.astype(jnp.float32) / divergence.anneal, 1.0)


def _entropy(p: float) -> float:
    return float(-sum(share * np.log(share) for share in (p, 1.0 - p) if share > 0))
