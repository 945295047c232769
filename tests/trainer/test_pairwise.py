"""The losses of sampled outputs that tell stored features from others, on one, two and eight devices, against an oracle
that goes through single pairs in float64, and against differences of its losses.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from jax.sharding import PartitionSpec as P
from trainer_networks import dataset_of, mesh_of, random_rows

from trainer.data.batches import paired_batches
from trainer.data.sampling import Sampler
from trainer.deal import Deal
from trainer.loss_parameters import Contrast
from trainer.losses import LossSpec, Sampled, Shard, flat, sampled_losses
from trainer.network_types import Activation, DeltaBoost, ErrorFunction, MarginalScale, Negatives, Sampling
from trainer.pairwise import pair_losses
from trainer.sharding import batch_specs
from trainer.sparse import SampledBatch, SparseBatch, SparseDataset

Matrix = npt.NDArray[np.float64]

UNITS, SAMPLES, MARGIN, WEIGHT = 29, 5, 0.2, 3.0
DEAL = Deal(UNITS, 32, 8)
RNG = np.random.default_rng(12)
ROWS = random_rows(SAMPLES, UNITS, seed=2)
STORED = dataset_of(ROWS, UNITS)
VALUES = RNG.uniform(0.5, 2.0, STORED.nnz).astype(np.float32)
DATA = SparseDataset("d", UNITS, STORED.indptr, STORED.indices, VALUES)
LOGITS = RNG.normal(0.0, 1.0, (SAMPLES, UNITS))
FUNCTIONS = {ErrorFunction.PAIRWISE: pair_losses, ErrorFunction.COSINE_CONTRASTIVE: sampled_losses}
every_loss = pytest.mark.parametrize("loss", FUNCTIONS, ids=lambda loss: loss.name)


def sampled_batch() -> SampledBatch:
    made = paired_batches({"in": DATA}, {}, batch_size=SAMPLES, order=np.arange(SAMPLES), deals={"in": DEAL})
    batch = next(made)[0]["in"]
    assert isinstance(batch, SparseBatch)
    return Sampler.of(Sampling(Negatives.POPULARITY, 14), DEAL, DATA).sampled(batch, (3,))


def negatives_of(batch: SampledBatch) -> dict[int, float]:
    """Unit to how many it stands for."""
    places = np.append(batch.candidates.reshape(-1), DEAL.stored)[batch.negatives.reshape(-1)]
    found = zip(places, batch.weights.reshape(-1), strict=True)
    return {int(DEAL.unit(place)): float(weight) for place, weight in found if weight > 0}


def losses_by_hand(loss: ErrorFunction, logits: Matrix, negatives: dict[int, float]) -> Matrix:
    """[samples]"""
    found = np.zeros(SAMPLES)
    for sample, row in enumerate(ROWS):
        values = VALUES[DATA.indptr[sample] : DATA.indptr[sample + 1]]
        own = {unit: weight for unit, weight in negatives.items() if unit not in row}
        if loss is ErrorFunction.PAIRWISE:
            for unit, value in zip(row, values, strict=True):
                for other, weight in own.items():
                    behind = np.log1p(np.exp(logits[sample, other] - logits[sample, unit]))
                    found[sample] += value * weight * behind / len(row) / sum(own.values())
        else:
            found[sample] = sum(v * (1.0 - logits[sample, u]) / len(row) for u, v in zip(row, values, strict=True))
            beyond = sum(weight * max(0.0, logits[sample, unit] - MARGIN) for unit, weight in own.items())
            found[sample] += WEIGHT * beyond / sum(own.values())
    return found


def measured(loss: ErrorFunction, batch: SampledBatch, devices: int) -> tuple[Matrix, Matrix]:
    """Losses, and their derivative by the logits, [samples, units]."""
    spec = LossSpec(loss, Activation.LINEAR, MarginalScale(), DeltaBoost(), WEIGHT, Contrast(margin=MARGIN))
    places = np.append(batch.candidates.reshape(-1), DEAL.stored)
    units = np.minimum(DEAL.unit(np.minimum(places, DEAL.stored - 1)), UNITS)
    given = np.pad(LOGITS, ((0, 1), (0, 1))).astype(np.float32)
    entries = flat(batch.entries)
    of_entries, of_negatives = units[entries.indices], units[batch.negatives.reshape(-1)]
    logits = Sampled(given[entries.rows, of_entries], given[:SAMPLES, of_negatives])

    def of_device(logits: Sampled, batch: SampledBatch) -> tuple[jax.Array, Sampled]:
        slots = batch.candidates.size
        shard = Shard(jax.lax.axis_index("model") * slots, slots * devices, "model")
        found, delta = FUNCTIONS[loss](spec, logits, batch, shard=shard)
        return jax.lax.psum(found, "model"), delta

    parts = Sampled(P("model"), P(None, "model"))
    specs: Any = (parts, batch_specs(batch))
    over = jax.shard_map(of_device, mesh=mesh_of((1, devices)), in_specs=specs, out_specs=(P(), parts), check_vma=False)
    losses, delta = jax.jit(over)(jax.tree.map(jnp.asarray, logits), jax.tree.map(jnp.asarray, batch))
    gradient = np.zeros((SAMPLES + 1, UNITS + 1))
    np.add.at(gradient, (entries.rows, of_entries), np.asarray(delta.stored))
    real = batch.weights.reshape(-1) > 0
    np.add.at(gradient.T, of_negatives[real], np.pad(np.asarray(delta.others).T[real], ((0, 0), (0, 1))))
    return np.asarray(losses, np.float64), gradient[:SAMPLES, :UNITS]


@every_loss
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_losses_and_gradients_are_those_by_hand(loss: ErrorFunction, devices: int) -> None:
    batch = sampled_batch()
    negatives = negatives_of(batch)
    losses, gradient = measured(loss, batch, devices)
    np.testing.assert_allclose(losses, losses_by_hand(loss, LOGITS, negatives), rtol=1e-5, atol=1e-6)
    for unit, nudge in enumerate(1e-6 * np.eye(UNITS)):
        ends = (losses_by_hand(loss, LOGITS + sign * nudge, negatives) for sign in (1.0, -1.0))
        above, below = ends
        np.testing.assert_allclose(gradient[:, unit], (above - below) / 2e-6, rtol=1e-4, atol=1e-6)
