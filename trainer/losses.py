"""From logits and sparse targets to one loss a sample, with DSSTNE's gradient. A loss is a pair of
functions of single units: what a unit costs when its target is zero, and when it is stored. The zero
case runs over all units, the stored case corrects it at stored entries, so targets are never made dense.

Every function here sees one shard of the units and the part of the batch that belongs to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from trainer.network import Activation, ErrorFunction, MarginalScale
from trainer.sparse import SparseBatch

LARGEST_LOG = -math.log(1e-12)
"""DSSTNE floors the argument of every logarithm in a reported loss at 1e-12."""

ActivationFunction = Callable[[jax.Array], jax.Array]


class Terms(NamedTuple):
    """What units contribute; both arrays have the shape of the logits given."""

    loss: jax.Array
    delta: jax.Array
    """Derivative by the logit: what is passed back."""


class Target(NamedTuple):
    """The target of stored units, [entries]."""

    value: jax.Array
    """1 for an indicator (SoftMax: 1 / stored features of the sample), else the analog value."""
    share: jax.Array
    """1 / stored features of the sample."""


class LossRule(NamedTuple):
    """A loss as two functions of single units. SoftMax rules take log-probabilities for logits."""

    zero: Callable[[jax.Array], Terms]
    stored: Callable[[jax.Array, Target], Terms]
    softmax: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """Which units a call sees: columns `first ..` of the output, of which `width` in all count."""

    first: jax.Array | int
    width: int
    axis: str | None
    """Mesh axis the units are spread over; `None` when a call sees them all."""


def loss_rule(
    loss: ErrorFunction, activation: Activation, *, marginal: MarginalScale, output: ActivationFunction
) -> LossRule:
    """The rule of an error function on an output activation; `output` is the activation as a function."""
    return _RULES[loss, activation is Activation.SOFT_MAX](marginal, output)


def sample_losses(rule: LossRule, logits: jax.Array, targets: SparseBatch, *, shard: Shard) -> jax.Array:
    """Loss of each sample: the sum over its units, [batch], same on every shard.

    `logits` is [batch, units of the shard]; units at or beyond `shard.width` and padding entries
    contribute exactly zero. The gradient is the rule's `delta`.
    """

    @jax.custom_vjp
    def losses(logits: jax.Array, targets: SparseBatch) -> jax.Array:
        return _forward(rule, logits, targets, shard)[0]

    def backward(delta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
        return delta * cotangent[:, None], None

    losses.defvjp(lambda logits, targets: _forward(rule, logits, targets, shard), backward)
    return losses(logits, targets)


def _forward(rule: LossRule, logits: jax.Array, targets: SparseBatch, shard: Shard) -> tuple[jax.Array, jax.Array]:
    batch, units = logits.shape
    column = targets.indices - shard.first
    owned = (column >= 0) & (column < units) & (targets.indices < shard.width)
    column = jnp.where(owned, column, units)
    live = (jnp.arange(units) + shard.first < shard.width)[None, :]
    inputs = _log_softmax(logits, live, shard.axis) if rule.softmax else logits
    zero = rule.zero(inputs)
    at = inputs.at[targets.rows, column].get(mode="fill", fill_value=0.0)
    stored = rule.stored(at, _stored_target(rule, targets, batch))
    correction = jnp.where(owned, stored.loss - rule.zero(at).loss, 0.0)
    total = jnp.where(live, zero.loss, 0.0).sum(axis=1)
    total = total + jax.ops.segment_sum(correction, targets.rows, batch, indices_are_sorted=True)
    delta = jnp.where(live, zero.delta, 0.0)
    # Set, not added: a feature stored twice passes its delta back once, as in DSSTNE.
    delta = delta.at[targets.rows, column].set(stored.delta, mode="drop")
    return _sum_over(total, shard.axis), delta


def _stored_target(rule: LossRule, targets: SparseBatch, batch: int) -> Target:
    ones = jnp.ones(targets.indices.shape, jnp.float32)
    counts = jax.ops.segment_sum(ones, targets.rows, batch, indices_are_sorted=True)
    share = 1.0 / jnp.maximum(counts, 1.0).at[targets.rows].get(mode="fill", fill_value=1.0)
    if targets.values is not None:
        return Target(targets.values, share)
    return Target(share if rule.softmax else ones, share)


def _log_softmax(logits: jax.Array, live: jax.Array, axis: str | None) -> jax.Array:
    # [batch, units of the shard] -> log-probabilities over the units of all shards
    masked = jnp.where(live, logits, -jnp.inf)
    largest = masked.max(axis=1, keepdims=True)
    if axis is not None:
        largest = jax.lax.pmax(largest, axis)
    total = _sum_over(jnp.exp(masked - largest).sum(axis=1, keepdims=True), axis)
    return logits - largest - jnp.log(total)


def _sum_over(values: jax.Array, axis: str | None) -> jax.Array:
    return values if axis is None else jax.lax.psum(values, axis)


def _l1(_: MarginalScale, output: ActivationFunction) -> LossRule:
    """|a - t|; delta sgn(a - t) f'(z), in which an analog target counts as 1 (DSSTNE spec 5.4)."""

    def zero(logits: jax.Array) -> Terms:
        a, slope = _with_slope(output, logits)
        return Terms(jnp.abs(a), jnp.sign(a) * slope)

    def stored(logits: jax.Array, target: Target) -> Terms:
        a, slope = _with_slope(output, logits)
        return Terms(jnp.abs(a - target.value), jnp.sign(a - 1.0) * slope)

    return LossRule(zero, stored)


def _l2(_: MarginalScale, output: ActivationFunction) -> LossRule:
    """½ (a - t)²; delta (a - t) f'(z) (DSSTNE spec 5.4)."""

    def zero(logits: jax.Array) -> Terms:
        a, slope = _with_slope(output, logits)
        return Terms(0.5 * jnp.square(a), a * slope)

    def stored(logits: jax.Array, target: Target) -> Terms:
        a, slope = _with_slope(output, logits)
        error = a - target.value
        return Terms(0.5 * jnp.square(error), error * slope)

    return LossRule(zero, stored)


def _cross_entropy(_: MarginalScale, __: ActivationFunction) -> LossRule:
    """-(t log a + (1 - t) log(1 - a)) with a = σ(z), t 0 or 1; delta a - t (DSSTNE spec 5.4).

    An analog target counts as 1. Both logarithms come from the logit: log a = -softplus(-z).
    """

    def zero(logits: jax.Array) -> Terms:
        return Terms(_minus_log(logits), jax.nn.sigmoid(logits))

    def stored(logits: jax.Array, _: Target) -> Terms:
        return Terms(_minus_log(-logits), jax.nn.sigmoid(logits) - 1.0)

    return LossRule(zero, stored)


def _marginal_cross_entropy(marginal: MarginalScale, _: ActivationFunction) -> LossRule:
    """Cross-entropy that is satisfied within a margin (DSSTNE spec 5.4), a = σ(z).

    Stored: -oneScale log a while a < oneTarget. Others: -zeroScale log(1 - a) while a > zeroTarget.
    Both comparisons are strict; outside them loss and delta are zero.
    """

    def zero(logits: jax.Array) -> Terms:
        a = jax.nn.sigmoid(logits)
        active = a > marginal.zero_target
        return _where(active, Terms(_minus_log(logits), a), scale=marginal.zero_scale)

    def stored(logits: jax.Array, _: Target) -> Terms:
        a = jax.nn.sigmoid(logits)
        active = a < marginal.one_target
        return _where(active, Terms(_minus_log(-logits), a - 1.0), scale=marginal.one_scale)

    return LossRule(zero, stored)


def _multinomial(_: MarginalScale, __: ActivationFunction) -> LossRule:
    """-t log a, a the SoftMax over all units, t = 1 / n for n stored indicators (DSSTNE spec 5.4).

    Delta a - 1/n at stored units, a elsewhere.
    """

    def zero(log_a: jax.Array) -> Terms:
        return Terms(jnp.zeros_like(log_a), jnp.exp(log_a))

    def stored(log_a: jax.Array, target: Target) -> Terms:
        return Terms(target.value * _floored(-log_a), jnp.exp(log_a) - target.share)

    return LossRule(zero, stored, softmax=True)


def _marginal_multinomial(marginal: MarginalScale, _: ActivationFunction) -> LossRule:
    """Multinomial loss within a margin (DSSTNE spec 5.4): -oneScale t log a while a < oneTarget.

    Delta a - oneScale/n while a < oneTarget at stored units, zeroScale a while a > zeroTarget elsewhere.
    """

    def zero(log_a: jax.Array) -> Terms:
        a = jnp.exp(log_a)
        delta = jnp.where(a > marginal.zero_target, marginal.zero_scale * a, 0.0)
        return Terms(jnp.zeros_like(log_a), delta)

    def stored(log_a: jax.Array, target: Target) -> Terms:
        a = jnp.exp(log_a)
        loss = marginal.one_scale * target.value * _floored(-log_a)
        terms = Terms(loss, a - marginal.one_scale * target.share)
        return _where(a < marginal.one_target, terms, scale=1.0)

    return LossRule(zero, stored, softmax=True)


def _minus_log(logits: jax.Array) -> jax.Array:
    """-log(1 - σ(z)) = softplus(z); of -z it is -log σ(z)."""
    return _floored(jnp.maximum(logits, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def _floored(minus_log: jax.Array) -> jax.Array:
    return jnp.minimum(minus_log, LARGEST_LOG)


def _where(active: jax.Array, terms: Terms, *, scale: float) -> Terms:
    return Terms(
        jnp.where(active, scale * terms.loss, 0.0),
        jnp.where(active, scale * terms.delta, 0.0),
    )


def _with_slope(output: ActivationFunction, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(output, (logits,), (jnp.ones_like(logits),))


_RULES: dict[tuple[ErrorFunction, bool], Callable[[MarginalScale, ActivationFunction], LossRule]] = {
    (ErrorFunction.L1, False): _l1,
    (ErrorFunction.L2, False): _l2,
    (ErrorFunction.CROSS_ENTROPY, False): _cross_entropy,
    (ErrorFunction.CROSS_ENTROPY, True): _multinomial,
    (ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, False): _marginal_cross_entropy,
    (ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, True): _marginal_multinomial,
}
