"""From an output layer and its targets to one loss a sample, with DSSTNE's deltas. A loss is functions of
single units: what a unit costs when it is not stored, when it is stored, and when its target is dense. The
first runs over all units, the second corrects it at stored entries: sparse targets are never made dense.

Every function here sees one shard of the units and the part of the batch that belongs to it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from trainer.dense import DenseBatch
from trainer.network_names import why_not_output, why_not_target
from trainer.network_types import Activation, DeltaBoost, ErrorFunction, MarginalScale
from trainer.sparse import SparseBatch

LARGEST_LOG = -math.log(1e-12)
"""DSSTNE floors the argument of every logarithm in a reported loss at 1e-12."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """An error function, the activation of its layer, and what both are tuned with."""

    loss: ErrorFunction
    activation: Activation
    marginal: MarginalScale
    boost: DeltaBoost


@dataclass(frozen=True, slots=True)
class Shard:
    """Which units a call sees: columns `first ..` of the output, of which `width` in all count."""

    first: jax.Array | int
    width: int
    axis: str | None
    """Mesh axis the units are spread over; `None` when a call sees them all."""


def takes_logits(loss: ErrorFunction, activation: Activation) -> bool:
    """Whether the loss is computed from logits, activation included, instead of from the layer's output."""
    return loss in _CROSS_ENTROPIES and activation in _PROBABILITIES


def sample_losses(
    spec: LossSpec,
    values: jax.Array,
    targets: SparseBatch | DenseBatch,
    *,
    shard: Shard,
    ignore_zero: bool = False,
) -> jax.Array:
    """Loss of each sample: the sum over its units times its weight, [batch], same on every shard.

    `values` is [batch, units of the shard]: logits where `takes_logits`, else the layer's output.
    Dense targets are [batch, units of the shard] too; `ignore_zero` leaves units that sparse targets
    do not store without loss and delta. Units at or beyond `shard.width` and padding entries contribute
    exactly zero; padding samples are for the caller to mask. The gradient is DSSTNE's delta (spec 5.4).
    Raises `ValueError` for a loss that does not fit its activation or its targets.
    """
    _refuse_misfits(spec, targets)

    @jax.custom_vjp
    def losses(values: jax.Array, targets: SparseBatch | DenseBatch) -> jax.Array:
        return forward(values, targets)[0]

    def forward(values: jax.Array, targets: SparseBatch | DenseBatch) -> tuple[jax.Array, jax.Array]:
        if isinstance(targets, DenseBatch):
            terms = _dense_terms(spec, values, targets, shard=shard)
        else:
            terms = _sparse_terms(spec, values, targets, shard=shard, ignore_zero=ignore_zero)
        total = _sum_over(terms.loss, shard.axis)
        if targets.weights is None:
            return total, terms.delta
        return total * targets.weights, terms.delta * targets.weights[:, None]

    def backward(delta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
        return delta * cotangent[:, None], None

    losses.defvjp(forward, backward)
    return losses(values, targets)


class _Terms(NamedTuple):
    """What units contribute; both arrays have the shape of the units given."""

    loss: jax.Array
    delta: jax.Array
    """Derivative by what the rule is given, or by the logit where that is a log-probability."""


class _Target(NamedTuple):
    """What units should have been, of a shape that broadcasts to theirs."""

    value: jax.Array
    """Dense: as given. Stored: 1 for an indicator (SoftMax: `share`), else the analog value. Else 0."""
    share: jax.Array
    """1 / stored features of the sample."""
    mass: jax.Array
    """SoftMax: sum of the sample's values."""


_Part = Callable[[jax.Array, _Target], _Terms]


class _Rule(NamedTuple):
    """A loss as functions of single units. SoftMax rules are given log-probabilities."""

    zero: _Part
    stored: _Part
    dense: _Part
    softmax: bool = False


def _refuse_misfits(spec: LossSpec, targets: SparseBatch | DenseBatch) -> None:
    sparse = isinstance(targets, SparseBatch)
    problem = why_not_output(spec.loss, spec.activation) or why_not_target(spec.loss, sparse=sparse)
    if problem is not None:
        raise ValueError(problem)


def _dense_terms(spec: LossSpec, values: jax.Array, targets: DenseBatch, *, shard: Shard) -> _Terms:
    # [batch, units of the shard] -> loss [batch], of this shard's units, and delta [batch, units of the shard]
    rule = _rule_of(spec)
    live = _live(values, shard)
    target = jnp.where(live, targets.values, 0.0)
    mass = jnp.ones((1, 1), jnp.float32)
    if rule.softmax:
        values = _log_softmax(values, live, shard.axis)
        mass = _sum_over(target.sum(axis=1, keepdims=True), shard.axis)
    terms = rule.dense(values, _Target(target, target, mass))
    return _Terms(jnp.where(live, terms.loss, 0.0).sum(axis=1), jnp.where(live, terms.delta, 0.0))


def _sparse_terms(
    spec: LossSpec, values: jax.Array, targets: SparseBatch, *, shard: Shard, ignore_zero: bool
) -> _Terms:
    # [batch, units of the shard] -> loss [batch], of this shard's units, and delta [batch, units of the shard]
    rule, boost = _rule_of(spec), _boost_of(spec, analog=targets.values is not None)
    zero = _nothing if ignore_zero else rule.zero
    batch, units = values.shape
    column = targets.indices - shard.first
    owned = (column >= 0) & (column < units) & (targets.indices < shard.width)
    column = jnp.where(owned, column, units)
    live = _live(values, shard)
    if rule.softmax:
        values = _log_softmax(values, live, shard.axis)
    target, mass = _stored_target(targets, batch, shard=shard, softmax=rule.softmax)
    none = jnp.zeros((1, 1), jnp.float32)
    everywhere = zero(values, _Target(none, none, mass[:, None]))
    at = values.at[targets.rows, column].get(mode="fill", fill_value=0.0)
    stored = rule.stored(at, target)
    counted = zero(at, target._replace(value=jnp.zeros_like(at)))
    correction = jnp.where(owned, stored.loss - counted.loss, 0.0)
    total = jnp.where(live, everywhere.loss, 0.0).sum(axis=1)
    total = total + jax.ops.segment_sum(correction, targets.rows, batch, indices_are_sorted=True)
    delta = jnp.where(live, boost.zero * everywhere.delta, 0.0)
    # Set, not added: a feature stored twice passes its delta back once, as in DSSTNE.
    return _Terms(total, delta.at[targets.rows, column].set(boost.one * stored.delta, mode="drop"))


def _stored_target(targets: SparseBatch, batch: int, *, shard: Shard, softmax: bool) -> tuple[_Target, jax.Array]:
    # -> targets of the entries [capacity], of whichever shard, and the mass of each sample [batch]
    ones = (targets.indices < shard.width).astype(jnp.float32)
    counts = jax.ops.segment_sum(ones, targets.rows, batch, indices_are_sorted=True)
    share = 1.0 / jnp.maximum(counts, 1.0).at[targets.rows].get(mode="fill", fill_value=1.0)
    value = targets.values
    if value is None:
        value = share if softmax else ones
    mass = jax.ops.segment_sum(value * ones, targets.rows, batch, indices_are_sorted=True)
    return _Target(value, share, mass.at[targets.rows].get(mode="fill", fill_value=0.0)), mass


def _boost_of(spec: LossSpec, *, analog: bool) -> DeltaBoost:
    """Where DSSTNE boosts the deltas of sparse targets (spec 5.4)."""
    squares = spec.loss in (ErrorFunction.L2, ErrorFunction.L2_HINGE)
    on_sigmoid = spec.activation is Activation.SIGMOID and (squares or spec.loss is ErrorFunction.CROSS_ENTROPY)
    if on_sigmoid or spec.loss is ErrorFunction.L1:
        return spec.boost
    return DeltaBoost(one=spec.boost.one) if squares and analog else DeltaBoost()


def _live(values: jax.Array, shard: Shard) -> jax.Array:
    # [batch, units of the shard] -> [1, units of the shard]
    return (jnp.arange(values.shape[1]) + shard.first < shard.width)[None, :]


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


def _rule_of(spec: LossSpec) -> _Rule:
    softmax = spec.activation is Activation.SOFT_MAX and spec.loss in _CROSS_ENTROPIES
    return _RULES[spec.loss, softmax](spec.marginal)


def _l1(_: MarginalScale) -> _Rule:
    """|a - t|; delta by a is sgn(a - t) (spec 5.4)."""

    def terms(a: jax.Array, target: _Target) -> _Terms:
        error = a - target.value
        return _Terms(jnp.abs(error), jnp.sign(error))

    return _Rule(terms, terms, terms)


def _l2(_: MarginalScale) -> _Rule:
    """½ (a - t)²; delta by a is a - t (spec 5.4)."""

    def terms(a: jax.Array, target: _Target) -> _Terms:
        error = a - target.value
        return _Terms(0.5 * jnp.square(error), error)

    return _Rule(terms, terms, terms)


def _l2_hinge(_: MarginalScale) -> _Rule:
    """½ d², d = a - |t|, of which counts what is below 0 if t > 0, else what is above; delta by a is d (spec 5.4)."""

    def terms(a: jax.Array, target: _Target) -> _Terms:
        error = a - jnp.abs(target.value)
        error = jnp.where(target.value > 0.0, jnp.minimum(error, 0.0), jnp.maximum(error, 0.0))
        return _Terms(0.5 * jnp.square(error), error)

    return _Rule(terms, terms, terms)


def _hinge(_: MarginalScale) -> _Rule:
    """max(0, 1 - t a); delta by a is -t where t a < 1 (spec 5.4)."""

    def terms(a: jax.Array, target: _Target) -> _Terms:
        margin = 1.0 - target.value * a
        return _Terms(jnp.maximum(margin, 0.0), jnp.where(margin > 0.0, -target.value, 0.0))

    return _Rule(terms, terms, terms)


def _cross_entropy(_: MarginalScale) -> _Rule:
    """-(t log a + (1 - t) log(1 - a)) with a = σ(z); delta a - t (spec 5.4).

    A stored analog target counts as 1. Both logarithms come from the logit: log a = -softplus(-z).
    """

    def dense(logits: jax.Array, target: _Target) -> _Terms:
        loss = target.value * _minus_log(-logits) + (1.0 - target.value) * _minus_log(logits)
        return _Terms(loss, jax.nn.sigmoid(logits) - target.value)

    return _Rule(_absent, _present, dense)


def _marginal_cross_entropy(marginal: MarginalScale) -> _Rule:
    """Cross-entropy that is satisfied within a margin (spec 5.4), a = σ(z).

    Target 1: -oneScale log a while a < oneTarget. Target 0: -zeroScale log(1 - a) while a > zeroTarget.
    Both comparisons are strict; outside them, and at other targets, loss and delta are zero. A stored
    analog target counts as 1.
    """

    def zero(logits: jax.Array, target: _Target) -> _Terms:
        active = jax.nn.sigmoid(logits) > marginal.zero_target
        return _scaled(_absent(logits, target), jnp.where(active, marginal.zero_scale, 0.0))

    def stored(logits: jax.Array, target: _Target) -> _Terms:
        active = jax.nn.sigmoid(logits) < marginal.one_target
        return _scaled(_present(logits, target), jnp.where(active, marginal.one_scale, 0.0))

    def dense(logits: jax.Array, target: _Target) -> _Terms:
        one = _where(target.value == 1.0, stored(logits, target), _nothing(logits, target))
        return _where(target.value == 0.0, zero(logits, target), one)

    return _Rule(zero, stored, dense)


def _data_scaled_marginal_cross_entropy(marginal: MarginalScale) -> _Rule:
    """The marginal cross-entropy, stored units times their value (spec 5.4)."""
    rule = _marginal_cross_entropy(marginal)

    def stored(logits: jax.Array, target: _Target) -> _Terms:
        return _scaled(rule.stored(logits, target), target.value)

    return rule._replace(stored=stored)


def _multinomial(_: MarginalScale) -> _Rule:
    """-t log a, a the SoftMax over all units, t = 1 / n for n stored indicators; delta a Σt - t (spec 5.4)."""

    def terms(log_a: jax.Array, target: _Target) -> _Terms:
        return _Terms(target.value * _floored(-log_a), jnp.exp(log_a) * target.mass - target.value)

    return _Rule(terms, terms, terms, softmax=True)


def _marginal_multinomial(marginal: MarginalScale) -> _Rule:
    """Multinomial loss within a margin (spec 5.4): -oneScale t log a while a < oneTarget.

    Delta while a < oneTarget: stored a - oneScale/n, dense oneScale (a - t); at units without a target
    zeroScale a while a > zeroTarget. It is no gradient of the loss, as in DSSTNE.
    """

    def zero(log_a: jax.Array, _: _Target) -> _Terms:
        a = jnp.exp(log_a)
        return _Terms(jnp.zeros_like(a), jnp.where(a > marginal.zero_target, marginal.zero_scale * a, 0.0))

    def stored(log_a: jax.Array, target: _Target) -> _Terms:
        return within(log_a, target, jnp.exp(log_a) - marginal.one_scale * target.share)

    def dense(log_a: jax.Array, target: _Target) -> _Terms:
        one = within(log_a, target, marginal.one_scale * (jnp.exp(log_a) - target.value))
        none = _where(target.value == 0.0, zero(log_a, target), _nothing(log_a, target))
        return _where(target.value > 0.0, one, none)

    def within(log_a: jax.Array, target: _Target, delta: jax.Array) -> _Terms:
        terms = _Terms(marginal.one_scale * target.value * _floored(-log_a), delta)
        return _where(jnp.exp(log_a) < marginal.one_target, terms, _nothing(log_a, target))

    return _Rule(zero, stored, dense, softmax=True)


def _absent(logits: jax.Array, _: _Target) -> _Terms:
    """-log(1 - a) and its delta a, a = σ(z)."""
    return _Terms(_minus_log(logits), jax.nn.sigmoid(logits))


def _present(logits: jax.Array, _: _Target) -> _Terms:
    """-log a and its delta a - 1, a = σ(z)."""
    return _Terms(_minus_log(-logits), -jax.nn.sigmoid(-logits))


def _nothing(values: jax.Array, _: _Target) -> _Terms:
    return _Terms(jnp.zeros_like(values), jnp.zeros_like(values))


def _minus_log(logits: jax.Array) -> jax.Array:
    """-log(1 - σ(z)) = softplus(z); of -z it is -log σ(z)."""
    return _floored(jnp.maximum(logits, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def _floored(minus_log: jax.Array) -> jax.Array:
    return jnp.minimum(minus_log, LARGEST_LOG)


def _scaled(terms: _Terms, factor: jax.Array) -> _Terms:
    return _Terms(factor * terms.loss, factor * terms.delta)


def _where(condition: jax.Array, terms: _Terms, others: _Terms) -> _Terms:
    return _Terms(jnp.where(condition, terms.loss, others.loss), jnp.where(condition, terms.delta, others.delta))


_CROSS_ENTROPIES = frozenset(
    {
        ErrorFunction.CROSS_ENTROPY,
        ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
        ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
    }
)
_PROBABILITIES = frozenset({Activation.SIGMOID, Activation.SOFT_MAX})
_RULES: dict[tuple[ErrorFunction, bool], Callable[[MarginalScale], _Rule]] = {
    (ErrorFunction.L1, False): _l1,
    (ErrorFunction.L2, False): _l2,
    (ErrorFunction.L2_HINGE, False): _l2_hinge,
    (ErrorFunction.HINGE, False): _hinge,
    (ErrorFunction.CROSS_ENTROPY, False): _cross_entropy,
    (ErrorFunction.CROSS_ENTROPY, True): _multinomial,
    (ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, False): _marginal_cross_entropy,
    (ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY, True): _marginal_multinomial,
    (ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY, False): _data_scaled_marginal_cross_entropy,
}
