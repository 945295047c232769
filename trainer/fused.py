"""Wide layers block by block: sums, loss, gradient and update of a block's weights in one pass, so that a step never
holds more of a wide layer than [batch, block]. What is computed is what the layers and the optimizer say; only where
and when is decided here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trainer.activations import activate
from trainer.blockwise import (
    Entries,
    OutputPass,
    Part,
    Update,
    added,
    by_source,
    candidate_rows,
    entries_of,
    in_turn,
    log_total_over,
    placed,
    returned,
    set_apart,
    sliced,
    taken,
    targets_of,
    weighted,
)
from trainer.deal import blocks_of, deal_of
from trainer.dense import DenseBatch
from trainer.gram import GramPass, is_by_gram
from trainer.layers import Corruption, entry_pieces, limit_weights, matmul
from trainer.loss_rules import Terms
from trainer.losses import (
    Known,
    Sampled,
    Shard,
    flat,
    is_multinomial,
    known_of,
    loss_spec,
    sampled_losses,
    unit_losses,
)
from trainer.model import Batches, Targets, corruption_of
from trainer.network_names import takes_logits
from trainer.network_types import ErrorFunction, LayerSpec, NetworkSpec
from trainer.optimizer import Rates, regularization
from trainer.pairwise import pair_losses
from trainer.sharding import batch_specs, tree_specs
from trainer.sparse import SampledBatch, SparseBatch


@dataclass(frozen=True, slots=True)
class Blocks:
    """What updates the wide layers of `spec` on `mesh`; to be called within `jax.set_mesh(mesh)`."""

    spec: NetworkSpec
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    rates: Rates

    def outputs(
        self,
        parts: Mapping[str, Part],
        sources: Mapping[str, jax.Array],
        targets: Targets,
        samples: jax.Array,
        update: Update,
    ) -> tuple[dict[str, Part], dict[str, jax.Array], jax.Array, jax.Array]:
        """Loss and update of all Output layers that have `parts`, by position: their parts, the deltas of their
        `sources` by layer, the summed loss with what was `before`, and their regularization.
        """
        found, decay = dict(parts), jnp.zeros((), jnp.float32)
        deltas = {name: jnp.zeros_like(values) for name, values in sources.items()}
        for position, part in parts.items():
            layer = self.spec.layers[int(position)]
            own = targets[layer.name]
            given = tuple(sources[name] for name in layer.sources)
            passed = self.output(layer, part, given, own, own.sample_mask * (layer.loss_weight / samples), update)
            found[position], decay = passed.part, decay + passed.regularization
            update = update._replace(before=update.before + passed.losses.sum())
            for name, delta in zip(layer.sources, passed.deltas, strict=True):
                deltas[name] = deltas[name] + delta
        return found, deltas, update.before, decay

    def inputs(
        self,
        parts: Mapping[str, Part],
        batches: Batches,
        deltas: Mapping[int, jax.Array],
        rng: jax.Array,
        *,
        rate_scale: jax.Array,
        left_out: jax.Array,
    ) -> tuple[dict[str, Part], jax.Array]:
        """Update of all matrices from Input layers that have `parts`, by number of the connection, and their
        regularization; `deltas` by connection too, `rng` is the step's.
        """
        found, decay = dict(parts), jnp.zeros((), jnp.float32)
        for key, part in parts.items():
            source = self.spec.connections[int(key)].source
            batch = batches[source.name]
            if not isinstance(batch, SparseBatch):
                raise TypeError(f"layer {source.name}: only layers with sparse data are dealt")
            corruption = corruption_of(self.spec, source, self.mesh.shape["model"], rng)
            found[key], own_decay = self.input(
                source, part, batch, deltas[int(key)], corruption, rate_scale=rate_scale, left_out=left_out
            )
            decay = decay + own_decay
        return found, decay

    def output(
        self,
        layer: LayerSpec,
        part: Part,
        sources: tuple[jax.Array, ...],
        targets: SparseBatch | DenseBatch | SampledBatch,
        cotangent: jax.Array,
        update: Update,
    ) -> OutputPass:
        """Loss and update of an Output layer. `part` has `outputs/<number>/kernel` and `bias` of each connection into
        it, in the order of the `sources`, their outputs [batch, units]; `cotangent` [batch] is the derivative of what
        is minimised by a sample's loss.

        A batch is left out exactly where the device has one block. Else its blocks keep their update up to the one with
        which the loss a device has seen passes the limit.
        """
        of_targets: Any = batch_specs(targets)
        if isinstance(targets, DenseBatch):
            deal = deal_of(layer, self.mesh.shape["model"])
            values = jnp.pad(targets.values, ((0, 0), (0, deal.stored - targets.values.shape[1])))
            targets = targets._replace(values=deal.dealt(values, 1))
            of_targets = of_targets._replace(values=P("data", "model"))
        whole = P("data", None)
        of_part = Part(*tree_specs(tuple(part)))
        of_pass: tuple[Any, ...] = (of_part, P("data"), whole, P())
        of_device = self._sampled if isinstance(targets, SampledBatch) else self._output
        if is_by_gram(layer):
            of_device = GramPass(self.spec, self.mesh, self.optimizer, self.rates)
        found = jax.shard_map(
            partial(of_device, layer),
            in_specs=(of_part, whole, of_targets, P("data"), P()),
            out_specs=OutputPass(*of_pass),
            check_vma=False,
        )
        return found(part, sources, targets, cotangent, update)

    def input(
        self,
        layer: LayerSpec,
        part: Part,
        batch: SparseBatch,
        deltas: jax.Array,
        corruption: Corruption,
        *,
        rate_scale: jax.Array,
        left_out: jax.Array,
    ) -> tuple[Part, jax.Array]:
        """Update of `inputs/<number>/kernel`, which leads from an Input layer, by the `deltas` [batch, units] of its
        sums, and its regularization. Where an update is the sum of what single entries bring, nothing else is touched.
        """
        of_part = Part(*tree_specs(tuple(part)))
        found = jax.shard_map(
            lambda *given: self._input(layer, corruption, *given),
            in_specs=(of_part, batch_specs(batch), P("data", None), P(), P(), P()),
            out_specs=(of_part, P()),
            check_vma=False,
        )
        return found(part, batch, deltas, corruption.rng, rate_scale, left_out)

    def _output(
        self,
        layer: LayerSpec,
        part: Part,
        sources: tuple[jax.Array, ...],
        targets: SparseBatch | DenseBatch,
        cotangent: jax.Array,
        update: Update,
    ) -> OutputPass:
        """The part of one device."""
        blocks = blocks_of(layer, self.mesh.shape["model"])
        cotangent, counted = weighted(layer, targets, cotangent)
        rows = jax.tree.leaves(part.params)[0].shape[0]
        size, deal = rows // blocks, deal_of(layer, self.mesh.shape["model"])
        whole = Shard(jax.lax.axis_index("model") * rows, layer.width, "model", deal)

        def shard_at(block: jax.Array | int) -> Shard:
            return replace(whole, first=whole.first + block * size)

        def logits_of(block: jax.Array | int) -> tuple[jax.Array, Shard]:
            sums = self._sums(sliced(part.params, part.params, block, size), sources)
            return sums / layer.contrast.temperature, shard_at(block)

        loss, log_total = loss_spec(self.spec, layer), jnp.zeros((len(cotangent), 1), jnp.float32)
        if is_multinomial(loss):
            log_total = log_total_over(logits_of, blocks, log_total)
        known = known_of(loss, targets, log_total, shard=whole)

        def of_block(block: jax.Array | int, carry: OutputPass) -> OutputPass:
            here = Part(*sliced(tuple(carry.part), tuple(part), block, size))
            logits, back = jax.vjp(self._sums, here.params, sources)
            terms, delta = self._terms(layer, logits, targets_of(targets, block, blocks), known, shard_at(block))
            grads, deltas = back(delta * cotangent[:, None])
            losses = carry.losses + terms.loss * counted
            left_out = self._is_left_out(losses, update, is_all=blocks == 1)
            kept = self._updated(here, self._over_data(grads), left_out, update.rate_scale, layer.weight_norm)
            return OutputPass(
                Part(*placed(tuple(carry.part), tuple(kept), block * size)),
                losses,
                jax.tree.map(jnp.add, carry.deltas, deltas),
                carry.regularization + regularization(self.rates, here.params),
            )

        zeros = jax.tree.map(jnp.zeros_like, (cotangent, sources, update.before))
        found = in_turn(blocks, of_block, OutputPass(part, *zeros))
        return OutputPass(found.part, *jax.lax.psum(tuple(found)[1:], "model"))

    def _sampled(
        self,
        layer: LayerSpec,
        part: Part,
        sources: tuple[jax.Array, ...],
        targets: SampledBatch,
        cotangent: jax.Array,
        update: Update,
    ) -> OutputPass:
        """The part of one device, of whose rows only those of the candidates are read and written."""
        entries, slots = flat(targets.entries), targets.candidates.size
        cotangent, counted = weighted(layer, entries, cotangent)
        local = candidate_rows(targets, jax.tree.leaves(part.params)[0].shape[0])
        shard = Shard(jax.lax.axis_index("model") * slots, slots * self.mesh.shape["model"], "model")
        here = Part(*taken(tuple(part), local))
        slot, others = shard.column(entries.indices, slots), shard.column(targets.negatives.reshape(-1), slots)

        def sums(params: Any, sources: tuple[jax.Array, ...]) -> Sampled:
            stored, of_others = jnp.zeros(slot.shape, jnp.float32), taken(params, others)
            for own, values in zip(by_source(params), sources, strict=True):
                given = values.at[entries.rows].get(mode="fill", fill_value=0.0)
                row, bias = taken((own["kernel"], own["bias"]), slot)
                stored = stored + (given * row).sum(axis=1) + bias
            return Sampled(stored, self._sums(of_others, sources))

        logits, back = jax.vjp(sums, here.params, sources)
        spec = loss_spec(self.spec, layer)
        losses_of = pair_losses if spec.loss is ErrorFunction.PAIRWISE else sampled_losses
        loss, delta = losses_of(spec, logits, targets, shard=shard, ignore_zero=layer.ignore_zero)
        of_entries = cotangent.at[entries.rows].get(mode="fill", fill_value=0.0)
        grads, deltas = back(Sampled(delta.stored * of_entries, delta.others * cotangent[:, None]))
        losses = loss * counted
        left_out = self._is_left_out(losses, update, is_all=True)
        kept = self._updated(here, self._over_data(grads), left_out, update.rate_scale, layer.weight_norm)
        found = losses, deltas, regularization(self.rates, here.params)
        return OutputPass(Part(*returned(tuple(part), tuple(kept), local)), *jax.lax.psum(found, "model"))

    def _is_left_out(self, losses: jax.Array, update: Update, *, is_all: bool) -> jax.Array:
        """Whether what was seen, `is_all` there is on this device, is too much already."""
        seen = self._over_data(losses.sum())
        return update.before + (jax.lax.psum(seen, "model") if is_all else seen) > update.limit

    def _sums(self, params: Any, sources: tuple[jax.Array, ...]) -> jax.Array:
        products: list[jax.Array] = [
            matmul(values, own["kernel"], transposed=True, bfloat16=self.spec.bfloat16) + own["bias"][None, :]
            for own, values in zip(by_source(params), sources, strict=True)
        ]
        return sum(products[1:], start=products[0])

    def _over_data(self, tree: Any) -> Any:
        return jax.lax.psum(tree, "data") if self.mesh.shape["data"] > 1 else tree

    def _terms(
        self, layer: LayerSpec, logits: jax.Array, targets: SparseBatch | DenseBatch, known: Known, shard: Shard
    ) -> tuple[Terms, jax.Array]:
        """The terms of a block's units, and the derivative of a sample's loss by their sums, [batch, block]."""
        loss = loss_spec(self.spec, layer)
        if takes_logits(loss.loss, loss.activation):
            terms = unit_losses(loss, logits, targets, known, shard=shard, ignore_zero=layer.ignore_zero)
            return terms, terms.delta
        # All columns of a block count here; which hold a unit is known to the loss.
        block = replace(layer, shape=(logits.shape[1],))
        values, back = jax.vjp(lambda sums: activate(block, sums), logits)
        terms = unit_losses(loss, values, targets, known, shard=shard, ignore_zero=layer.ignore_zero)
        return terms, back(terms.delta)[0]

    def _input(
        self,
        layer: LayerSpec,
        corruption: Corruption,
        part: Part,
        batch: SparseBatch,
        deltas: jax.Array,
        rng: jax.Array | None,
        rate_scale: jax.Array,
        left_out: jax.Array,
    ) -> tuple[Part, jax.Array]:
        """The part of one device."""
        rows, blocks = jax.tree.leaves(part.params)[0].shape[0], blocks_of(layer, self.mesh.shape["model"])
        places = batch.indices - jax.lax.axis_index("model") * rows
        entries, size = Entries(places, batch.rows, corruption.values(batch, rng)), rows // blocks
        if self._touches_entries_only:
            return self._touched(part, entries, deltas, rate_scale, left_out), jnp.zeros((), jnp.float32)

        def of_block(block: jax.Array | int, carry: tuple[Part, jax.Array]) -> tuple[Part, jax.Array]:
            whole, decay = carry
            here = Part(*sliced(tuple(whole), tuple(part), block, size))
            own = Entries(*(entries_of(entry, block, blocks) for entry in entries))
            own = own._replace(places=own.places - block * size)
            zeros = jnp.zeros_like(jax.tree.leaves(here.params)[0])
            grads = self._over_data(added(zeros, own, own.brought(deltas)))
            kept = self._updated(here, jax.tree.map(lambda _: grads, here.params), left_out, rate_scale, 0.0)
            whole = Part(*placed(tuple(whole), tuple(kept), block * size))
            return whole, decay + regularization(self.rates, here.params)

        found, decay = in_turn(blocks, of_block, (part, jnp.zeros((), jnp.float32)))
        return found, jax.lax.psum(decay, "model")

    def _touched(
        self, part: Part, entries: Entries, deltas: jax.Array, rate_scale: jax.Array, left_out: jax.Array
    ) -> Part:
        """The update of the rows that have entries."""

        def moved(rows: jax.Array) -> tuple[jax.Array, Any]:
            tree = jax.tree.map(lambda _: rows, part.params)
            updates, opt_state = self.optimizer.update(tree, part.opt_state, tree, rate_scale=rate_scale)
            return jax.tree.leaves(updates)[0], opt_state

        pieces = Entries(*(entry_pieces(entry, deltas.shape[1]) for entry in entries))

        def of_piece(number: jax.Array | int, kernel: jax.Array) -> jax.Array:
            own = Entries(*(entry[number] for entry in pieces))
            return added(kernel, own, jnp.where(left_out, 0.0, moved(own.brought(deltas))[0]))

        kernel = jax.lax.fori_loop(0, len(pieces.places), of_piece, jax.tree.leaves(part.params)[0])
        # Without rows it only counts.
        return Part(jax.tree.map(lambda _: kernel, part.params), moved(kernel[:0])[1])

    @property
    def _touches_entries_only(self) -> bool:
        """Whether rows without entries stay as they are, and the others move by what their entries bring."""
        return self.rates.is_local and self.mesh.shape["data"] == 1

    def _updated(self, here: Part, grads: Any, left_out: jax.Array, rate_scale: jax.Array, longest: float) -> Part:
        """A block after its update, or as it was but for the numbers, to be written."""

        def changed(here: Part) -> Part:
            updates, opt_state = self.optimizer.update(grads, here.opt_state, here.params, rate_scale=rate_scale)
            params = jax.tree.map(jnp.add, here.params, updates)
            if longest > 0:
                params = jax.tree.map(
                    lambda one: limit_weights(one, length=longest, by_output=True) if one.ndim > 1 else one, params
                )
            return Part(params, opt_state)

        return set_apart(left_out, here, changed)
