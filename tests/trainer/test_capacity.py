"""What a training needs, told from compiled steps: figures held against counts made by hand, and how they scale."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import quick_xla
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from trainer_checkerboard import write_checkerboard, write_network

from trainer.capacity import GPUS, USABLE, Capacity, DataShape, Question, capacity, capacity_text
from trainer.compiled import CompiledProgram
from trainer.errors import SettingsError
from trainer.network import read_network
from trainer.network_names import OPTIMIZERS
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh

GIB = 2**30
ROOT = Path(__file__).parents[2]
# (items · hidden) · 2 matrices + biases: half a million features are far from any padding's share of 2 %.
ITEMS, HIDDEN, BATCH = 500_000, 64, 128


def write(folder: Path, *, hidden: int = HIDDEN, optimizer: str = "SGD", precision: str = "float32") -> Path:
    """An autoencoder of one hidden layer, its items open."""
    layers = [
        {"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl_input", "Sparse": True},
        {"Name": "Hidden", "Kind": "Hidden", "N": hidden, "Activation": "Sigmoid"},
        {"Name": "Output", "Kind": "Output", "N": "auto", "DataSet": "gl_output", "Sparse": True},
    ]
    network = {
        "Name": "small",
        "Kind": "AutoEncoder",
        "Layers": layers,
        "ErrorFunction": "CrossEntropy",
        "Optimizer": {"Name": optimizer},
        "Precision": precision,
    }
    path = folder / "network.json"
    path.write_text(json.dumps(network))
    return path


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory):
    """`capacity` of that network, each question answered once."""
    folder = tmp_path_factory.mktemp("networks")

    @functools.cache
    def answer(
        items: int = ITEMS,
        hidden: int = HIDDEN,
        batch: int = BATCH,
        optimizer: str = "SGD",
        mesh: tuple[int, int] = (1, 8),
        precision: str = "float32",
    ) -> Capacity:
        network = read_network(write(folder, hidden=hidden, optimizer=optimizer, precision=precision))
        settings = TrainSettings(batch_size=batch, data_shards=mesh[0])
        return capacity(network, DataShape(items, 10 * batch, 100.0), settings, devices=mesh[0] * mesh[1])

    return answer


@pytest.mark.parametrize(("optimizer", "copies"), [("SGD", 1), ("Momentum", 2), ("Adam", 3)])
def test_a_device_holds_its_share_of_parameters_and_optimizer(ask, optimizer: str, copies: int):
    answer = ask(optimizer=optimizer)
    own = answer.bytes_per_device
    whole = 4 * answer.parameters * copies
    assert answer.parameters == pytest.approx(2 * ITEMS * HIDDEN, rel=0.02)
    assert own.parameters + own.optimizer == pytest.approx(whole / 8, rel=0.02)
    assert own.parameters == pytest.approx(whole / copies / 8, rel=0.02)


def test_replicas_along_the_data_axis_share_nothing(ask):
    halved, whole = ask(mesh=(2, 4)), ask(mesh=(1, 4))
    assert halved.bytes_per_device.parameters == whole.bytes_per_device.parameters


def test_what_passes_between_devices_does_not_grow_with_the_items(ask):
    small, large = ask(items=ITEMS // 10), ask()
    # With more than one block a number less goes around.
    assert abs(large.collective_bytes - small.collective_bytes) <= 8
    assert 0 < large.collective_bytes <= 3 * BATCH * HIDDEN * 4


def test_splitting_the_batch_sends_every_gradient_around(ask):
    answer = ask(mesh=(2, 4))
    assert answer.collective_bytes > 4 * answer.parameters / 4


def test_one_device_has_no_collectives(ask):
    assert ask(mesh=(1, 1)).collectives == ()


def test_what_passes_grows_with_batch_and_hidden_units(ask):
    once = ask().collective_bytes
    assert ask(batch=2 * BATCH).collective_bytes == pytest.approx(2 * once, rel=0.01)
    assert ask(hidden=2 * HIDDEN).collective_bytes == pytest.approx(2 * once, rel=0.05)


def test_flops_are_those_of_the_three_products_over_the_items(ask):
    # Elementwise work on [batch, items] and the update are less than a fifth at 256 hidden units.
    answer = ask(hidden=256)
    products = 6 * BATCH * 256 * ITEMS
    assert products <= answer.flops_per_step <= 1.2 * products
    assert ask(hidden=256, mesh=(1, 2)).flops_per_step == pytest.approx(answer.flops_per_step, rel=0.02)


def test_step_time_is_the_roofline_of_its_figures(ask):
    answer = ask(mesh=(1, 1), hidden=256)
    for gpu, fit in zip(GPUS, answer.gpus, strict=True):
        compute = answer.flops_per_step / (gpu.float32_tflops * 1e12)
        memory = answer.traffic_per_device / (gpu.memory_gb_per_second * 1e9)
        assert fit.step_seconds == pytest.approx(max(compute, memory))
        assert fit.bound == ("compute" if compute > memory else "memory")
        assert fit.epoch_seconds == pytest.approx(10 * fit.step_seconds)


def test_a_network_in_bfloat16_is_measured_by_that_peak(ask):
    answer = ask(mesh=(1, 1), hidden=256, precision="bfloat16")
    h100, fit = GPUS[-1], answer.gpus[-1]
    compute = answer.flops_per_step / (h100.bfloat16_tflops * 1e12)
    assert fit.step_seconds == pytest.approx(
        max(compute, answer.traffic_per_device / (h100.memory_gb_per_second * 1e9))
    )


def test_the_fewest_gpus_hold_it_and_half_of_them_do_not(ask):
    answer = ask(items=4_000_000, hidden=512, mesh=(1, 8))
    fits = {fit.gpu: fit for fit in answer.gpus}
    memory = {gpu.name: USABLE * gpu.memory_gib * GIB for gpu in GPUS}
    assert all(fit.holds == (answer.bytes_per_device.total <= memory[name]) for name, fit in fits.items())
    for count in (2, 4):
        needed = ask(items=4_000_000, hidden=512, mesh=(1, count)).bytes_per_device.total
        for name, fit in fits.items():
            assert (needed <= memory[name]) == (fit.fewest is not None and fit.fewest <= count)
    assert fits["H100"].fewest is not None
    assert fits["T4"].fewest is None or fits["T4"].fewest > fits["H100"].fewest


def test_the_last_epoch_step_may_be_partial_and_batches_no_larger_than_the_data(tmp_path: Path):
    network = read_network(write(tmp_path))
    told = [
        capacity(network, DataShape(500, samples, 5.0), TrainSettings(batch_size=64), devices=1) for samples in (65, 10)
    ]
    assert [(one.steps_per_epoch, one.batch_size) for one in told] == [(2, 64), (1, 10)]


def test_text_names_every_gpu_and_assumption(ask):
    text = capacity_text(ask())
    assert all(gpu.name in text for gpu in GPUS)
    assert all(line in text for line in ask().assumptions)
    assert json.loads(json.dumps(ask().to_json()))["bytes_per_device"]["total"] == ask().bytes_per_device.total


def test_question_takes_its_shape_from_data(tmp_path: Path):
    data, network = write_checkerboard(tmp_path / "samples.txt"), write_network(tmp_path / "network.json")
    lines = [line.split("\t")[1] for line in data.read_text().splitlines()]
    question = Question.of(network, data, (0, 0, 0.0), "adam")
    assert question.shape.samples == len(lines)
    assert question.shape.per_sample == pytest.approx(sum(len(line.split(":")) for line in lines) / len(lines))
    assert question.network.optimizer is not None
    assert question.network.optimizer.name is OPTIMIZERS["Adam"]


@pytest.mark.parametrize(
    ("data", "given", "optimizer", "named"),
    [
        (None, (10, 0, 1.0), "", "samples"),
        ("data", (10, 10, 1.0), "", "--data"),
        (None, (10, 10, 1.0), "Sprint", "Sprint"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(tmp_path: Path, data, given, optimizer: str, named: str):
    with pytest.raises(SettingsError, match=named):
        Question.of(write(tmp_path), data and tmp_path / data, given, optimizer)


def test_more_devices_than_there_are_is_refused(tmp_path: Path):
    network = read_network(write(tmp_path))
    with pytest.raises(SettingsError, match="devices: from 1 to 8"):
        capacity(network, DataShape(500, 10, 5.0), TrainSettings(), devices=9)


def test_more_items_than_ids_is_refused(tmp_path: Path):
    network = read_network(write(tmp_path))
    with pytest.raises(SettingsError, match="items: from 1 to"):
        capacity(network, DataShape(2**31, 10, 5.0), TrainSettings(), devices=8)


def test_fewest_keeps_the_data_shards(ask):
    assert {fit.fewest for fit in ask(items=1000, batch=99, mesh=(3, 2)).gpus} == {3}


def test_loops_count_as_often_as_they_run():
    mesh = make_mesh(1)

    def looped(blocks: jax.Array, x: jax.Array) -> jax.Array:
        def of_shard(own: jax.Array, x: jax.Array) -> jax.Array:
            def body(total: jax.Array, block: jax.Array):
                return total + jax.lax.psum(x @ block, "model"), None

            return jax.lax.scan(body, jnp.zeros((32, 64), jnp.float32), own)[0]

        return jax.shard_map(of_shard, mesh=mesh, in_specs=(P(None, "model"), P(None, "model")), out_specs=P())(
            blocks, x
        )

    split = NamedSharding(mesh, P(None, "model"))
    blocks = jax.ShapeDtypeStruct((5, 8 * 16, 64), jnp.float32, sharding=split)
    x = jax.ShapeDtypeStruct((32, 8 * 16), jnp.float32, sharding=split)
    program = CompiledProgram(jax.jit(looped).lower(blocks, x).compile().as_text())
    assert program.repeated_flops() == 4 * 2 * 32 * 16 * 64
    (one,) = program.collectives(8)
    assert (one.name, one.shape, one.bytes, one.count, one.devices) == ("all-reduce", "f32[32,64]", 32 * 64 * 4, 5, 8)


@pytest.mark.parametrize(
    ("attributes", "devices"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 4),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("replica_groups=mesh['a'=8] {'a':(1)2}", 2),
        ("replica_groups={}", 8),
    ],
)
def test_groups_are_read_in_every_notation(attributes: str, devices: int):
    text = f"ENTRY %main (x: f32[2]) -> f32[4] {{\n  ROOT %y = f32[4]{{0}} all-gather(%x), {attributes}\n}}"
    assert [(one.devices, one.bytes) for one in CompiledProgram(text).collectives(8)] == [(devices, 16)]


@pytest.mark.parametrize(
    "attributes",
    ["replica_groups={{0},{1}}", "replica_groups=[8,1]<=[8]", "replica_groups=mesh['a'=1,'b'=8] {'a'}"],
)
def test_groups_of_one_device_do_not_count(attributes: str):
    text = f"ENTRY %main (x: f32[2]) -> f32[2] {{\n  ROOT %y = f32[2]{{0}} all-reduce(%x), {attributes}\n}}"
    assert list(CompiledProgram(text).collectives(8)) == []


def test_ten_million_items_are_answered_in_two_gibibytes(tmp_path: Path):
    asked = ["--items", "10000000", "--samples", "1000000", "--per-sample", "100", "--devices", "8", "--json"]
    # KiB. A limit set by `preexec_fn` would fork a process that has JAX's threads.
    limited = ["sh", "-c", 'ulimit -d 2097152 && exec "$0" "$@"', sys.executable]
    command = [*limited, "-m", "trainer", "capacity", "--network", write(tmp_path, hidden=1024), *asked]
    quick = {**os.environ, "XLA_FLAGS": quick_xla.FLAGS}
    done = subprocess.run(command, cwd=ROOT, env=quick, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # [10,000,000 × 1,024] in and out, float32, an eighth of it on each device
    assert told["bytes_per_device"]["parameters"] == pytest.approx(2 * 10_000_000 * 1024 * 4 / 8, rel=0.02)
    assert told["collective_bytes"] <= 3 * 256 * 1024 * 4
    assert told["steps_per_epoch"] == 3907
