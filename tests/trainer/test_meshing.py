"""The mesh where nobody says it: a pure choice by sizes, held against what compiled steps pass."""

import jax
import numpy as np
import pytest
from trainer_networks import chain, with_layer

from trainer.capacity import DataShape, capacity
from trainer.deal import Deal
from trainer.meshing import Machine, choose, imbalance, mesh_for
from trainer.network_types import Negatives, NetworkSpec, OptimizerName, OptimizerSpec, Sampling
from trainer.settings import TrainSettings

ADAM = OptimizerSpec(OptimizerName.ADAM)


def network(features: int, hidden: tuple[int, ...], optimizer: OptimizerSpec = ADAM) -> NetworkSpec:
    return chain((features, features), hidden=hidden, optimizer=optimizer)


def chosen(spec: NetworkSpec, machine: Machine, *, batch: int = 256, samples: int = 100_000) -> int:
    return choose(spec, TrainSettings(batch_size=batch), samples, machine).data_shards


def test_one_device_leaves_no_choice() -> None:
    assert choose(network(1000, (8,)), TrainSettings(), 10, Machine(1)) == (1, "")


def test_features_are_spread_where_they_outnumber_the_batch() -> None:
    choice = choose(network(26_752, (200,)), TrainSettings(batch_size=256), 9, Machine(8))
    assert choice.data_shards == 1
    # By hand: 7/8 twice around the ring, [256, 200] in and out in float32, and the start of a collective.
    assert (
        f"waits for {(2 * 7 / 8 * 256 * 400 * 4 + 2**18) / 1e6:.1f} MB between devices; with data 2 × model 4"
        in choice.reason
    )


def test_the_batch_is_spread_where_hidden_weights_are_the_work() -> None:
    assert chosen(network(128, (1024, 1024, 1024)), Machine(8), batch=4096) == 8


@pytest.mark.parametrize("devices", [2, 3, 6, 8])
@pytest.mark.parametrize(("batch", "samples"), [(4096, 10_000), (100, 1000), (9, 1000), (4096, 3)])
def test_shards_divide_devices_and_batch_and_are_no_more_than_samples(devices: int, batch: int, samples: int) -> None:
    shards = chosen(network(128, (512, 512)), Machine(devices), batch=batch, samples=samples)
    assert devices % shards == 0
    assert batch % shards == 0
    assert shards <= samples


def test_features_are_spread_as_far_as_memory_demands() -> None:
    spec = network(100_000, (64, 2048, 2048, 64))
    free = chosen(spec, Machine(8), batch=65536)
    # 13 M wide weights and 4.5 M others, each three times; a device gives half of its memory.
    tight = chosen(spec, Machine(8, memory_bytes=2 * 3 * 4 * (13_000_000 // 4 + 4_600_000)), batch=65536)
    assert (free, tight) == (8, 2)


def test_batches_stay_whole_where_a_step_touches_few_weights() -> None:
    deep = network(128, (1024, 1024), OptimizerSpec(OptimizerName.SGD, weight_decay=0.0))
    assert chosen(deep, Machine(8), batch=4096) == 1
    sampled = with_layer(network(128, (1024, 1024)), -1, sampling=Sampling(Negatives.UNIFORM, 8))
    assert chosen(sampled, Machine(8), batch=4096) == 1


def test_what_is_dear_between_machines_stays_within_one() -> None:
    # Gradients of 10,000 features' weights outweigh the sums of a batch, even more so between machines.
    spec = network(10_000, (64,))
    assert chosen(spec, Machine(8), batch=8192) > 1
    assert chosen(spec, Machine(8, processes=2), batch=1024) == 1
    assert chosen(network(512, (64,)), Machine(8, processes=2), batch=65536) >= 2


def test_what_settings_say_is_done() -> None:
    mesh, why = mesh_for(network(128, (8,)), TrainSettings(data_shards=2), 10, jax.devices())
    assert (dict(mesh.shape), why) == ({"data": 2, "model": 4}, "")


def test_compiled_steps_pass_less_on_the_mesh_that_is_chosen() -> None:
    spec, shape = network(256, (256, 256)), DataShape(256, 100_000, 5.0)
    answers = {
        shards: capacity(spec, shape, TrainSettings(batch_size=4096, data_shards=shards), devices=8)
        for shards in (None, 1)
    }
    assert answers[None].data_shards == 8
    assert answers[None].mesh_reason
    assert answers[None].collective_bytes < answers[1].collective_bytes


@pytest.mark.parametrize(
    ("popularity", "deal", "devices", "expected"),
    [
        # Parts 0 and 1 are the first device's.
        pytest.param([8, 4, 2, 1, 0, 3, 0, 0], Deal(8, 8, 4), 2, 15 / 9, id="by parts"),
        pytest.param([8, 4, 2, 1, 0, 3, 0, 0], Deal(8, 8), 4, 12 / 4.5, id="in order"),
        pytest.param([0, 0], Deal(2, 2), 2, 0.0, id="nothing"),
    ],
)
def test_the_fullest_device_is_held_against_the_mean(
    popularity: list[int], deal: Deal, devices: int, expected: float
) -> None:
    assert imbalance(np.array(popularity), deal, devices) == pytest.approx(expected)
