"""The loss of pairs: each stored feature of a sample against each negative of a sampled Output layer."""

import jax
import jax.numpy as jnp

from trainer.losses import LossSpec, Sampled, Shard, flat, known_of, times_of
from trainer.sparse import SampledBatch

_PAIRS = 1 << 22
"""That are looked at at a time, about."""


def pair_losses(
    spec: LossSpec, logits: Sampled, targets: SampledBatch, *, shard: Shard, ignore_zero: bool = False
) -> tuple[jax.Array, Sampled]:
    """Loss [batch] of the pairs with a device's own negatives, and its derivative by each logit, sample weights left
    out: the mean of -log σ(stored - negative) over all pairs of a sample (Rendle et al. 2009), as many as the negatives
    stand for; a stored value is how often its feature counts. A negative that is a target of the sample is none; where
    zeros are ignored there is none at all. Arguments are as those of `trainer.losses.sampled_losses`.
    """
    entries = flat(targets.entries)
    batch, columns = logits.others.shape
    times = times_of(targets, entries, columns)
    total = jnp.maximum(jax.lax.psum(times.sum(axis=1, keepdims=True), "model"), 1e-6)
    times = jnp.zeros_like(times) if ignore_zero else times / total
    share = known_of(spec, targets.entries, jnp.zeros((batch, 1)), shard=shard).share[:, 0]
    owned = shard.column(entries.indices, targets.candidates.size) < targets.candidates.size
    counted = jnp.where(owned, 1.0 if entries.values is None else entries.values, 0.0)
    counted = counted * share.at[entries.rows].get(mode="fill", fill_value=0.0)
    # A pair may be of features of two devices: -> [entries of all devices]
    of_all = [jax.lax.all_gather(one, "model", tiled=True) for one in (logits.stored, entries.rows, counted)]
    loss, delta = _over_pairs(Sampled(of_all[0], logits.others), of_all[1], of_all[2], times)
    return loss, delta._replace(stored=jax.lax.psum_scatter(delta.stored, "model", tiled=True))


def _over_pairs(logits: Sampled, rows: jax.Array, counted: jax.Array, times: jax.Array) -> tuple[jax.Array, Sampled]:
    """The sum over all pairs, a piece of the entries at a time, so that [entries, negatives] is never whole: an entry
    counts `counted` [entries] times, a negative `times` [batch, negatives].
    """
    batch, columns = logits.others.shape
    piece = max(_PAIRS // columns, 1)
    pieces = -(-len(rows) // piece)
    missing = pieces * piece - len(rows)

    def pieces_of(entries: jax.Array, fill: int) -> jax.Array:
        return jnp.pad(entries, (0, missing), constant_values=fill).reshape(pieces, piece)

    def of_piece(
        carry: tuple[jax.Array, jax.Array], own: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        loss, others = carry
        stored, rows, counted = own
        # All pairs of the piece: [piece, negatives]
        behind = logits.others.at[rows].get(mode="fill", fill_value=0.0) - stored[:, None]
        weight = counted[:, None] * times.at[rows].get(mode="fill", fill_value=0.0)
        delta = weight * jax.nn.sigmoid(behind)
        loss = loss + jax.ops.segment_sum((weight * jax.nn.softplus(behind)).sum(axis=1), rows, batch)
        return (loss, others.at[rows].add(delta, mode="drop")), -delta.sum(axis=1)

    start = (jnp.zeros(batch, jnp.float32), jnp.zeros_like(logits.others))
    given = (pieces_of(logits.stored, 0), pieces_of(rows, batch), pieces_of(counted, 0))
    (loss, others), stored = jax.lax.scan(of_piece, start, given)
    return loss, Sampled(stored.reshape(-1)[: len(rows)], others)
