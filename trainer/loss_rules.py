"""What a single unit costs, for every error function: when it is not stored, when it is stored, and when its target is
dense, with DSSTNE's deltas.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from trainer.network_types import ErrorFunction, MarginalScale

LARGEST_LOG = -math.log(1e-12)
"""DSSTNE floors the argument of every logarithm in a reported loss at 1e-12."""


class Terms(NamedTuple):
    """What units contribute; both arrays have the shape of the units given."""

    loss: jax.Array
    delta: jax.Array
    """Derivative by what the rule is given, or by the logit where that is a log-probability."""


class Target(NamedTuple):
    """What units should have been, of a shape that broadcasts to theirs."""

    value: jax.Array
    """Dense: as given. Stored: 1 for an indicator (SoftMax: `share`), else the analog value. Else 0."""
    share: jax.Array
    """1 / stored features of the sample."""
    mass: jax.Array
    """SoftMax: sum of the sample's values."""
    absent: jax.Array
    """1 / features that the sample has not stored, or the negatives stand for."""


_Part = Callable[[jax.Array, Target], Terms]


class Rule(NamedTuple):
    """A loss as functions of single units. SoftMax rules are given log-probabilities."""

    zero: _Part
    stored: _Part
    dense: _Part
    softmax: bool = False


def _l1(_: MarginalScale) -> Rule:
    """|a - t|; delta by a is sgn(a - t) (spec 5.4)."""

    def terms(a: jax.Array, target: Target) -> Terms:
        error = a - target.value
        return Terms(jnp.abs(error), jnp.sign(error))

    return Rule(terms, terms, terms)


def _l2(_: MarginalScale) -> Rule:
    """½ (a - t)²; delta by a is a - t (spec 5.4)."""

    def terms(a: jax.Array, target: Target) -> Terms:
        error = a - target.value
        return Terms(0.5 * jnp.square(error), error)

    return Rule(terms, terms, terms)


def _l2_hinge(_: MarginalScale) -> Rule:
    """½ d², d = a - |t|, of which counts what is below 0 if t > 0, else what is above; delta by a is d (spec 5.4)."""

    def terms(a: jax.Array, target: Target) -> Terms:
        error = a - jnp.abs(target.value)
        error = jnp.where(target.value > 0.0, jnp.minimum(error, 0.0), jnp.maximum(error, 0.0))
        return Terms(0.5 * jnp.square(error), error)

    return Rule(terms, terms, terms)


def _hinge(_: MarginalScale) -> Rule:
    """max(0, 1 - t a); delta by a is -t where t a < 1 (spec 5.4)."""

    def terms(a: jax.Array, target: Target) -> Terms:
        margin = 1.0 - target.value * a
        return Terms(jnp.maximum(margin, 0.0), jnp.where(margin > 0.0, -target.value, 0.0))

    return Rule(terms, terms, terms)


def _cross_entropy(_: MarginalScale) -> Rule:
    """-(t log a + (1 - t) log(1 - a)) with a = σ(z); delta a - t (spec 5.4).

    A stored analog target counts as 1. Both logarithms come from the logit: log a = -softplus(-z).
    """

    def dense(logits: jax.Array, target: Target) -> Terms:
        loss = target.value * _minus_log(-logits) + (1.0 - target.value) * _minus_log(logits)
        return Terms(loss, jax.nn.sigmoid(logits) - target.value)

    return Rule(_absent, _present, dense)


def _marginal_cross_entropy(marginal: MarginalScale) -> Rule:
    """Cross-entropy that is satisfied within a margin (spec 5.4), a = σ(z).

    Target 1: -oneScale log a while a < oneTarget. Target 0: -zeroScale log(1 - a) while a > zeroTarget.
    Both comparisons are strict; outside them, and at other targets, loss and delta are zero. A stored
    analog target counts as 1.
    """

    def zero(logits: jax.Array, target: Target) -> Terms:
        active = jax.nn.sigmoid(logits) > marginal.zero_target
        return scaled(_absent(logits, target), jnp.where(active, marginal.zero_scale, 0.0))

    def stored(logits: jax.Array, target: Target) -> Terms:
        active = jax.nn.sigmoid(logits) < marginal.one_target
        return scaled(_present(logits, target), jnp.where(active, marginal.one_scale, 0.0))

    def dense(logits: jax.Array, target: Target) -> Terms:
        one = _where(target.value == 1.0, stored(logits, target), nothing(logits, target))
        return _where(target.value == 0.0, zero(logits, target), one)

    return Rule(zero, stored, dense)


def _data_scaled_marginal_cross_entropy(marginal: MarginalScale) -> Rule:
    """The marginal cross-entropy, stored units times their value (spec 5.4)."""
    rule = _marginal_cross_entropy(marginal)

    def stored(logits: jax.Array, target: Target) -> Terms:
        return scaled(rule.stored(logits, target), target.value)

    return rule._replace(stored=stored)


def _multinomial(_: MarginalScale) -> Rule:
    """-t log a, a the SoftMax over all units, t = 1 / n for n stored indicators; delta a Σt - t (spec 5.4)."""

    def terms(log_a: jax.Array, target: Target) -> Terms:
        return Terms(target.value * _floored(-log_a), jnp.exp(log_a) * target.mass - target.value)

    return Rule(terms, terms, terms, softmax=True)


def _marginal_multinomial(marginal: MarginalScale) -> Rule:
    """Multinomial loss within a margin (spec 5.4): -oneScale t log a while a < oneTarget.

    Delta while a < oneTarget: stored a - oneScale/n, dense oneScale (a - t); at units without a target
    zeroScale a while a > zeroTarget. It is no gradient of the loss, as in DSSTNE.
    """

    def zero(log_a: jax.Array, _: Target) -> Terms:
        a = jnp.exp(log_a)
        return Terms(jnp.zeros_like(a), jnp.where(a > marginal.zero_target, marginal.zero_scale * a, 0.0))

    def stored(log_a: jax.Array, target: Target) -> Terms:
        return within(log_a, target, jnp.exp(log_a) - marginal.one_scale * target.share)

    def dense(log_a: jax.Array, target: Target) -> Terms:
        one = within(log_a, target, marginal.one_scale * (jnp.exp(log_a) - target.value))
        none = _where(target.value == 0.0, zero(log_a, target), nothing(log_a, target))
        return _where(target.value > 0.0, one, none)

    def within(log_a: jax.Array, target: Target, delta: jax.Array) -> Terms:
        terms = Terms(marginal.one_scale * target.value * _floored(-log_a), delta)
        return _where(jnp.exp(log_a) < marginal.one_target, terms, nothing(log_a, target))

    return Rule(zero, stored, dense, softmax=True)


def cosine_contrastive(margin: float) -> Rule:
    """The mean of 1 - a over stored units, each times its value, and that of max(0, a - margin) over the others (Mao et
    al. 2021, where a is a cosine).
    """

    def zero(a: jax.Array, target: Target) -> Terms:
        beyond = a - margin
        return scaled(Terms(jnp.maximum(beyond, 0.0), jnp.where(beyond > 0.0, 1.0, 0.0)), target.absent)

    def stored(a: jax.Array, target: Target) -> Terms:
        return scaled(Terms(1.0 - a, -jnp.ones_like(a)), target.value * target.share)

    return Rule(zero, stored, stored)


def _absent(logits: jax.Array, _: Target) -> Terms:
    """-log(1 - a) and its delta a, a = σ(z)."""
    return Terms(_minus_log(logits), jax.nn.sigmoid(logits))


def _present(logits: jax.Array, _: Target) -> Terms:
    """-log a and its delta a - 1, a = σ(z)."""
    return Terms(_minus_log(-logits), -jax.nn.sigmoid(-logits))


def nothing(values: jax.Array, _: Target) -> Terms:
    """No loss, no delta."""
    return Terms(jnp.zeros_like(values), jnp.zeros_like(values))


def _minus_log(logits: jax.Array) -> jax.Array:
    """-log(1 - σ(z)) = softplus(z); of -z it is -log σ(z)."""
    return _floored(jnp.maximum(logits, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def _floored(minus_log: jax.Array) -> jax.Array:
    return jnp.minimum(minus_log, LARGEST_LOG)


def scaled(terms: Terms, factor: jax.Array | float) -> Terms:
    """Loss and delta, multiplied."""
    return Terms(factor * terms.loss, factor * terms.delta)


def _where(condition: jax.Array, terms: Terms, others: Terms) -> Terms:
    return Terms(jnp.where(condition, terms.loss, others.loss), jnp.where(condition, terms.delta, others.delta))


RULES: Mapping[tuple[ErrorFunction, bool], Callable[[MarginalScale], Rule]] = {
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
"""By error function, and whether it is of log-probabilities."""
