"""The loop: where it stops, how it goes on, and what it says of an epoch."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_xla
from trainer_networks import chain, mesh_of, random_rows, with_layer

from trainer import train as training
from trainer.compilations import compilations_of
from trainer.deal import with_deals
from trainer.errors import InputError, Interrupted, NonFiniteError
from trainer.network_types import Activation, NetworkSpec, OptimizerName, OptimizerSpec, Schedule, Sparseness
from trainer.optimizer import make_optimizer
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.state import Step, StepReport, weights_of
from trainer.train import Checkpoints, EpochReport, TrainingData, train

INPUTS, OUTPUTS, SAMPLES = 24, 16, 22
SETTINGS = TrainSettings(batch_size=4, epochs=3, seed=3)
STEPS = 18
SLOW = SETTINGS.model_copy(update={"epochs": 12})
"""72 steps."""


def dataset(name: str, width: int, seed: int) -> SparseDataset:
    rows = random_rows(SAMPLES, width, seed=seed)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return SparseDataset(name, width, indptr, np.array([f for row in rows for f in row], np.uint32))


def everything_random(**own: Any) -> NetworkSpec:
    """Order, denoising, dropout, statistics and momentum all have something to remember."""
    spec = chain(
        (INPUTS, OUTPUTS),
        hidden=(6, 4),
        activation=Activation.TANH,
        denoising=0.3,
        decay=0.05,
        sparseness=Sparseness(0.3, 0.5),
        optimizer=OptimizerSpec(OptimizerName.ADAM, 0.02, warmup=3, schedule=Schedule.COSINE),
        **own,
    )
    return with_layer(with_layer(spec, 1, dropout=0.2), 2, batch_normalization=True)


IN, OUT = dataset("in", INPUTS, 1), dataset("out", OUTPUTS, 2)
DATA = TrainingData({"Input0": IN}, {"Output3": OUT})


def trained(
    checkpoints: Checkpoints | None = None,
    *,
    settings: TrainSettings = SETTINGS,
    mesh: tuple[int, int] = (1, 2),
    data: TrainingData = DATA,
    **own: Any,
) -> tuple[list[np.ndarray], list[EpochReport]]:
    """Everything learnt, and the reports."""
    spec, reports = everything_random(**own), list[EpochReport]()
    state = train(spec, data, settings, mesh=mesh_of(mesh), tell=reports.append, checkpoints=checkpoints)
    weights = weights_of(state, spec)
    arrays = [array for part in (*weights.connections, *weights.batch_norms.values()) for array in part]
    return [array for array in arrays if array is not None], reports


@cache
def uninterrupted() -> tuple[list[np.ndarray], list[EpochReport]]:
    return trained(settings=SLOW)


class Killed(Exception):
    pass


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Its one number is how many steps are done before the next one kills."""
    left: list[int] = [10 * STEPS]
    # One network, one program: it is compiled once for all trials.
    spec = with_deals(everything_random(), ["Input0", "Output3"], shards=2)
    step = training.make_step(spec, SLOW, mesh_of((1, 2)), steps=4 * STEPS)

    def mortal(*_: Any, **__: Any) -> Step:

        def killing(*given: Any) -> tuple[Any, StepReport]:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return step(*given)

        return killing

    monkeypatch.setattr(training, "make_step", mortal)
    return left


def test_killed_at_eight_random_steps_in_a_row_it_ends_at_the_same_weights(tmp_path: Path, killer: list[int]) -> None:
    expected, reports = uninterrupted()
    saved = Checkpoints(tmp_path, steps=2)
    rng = np.random.default_rng(20)
    for _ in range(8):
        # Two steps at least, so that some are done for good; what follows the last checkpoint is done again.
        killer[0] = int(rng.integers(2, 5))
        with pytest.raises(Killed):
            trained(saved, settings=SLOW)
    killer[0] = 10 * STEPS
    found, rest = trained(saved, settings=SLOW)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert [report.loss for report in rest] == [report.loss for report in reports][-len(rest) :]


@pytest.mark.usefixtures("killer")
def test_asked_to_end_it_saves_after_the_step_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    expected, _ = trained(settings=SLOW)
    # In the middle of an epoch, at its last step, after its last step.
    for steps in (4, 2, 7):
        answers = iter([False] * (steps - 1) + [True])
        with pytest.raises(Interrupted, match="goes on from there"):
            trained(
                Checkpoints(tmp_path, seconds=1e9, asked_to_end=lambda answers=answers: next(answers)), settings=SLOW
            )
    found, rest = trained(Checkpoints(tmp_path, seconds=1e9), settings=SLOW)
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
    assert rest[0].epoch > 1


def test_asked_to_end_when_it_is_done_it_says_what_it_has_learnt(tmp_path: Path, killer: list[int]) -> None:
    expected, reports = trained(settings=SLOW)
    answers = iter([False] * (4 * STEPS) + [False] * 11 + [True])
    done = trained(Checkpoints(tmp_path, seconds=1e9, asked_to_end=lambda: next(answers)), settings=SLOW)
    assert [report.loss for report in done[1]] == [report.loss for report in reports]
    again, rest = trained(Checkpoints(tmp_path), settings=SLOW)
    assert (rest, killer[0]) == ([], 10 * STEPS - 8 * STEPS)
    for array, wanted in zip(again, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_a_process_killed_with_signal_9_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__)), str(tmp_path / "saved"), str(tmp_path / "weights.npz")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "XLA_FLAGS": quick_xla.FLAGS}
    child = subprocess.Popen(program, env=environment)
    end = time.monotonic() + 120
    while not list((tmp_path / "saved").glob("[0-9]*")):
        assert time.monotonic() < end, "it leaves no checkpoint"
        assert child.poll() is None, "it ended before it left a checkpoint"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "weights.npz").exists()
    subprocess.run([*program, "100"], env=environment, check=True, timeout=120)
    expected = uninterrupted()[0]
    with np.load(tmp_path / "weights.npz") as found:
        for name, wanted in zip(found.files, expected, strict=True):
            np.testing.assert_array_equal(found[name], wanted)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, steps=5)
    trained(saved)
    others: list[dict[str, Any]] = [
        {"settings": SETTINGS.model_copy(update={"seed": 4})},
        # A cosine falls over the whole run: with more epochs every rate was another.
        {"settings": SLOW},
        {"delta_boost": replace_boost()},
        {"data": TrainingData(DATA.inputs, {"Output3": replace(OUT, ignore_zero=True)})},
        {"data": TrainingData(DATA.inputs, {"Output3": replace(OUT, weights=np.ones(SAMPLES, np.float32))})},
        {"data": TrainingData({"Input0": replace(IN, values=np.ones(IN.nnz, np.float32))}, DATA.targets)},
    ]
    for other in others:
        with pytest.raises(InputError, match="this checkpoint is of another network, other data or other settings"):
            trained(saved, **other)


def replace_boost() -> Any:
    return replace(everything_random().delta_boost, one=2.0)


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, steps=STEPS)
    expected, reports = trained(saved)
    found, again = trained(saved)
    assert len(reports) == 3
    assert len(again) <= 1
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_a_checkpoint_goes_on_on_another_mesh(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path, steps=7)
    expected = trained(saved)[0]
    found = trained(saved, mesh=(1, 8))[0]
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    spec = replace(everything_random(), optimizer=OptimizerSpec(OptimizerName.SGD, 1e30))
    with pytest.raises(NonFiniteError, match="between steps 1 and 6"):
        train(spec, DATA, SETTINGS, mesh=mesh_of((1, 1)), tell=lambda _: None)


def test_a_training_compiles_its_step_once_for_each_size_of_batch_however_many_epochs_it_has() -> None:
    features, samples = 640, 102
    sizes = np.full(samples, 3)
    # Any batch of every epoch may be the one that is larger than the others.
    sizes[samples // 2] = 600
    rows = [np.sort(np.arange(7 * row, 7 * row + size) % features) for row, size in enumerate(sizes)]
    data = SparseDataset(
        "in", features, np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(rows).astype(np.uint32)
    )
    both = TrainingData({"Input0": data}, {"Output2": data})
    assert samples % SETTINGS.batch_size > 0, "the last batch is to be a short one"
    with compilations_of("step") as compiled:
        settings = SETTINGS.model_copy(update={"epochs": 4})
        train(chain((features, features), hidden=(4,)), both, settings, mesh=mesh_of((1, 1)), tell=lambda _: None)
    assert compiled.count == 2
    assert compiled.seconds > 0


def test_after_epoch_sees_the_start_and_every_epoch() -> None:
    seen: list[tuple[int, int]] = []
    train(
        everything_random(),
        DATA,
        SETTINGS,
        mesh=mesh_of((1, 1)),
        tell=lambda _: None,
        after_epoch=lambda epoch, state: seen.append((epoch, int(state().step))),
    )
    assert seen == [(0, 0), (1, 6), (2, 12), (3, 18)]


def rates(asked: OptimizerSpec, steps: int, **settings: Any) -> list[float]:
    """The learning rate of every step, by how far a weight of gradient 1 moves."""
    spec = replace(everything_random(), optimizer=asked, decay=0.0)
    optimizer = make_optimizer(spec, TrainSettings(l2=0.0, **settings), steps=steps)
    params = {"hidden": {"1": {"kernel": jnp.zeros(())}}}
    state, found = optimizer.init(params), list[float]()
    for _ in range(steps):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        found.append(-float(updates["hidden"]["1"]["kernel"]))
    return found


def test_the_rate_warms_up_and_falls_by_half_a_cosine() -> None:
    sgd = OptimizerSpec(OptimizerName.SGD, 0.5, 0.0)
    np.testing.assert_allclose(rates(replace(sgd, warmup=4), 6), 0.5 * np.array([0.25, 0.5, 0.75, 1, 1, 1]))
    cosine = replace(sgd, schedule=Schedule.COSINE, warmup=2)
    done = np.array([0.0, 0.0, 0.0, 0.25, 0.5, 0.75])
    expected = 0.5 * np.array([0.5, 1, 1, 1, 1, 1]) * 0.5 * (1 + np.cos(np.pi * done))
    np.testing.assert_allclose(rates(cosine, 6), expected, rtol=1e-5)
    np.testing.assert_allclose(rates(replace(cosine, steps=4), 6)[4:], 0.0, atol=1e-7)
    intervals = rates(sgd, 6, epochs=3, rate_interval=1, rate_factor=0.1)
    np.testing.assert_allclose(intervals, 0.5 * np.array([1, 1, 0.1, 0.1, 0.01, 0.01]), rtol=1e-5)


def test_a_gradient_is_clipped_by_the_length_of_all_of_it() -> None:
    spec = replace(everything_random(), optimizer=OptimizerSpec(OptimizerName.SGD, 1.0, 0.0, clip=2.0), decay=0.0)
    optimizer = make_optimizer(spec, TrainSettings(l2=0.0))
    gradient = {"hidden": {"1": {"kernel": jnp.array([3.0, 0.0]), "bias": jnp.array([4.0])}}}
    updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(updates["hidden"]["1"]["kernel"], [-1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["hidden"]["1"]["bias"], [-1.6], rtol=1e-6)


def main(saved: str, result: str, steps: str = "1") -> None:
    """A training slow enough to be killed, unless it has more `steps` from checkpoint to checkpoint."""
    start = Checkpoints(Path(saved), steps=int(steps))
    np.savez(result, *trained(start, settings=SLOW)[0])


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main(*sys.argv[1:])
