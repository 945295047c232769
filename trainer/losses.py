"""From an output layer and its targets to one loss a sample, with DSSTNE's deltas. A loss is functions of
single units: what a unit costs when it is not stored, when it is stored, and when its target is dense. The
first runs over all units, the second corrects it at stored entries: sparse targets are never made dense.

Every function here sees one shard of the units and the part of the batch that belongs to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from trainer.deal import IN_ORDER, Deal
from trainer.dense import DenseBatch
from trainer.loss_parameters import PLAIN, Contrast
from trainer.loss_rules import RULES, Rule, Target, Terms, cosine_contrastive, nothing, scaled
from trainer.network_names import takes_logits, why_not_output, why_not_target
from trainer.network_types import (
    Activation,
    DeltaBoost,
    ErrorFunction,
    LayerSpec,
    LayerType,
    MarginalScale,
    NetworkSpec,
)
from trainer.sharding import over_parts
from trainer.sparse import SampledBatch, SparseBatch

_FEWEST = 1e-6
"""Units that negatives stand for, where all of them are targets of the sample."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """An error function, the activation of its layer, and what both are tuned with."""

    loss: ErrorFunction
    activation: Activation
    marginal: MarginalScale
    boost: DeltaBoost
    negative_weight: float = 1.0
    """Factor of loss and delta of units that sparse targets do not store."""
    contrast: Contrast = PLAIN


@dataclass(frozen=True, slots=True)
class Shard:
    """Which units a call sees: columns `first ..` of the output, of which `width` in all count."""

    first: jax.Array | int
    width: int
    axis: str | None
    """Mesh axis the units are spread over; `None` when a call sees them all."""
    deal: Deal = IN_ORDER
    """How units are stored; here in order. Columns are places then, those of sparse targets too."""

    def holds(self, place: jax.Array) -> jax.Array:
        """Whether a unit is stored there."""
        return place < self.width if self.deal.parts == 1 else self.deal.holds(place)

    def column(self, place: jax.Array, columns: int) -> jax.Array:
        """Which of `columns` a place is; `columns` where it is none of them or holds no unit."""
        column = place - self.first
        return jnp.where((column >= 0) & (column < columns) & self.holds(place), column, columns)

    def kept(self, values: jax.Array, other: float = 0.0) -> jax.Array:
        """`values` [batch, columns] where a unit is stored, else `other`."""
        if self.deal.parts > 1 and self.deal.stored == self.deal.units:
            return values
        return jnp.where(self.holds(jnp.arange(values.shape[1]) + self.first)[None, :], values, other)


def loss_spec(spec: NetworkSpec, layer: LayerSpec) -> LossSpec:
    """What an Output layer is trained for; a Pooling one counts as Linear."""
    activation = Activation.LINEAR if layer.type is LayerType.POOLING else layer.activation
    loss, weight = spec.loss_of(layer), layer.negative_weight
    return LossSpec(loss, activation, spec.marginal, spec.delta_boost, weight, layer.contrast)


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
        log_total = jnp.zeros((values.shape[0], 1))
        if is_multinomial(spec):
            log_total = log_total_of(values / spec.contrast.temperature, shard=shard)
        known = known_of(spec, targets, log_total, shard=shard)
        terms = unit_losses(spec, values, targets, known, shard=shard, ignore_zero=ignore_zero)
        total = _sum_over(terms.loss, shard.axis)
        if targets.weights is None:
            return total, terms.delta
        return total * targets.weights, terms.delta * targets.weights[:, None]

    def backward(delta: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
        return delta * cotangent[:, None], None

    losses.defvjp(forward, backward)
    return losses(values, targets)


def _refuse_misfits(spec: LossSpec, targets: SparseBatch | DenseBatch) -> None:
    sparse = isinstance(targets, SparseBatch)
    problem = why_not_output(spec.loss, spec.activation) or why_not_target(spec.loss, sparse=sparse)
    if spec.loss is ErrorFunction.PAIRWISE:
        problem = "BPR is of pairs, which only a sampled Output has"
    if problem is not None:
        raise ValueError(problem)


class Known(NamedTuple):
    """What units must know of all units and targets of their sample; each [batch, 1]."""

    share: jax.Array
    """1 / stored features."""
    mass: jax.Array
    """SoftMax: sum of the target's values."""
    absent: jax.Array
    """1 / features that are not stored."""
    log_total: jax.Array
    """SoftMax: logarithm of the sum of e^logit, logits divided by its temperature; else not used."""


def known_of(spec: LossSpec, targets: SparseBatch | DenseBatch, log_total: jax.Array, *, shard: Shard) -> Known:
    """What is to be known of targets, all of them or a device's own; `log_total` as in `Known`."""
    if isinstance(targets, DenseBatch):
        target = shard.kept(targets.values)
        mass = _sum_over(target.sum(axis=1, keepdims=True), shard.axis) if is_multinomial(spec) else log_total
        return Known(jnp.ones_like(mass), mass, jnp.ones_like(mass), log_total)
    batch, rows = len(targets.sample_mask), targets.rows.reshape(-1)
    ones = shard.holds(targets.indices).astype(jnp.float32).reshape(-1)
    counts = over_parts(jax.ops.segment_sum(ones, rows, batch), targets)
    share = 1.0 / jnp.maximum(counts, 1.0)
    if targets.values is None:
        mass = counts * share if is_multinomial(spec) else counts
    else:
        mass = over_parts(jax.ops.segment_sum(targets.values.reshape(-1) * ones, rows, batch), targets)
    absent = 1.0 / jnp.maximum(shard.width - counts, 1.0)
    return Known(share[:, None], mass[:, None], absent[:, None], log_total)


def unit_losses(
    spec: LossSpec,
    values: jax.Array,
    targets: SparseBatch | DenseBatch,
    known: Known,
    *,
    shard: Shard,
    ignore_zero: bool = False,
) -> Terms:
    """Loss [batch] of the units given, and its derivative by each of `values`, [batch, units], sample weights left out.
    `shard` and targets are as in `sample_losses`, but may be those of a block of units. Nothing crosses devices.
    """
    rule = _rule_of(spec)
    if rule.softmax and spec.contrast.temperature != 1:
        plain, temperature = replace(spec, contrast=PLAIN), spec.contrast.temperature
        terms = unit_losses(plain, values / temperature, targets, known, shard=shard, ignore_zero=ignore_zero)
        return terms._replace(delta=terms.delta / temperature)
    if rule.softmax:
        values = values - known.log_total
    if isinstance(targets, DenseBatch):
        target = shard.kept(targets.values)
        terms = rule.dense(values, Target(target, target, known.mass, known.absent))
        return Terms(shard.kept(terms.loss).sum(axis=1), shard.kept(terms.delta))
    boost = _boost_of(spec, analog=targets.values is not None)
    zero = nothing if ignore_zero else _zero_of(spec, rule)
    batch, units = values.shape
    column = shard.column(targets.indices, units)
    owned = column < units
    none = jnp.zeros((1, 1), jnp.float32)
    everywhere = zero(values, Target(none, none, known.mass, known.absent))
    at = values.at[targets.rows, column].get(mode="fill", fill_value=0.0)
    target = _stored_target(targets, known, owned, softmax=rule.softmax)
    stored = rule.stored(at, target)
    counted = zero(at, target._replace(value=jnp.zeros_like(at)))
    correction = jnp.where(owned, stored.loss - counted.loss, 0.0)
    total = shard.kept(everywhere.loss).sum(axis=1)
    total = total + jax.ops.segment_sum(correction, targets.rows, batch)
    delta = shard.kept(boost.zero * everywhere.delta)
    # Set, not added: a feature stored twice passes its delta back once, as in DSSTNE.
    return Terms(total, delta.at[targets.rows, column].set(boost.one * stored.delta, mode="drop"))


class Sampled(NamedTuple):
    """Logits of a sampled layer's units that a device looks at."""

    stored: jax.Array
    """[entries], of the units of entries."""
    others: jax.Array
    """[batch, negatives]"""


def sampled_losses(
    spec: LossSpec, logits: Sampled, targets: SampledBatch, *, shard: Shard, ignore_zero: bool = False
) -> tuple[jax.Array, Sampled]:
    """Loss [batch] of a device's own units by its own negatives, and its derivative by each logit, sample weights left
    out. A negative counts as often as it stands for others: as a summand of SoftMax's sum of e^logit, else as a loss;
    where it is a target of the sample it is none. `shard` is that of the candidates' slots. To be called within
    `shard_map`.
    """
    rule, entries = _rule_of(spec), flat(targets.entries)
    boost, (batch, columns) = _boost_of(spec, analog=entries.values is not None), logits.others.shape
    temperature = spec.contrast.temperature if rule.softmax else 1.0
    logits = Sampled(*(one / temperature for one in logits))
    times = times_of(targets, entries, columns)
    owned = shard.column(entries.indices, targets.candidates.size) < targets.candidates.size
    stored, others, log_total = *logits, jnp.zeros((batch, 1), jnp.float32)
    if rule.softmax:
        log_total = _sampled_total(jnp.where(owned, stored, -jnp.inf), others + jnp.log(times), entries.rows)
        stored = stored - log_total[:, 0].at[entries.rows].get(mode="fill", fill_value=0.0)
        others = others + jnp.log(times) - log_total
    known = known_of(spec, targets.entries, log_total, shard=shard)
    none = jnp.zeros((1, 1), jnp.float32)
    absent = 1.0 / jnp.maximum(jax.lax.psum(times.sum(axis=1, keepdims=True), "model"), _FEWEST)
    zero = (nothing if ignore_zero else _zero_of(spec, rule))(others, Target(none, none, known.mass, absent))
    zero = zero if rule.softmax else scaled(zero, times)
    own = rule.stored(stored, _stored_target(entries, known, owned, softmax=rule.softmax))
    own = Terms(jnp.where(owned, own.loss, 0.0), jnp.where(owned, boost.one * own.delta, 0.0))
    loss = zero.loss.sum(axis=1) + jax.ops.segment_sum(own.loss, entries.rows, batch)
    return loss, Sampled(own.delta / temperature, boost.zero * zero.delta / temperature)


def times_of(targets: SampledBatch, entries: SparseBatch, columns: int) -> jax.Array:
    """How many units each of a device's own negatives stands for in each sample, [batch, negatives]; 0 where it is a
    target of the sample. `entries` are the targets' `flat` ones.
    """
    first = jax.lax.axis_index("model") * columns
    hit = jnp.where((targets.hits >= first) & (targets.hits < first + columns), targets.hits - first, columns)
    times = jnp.broadcast_to(targets.weights.reshape(1, -1), (len(entries.sample_mask), columns))
    return times.at[entries.rows, hit.reshape(-1)].set(0.0, mode="drop")


def _sampled_total(stored: jax.Array, others: jax.Array, rows: jax.Array) -> jax.Array:
    """Logarithm of the sum of e^logit, [entries] and [batch, negatives] -> [batch, 1], over all devices."""
    batch = len(others)
    largest = jnp.maximum(jax.ops.segment_max(stored, rows, batch), others.max(axis=1))
    largest = jnp.maximum(jax.lax.pmax(largest, "model"), jnp.finfo(jnp.float32).min)
    of_stored = jnp.exp(stored - largest.at[rows].get(mode="fill", fill_value=0.0))
    total = jax.ops.segment_sum(of_stored, rows, batch) + jnp.exp(others - largest[:, None]).sum(axis=1)
    return (largest + jnp.log(jax.lax.psum(total, "model")))[:, None]


def flat(entries: SparseBatch) -> SparseBatch:
    """A dealt batch with all its entries in one row."""
    values = None if entries.values is None else entries.values.reshape(-1)
    return entries._replace(indices=entries.indices.reshape(-1), rows=entries.rows.reshape(-1), values=values)


def _stored_target(targets: SparseBatch, known: Known, owned: jax.Array, *, softmax: bool) -> Target:
    # -> targets of the entries, [capacity]
    def at(of_sample: jax.Array) -> jax.Array:
        return of_sample[:, 0].at[targets.rows].get(mode="fill", fill_value=1.0)

    share = at(known.share)
    value = targets.values
    if value is None:
        value = share if softmax else owned.astype(jnp.float32)
    return Target(value, share, at(known.mass), at(known.absent))


def _boost_of(spec: LossSpec, *, analog: bool) -> DeltaBoost:
    """Where DSSTNE boosts the deltas of sparse targets (spec 5.4)."""
    squares = spec.loss in (ErrorFunction.L2, ErrorFunction.L2_HINGE)
    on_sigmoid = spec.activation is Activation.SIGMOID and (squares or spec.loss is ErrorFunction.CROSS_ENTROPY)
    if on_sigmoid or spec.loss is ErrorFunction.L1:
        return spec.boost
    return DeltaBoost(one=spec.boost.one) if squares and analog else DeltaBoost()


def log_total_of(logits: jax.Array, *, shard: Shard) -> jax.Array:
    """Logarithm of the sum of e^logit over the units of all devices, [batch, units of the shard] -> [batch, 1]."""
    masked = shard.kept(logits, -jnp.inf)
    largest = masked.max(axis=1, keepdims=True)
    if shard.axis is not None:
        largest = jax.lax.pmax(largest, shard.axis)
    return largest + jnp.log(_sum_over(jnp.exp(masked - largest).sum(axis=1, keepdims=True), shard.axis))


def is_multinomial(spec: LossSpec) -> bool:
    """Whether the loss is of log-probabilities over all units."""
    return spec.activation is Activation.SOFT_MAX and takes_logits(spec.loss, spec.activation)


def _sum_over(values: jax.Array, axis: str | None) -> jax.Array:
    return values if axis is None else jax.lax.psum(values, axis)


def _zero_of(spec: LossSpec, rule: Rule) -> Callable[[jax.Array, Target], Terms]:
    """What a unit costs that is not stored."""
    if spec.negative_weight == 1:
        return rule.zero
    return lambda values, target: scaled(rule.zero(values, target), spec.negative_weight)


def _rule_of(spec: LossSpec) -> Rule:
    if spec.loss is ErrorFunction.COSINE_CONTRASTIVE:
        return cosine_contrastive(spec.contrast.margin)
    softmax = is_multinomial(spec)
    return RULES[spec.loss, softmax](spec.marginal)
