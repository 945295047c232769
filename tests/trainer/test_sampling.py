"""Output layers of which a step looks at some units only."""

from typing import Any

import jax
import numpy as np
import pytest
from trainer_networks import chain, dataset_of, mesh_of, random_rows, with_layer

from trainer.data.batches import paired_batches
from trainer.data.sampling import Sampler
from trainer.deal import Deal, deals_of, with_deals
from trainer.loss_parameters import Contrast
from trainer.network_types import (
    Activation,
    ErrorFunction,
    Negatives,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    Sampling,
)
from trainer.settings import TrainSettings
from trainer.sharding import to_mesh
from trainer.sparse import SampledBatch, SparseBatch, round_up
from trainer.state import abstract_arguments, create_state, jitted_step, make_step, weights_of

WIDTH, BATCH, SAMPLES = 43, 6, 24
DATA = dataset_of(random_rows(SAMPLES, WIDTH, seed=5), WIDTH)
ALL = Sampling(Negatives.UNIFORM, 100_000)
"""So many draws that every unit is drawn, and stands for itself alone."""
LOSSES = {
    Activation.SIGMOID: ErrorFunction.CROSS_ENTROPY,
    Activation.SOFT_MAX: ErrorFunction.CROSS_ENTROPY,
    Activation.LINEAR: ErrorFunction.COSINE_CONTRASTIVE,
}


def network(sampling: Sampling, activation: Activation, optimizer: OptimizerName = OptimizerName.ADAM) -> NetworkSpec:
    spec = chain((WIDTH, WIDTH), optimizer=OptimizerSpec(optimizer, 0.02, 0.0), loss=LOSSES[activation])
    negative_weight = 1.0 if activation is Activation.SOFT_MAX else 0.3
    contrast = Contrast(margin=-0.1, temperature=0.5 if activation is Activation.SOFT_MAX else 1.0)
    changes = {"activation": activation, "sampling": sampling, "negative_weight": negative_weight}
    return with_layer(spec, 2, contrast=contrast, **changes)


def trained(spec: NetworkSpec, mesh: tuple[int, int]) -> tuple[list[float], list[Any]]:
    settings, on = TrainSettings(batch_size=BATCH, data_shards=mesh[0]), mesh_of(mesh)
    spec = with_deals(spec, ["Input0"], shards=mesh[1])
    deals, output = deals_of(spec, mesh[1]), spec.output
    samplers = {}
    if output.sampling.by:
        samplers["Output2"] = Sampler.of(output.sampling, deals["Output2"], DATA)
    state, step, losses = create_state(spec, settings, on), make_step(spec, settings, on), list[float]()
    for _ in range(3):
        for inputs, targets in paired_batches(
            {"Input0": DATA},
            {"Output2": DATA},
            batch_size=BATCH,
            shards=mesh[0],
            order=np.arange(SAMPLES),
            deals=deals,
            samplers=samplers,
            seed=(1,),
        ):
            assert isinstance(targets["Output2"], SampledBatch) == bool(samplers)
            state, report = step(state, *to_mesh((inputs, targets), on))
            losses.append(float(report.loss_sum))
    return losses, [array for part in weights_of(state, spec).connections for array in part]


@pytest.mark.parametrize("mesh", [(1, 1), (2, 4)], ids=str)
@pytest.mark.parametrize("activation", LOSSES)
def test_where_all_units_are_drawn_it_learns_what_it_learns_without_sampling(
    activation: Activation, mesh: tuple[int, int]
) -> None:
    losses, learnt = trained(network(ALL, activation), mesh)
    wanted, wanted_weights = trained(network(Sampling(), activation), (1, 1))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for found, other in zip(learnt, wanted_weights, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("by", [Negatives.UNIFORM, Negatives.POPULARITY, Negatives.IN_BATCH])
def test_few_negatives_lower_the_whole_loss(by: Negatives) -> None:
    count = 0 if by is Negatives.IN_BATCH else 8
    losses, _ = trained(network(Sampling(by, count), Activation.SOFT_MAX), (1, 2))
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def batch_of_all(deal: Deal) -> SparseBatch:
    made = paired_batches({"in": DATA}, {"in": DATA}, batch_size=BATCH, order=np.arange(SAMPLES), deals={"in": deal})
    batch = next(made)[0]["in"]
    assert isinstance(batch, SparseBatch)
    return batch


@pytest.mark.parametrize("by", [Negatives.UNIFORM, Negatives.POPULARITY])
def test_what_negatives_stand_for_adds_up_to_all_units(by: Negatives) -> None:
    deal = Deal(WIDTH, 48, 8)
    batch, sampler = batch_of_all(deal), Sampler.of(Sampling(by, 12), deal, DATA)
    reached = np.bincount(DATA.indices, minlength=WIDTH) > 0 if by is Negatives.POPULARITY else np.ones(WIDTH, bool)
    worth = np.random.default_rng(2).uniform(0.5, 2.0, WIDTH)
    found: list[float] = []
    for seed in range(2000):
        drawn = sampler.sampled(batch, (seed,))
        real = drawn.negatives < drawn.candidates.size
        places = drawn.candidates.reshape(-1)[drawn.negatives[real]]
        found.append(float((drawn.weights[real] * worth[deal.unit(places)]).sum()))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - worth[reached].sum()) < 4 * error


def test_entries_name_their_candidates_and_a_seed_its_negatives() -> None:
    deal = Deal(WIDTH, 48, 8)
    batch, sampler = batch_of_all(deal), Sampler.of(Sampling(Negatives.UNIFORM, 9), deal, DATA)
    drawn, again, other = (sampler.sampled(batch, seed) for seed in ((7, 1), (7, 1), (7, 2)))
    real = batch.indices < deal.stored
    np.testing.assert_array_equal(drawn.candidates.reshape(-1)[drawn.entries.indices[real]], batch.indices[real])
    assert (drawn.entries.indices[~real] == drawn.candidates.size).all()
    for part, row in enumerate(drawn.candidates):
        kept = row[row < deal.stored]
        assert (np.diff(kept) > 0).all()
        assert (kept // deal.size == part).all()
    names = np.append(
        drawn.candidates.reshape(-1)[np.minimum(drawn.negatives.reshape(-1), drawn.candidates.size - 1)], -1
    )
    is_hit = drawn.hits < drawn.negatives.size
    assert is_hit.any()
    np.testing.assert_array_equal(names[drawn.hits[is_hit]], batch.indices[is_hit])
    np.testing.assert_array_equal(drawn.candidates, again.candidates)
    assert not np.array_equal(drawn.candidates, other.candidates)


def test_the_batches_of_a_training_have_one_shape() -> None:
    deal = Deal(WIDTH, 48, 8)
    batch, sampler = batch_of_all(deal), Sampler.of(Sampling(Negatives.UNIFORM, 30), deal, DATA)
    drawn = [sampler.sampled(batch, (seed,)) for seed in range(200)]
    assert len({(one.candidates.shape, one.negatives.shape) for one in drawn}) <= 2


def test_a_steps_cost_does_not_grow_with_the_items() -> None:
    def cost(items: int) -> tuple[float, int]:
        width, mesh, settings = round_up(items), mesh_of((1, 8)), TrainSettings(batch_size=32, l2=0.0)
        optimizer = OptimizerSpec(OptimizerName.SGD, weight_decay=0.0)
        spec = chain((width, width), hidden=(16,), optimizer=optimizer)
        spec = with_layer(spec, 2, sampling=Sampling(Negatives.UNIFORM, 64), activation=Activation.SOFT_MAX)
        spec = with_deals(spec, ["Input0"], shards=8, is_local=True)
        with jax.set_mesh(mesh):
            arguments = abstract_arguments(spec, settings, mesh, capacity=512)
            compiled = jitted_step(spec, settings, mesh).lower(*arguments).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    (flops, temporaries), (more_flops, more_temporaries) = cost(100_000), cost(10_000_000)
    assert more_flops < 1.01 * flops
    assert more_temporaries < 1.01 * temporaries
