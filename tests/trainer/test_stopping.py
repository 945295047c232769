"""Early stopping: what it keeps, when it ends, and that a kill changes nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainer_networks import chain, dataset_of, mesh_of, random_rows, with_layer

from trainer import train as training
from trainer.content import PROFILES
from trainer.data.split import HeldOut, hold_out
from trainer.data.validation import hold_out_features
from trainer.ending import Trained, measure_of, train_to_its_end
from trainer.errors import InputError
from trainer.fitting import training_data
from trainer.network_types import Activation, Negatives, NetworkSpec, OptimizerName, OptimizerSpec, Sampling
from trainer.pace import EarlyStopping, TrainingSpec
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset
from trainer.state import TrainState, create_state, in_order, weights_of
from trainer.stopping import Measure, Stopper
from trainer.train import Checkpoints, EpochReport, TrainingData, train

WIDTH, SAMPLES = 24, 30
ROWS = random_rows(SAMPLES, WIDTH, seed=5, most=9)
WHOLE: SparseDataset = dataset_of(ROWS, WIDTH)
DATA = TrainingData({"Input0": WHOLE}, {"Output2": WHOLE})
SETTINGS = TrainSettings(batch_size=8, epochs=9, seed=3)
VALUES = [0.1, 0.5, 0.4, 0.5, 0.3, 0.6, 0.2, 0.2, 0.2]


@pytest.fixture(autouse=True, scope="module")
def compiled_once() -> Iterator[None]:
    """One network, one program for all trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_step", lru_cache(training.make_step))
        yield


def spec_of(**own: Any) -> NetworkSpec:
    """Dealt and sampled, with momentum and noise to remember."""
    spec = chain(
        (WIDTH, WIDTH),
        hidden=(6,),
        activation=Activation.TANH,
        denoising=0.3,
        optimizer=OptimizerSpec(OptimizerName.ADAM, 0.03),
        **own,
    )
    return with_layer(spec, 2, sampling=Sampling(Negatives.UNIFORM, 16))


def injected(values: Iterable[float] = VALUES) -> Measure:
    """A measure that tells these values, one a time."""
    told = iter(values)
    return lambda _: next(told)


def by_weights(state: TrainState) -> float:
    """A number that depends on every weight, and rises and falls from epoch to epoch."""
    return sum(float(np.sin(3000 * np.asarray(leaf)).sum()) for leaf in jax.tree.leaves(state.params))


def arrays(state: TrainState, spec: NetworkSpec) -> list[np.ndarray]:
    return [one for part in weights_of(state, spec).connections for one in part if one is not None]


def trained(stopper: Stopper, **own: Any) -> tuple[list[np.ndarray], list[list[np.ndarray]], list[EpochReport]]:
    """What is returned, what there was after each epoch from 0 on, and the reports."""
    spec, reports, epochs = spec_of(), list[EpochReport](), list[list[np.ndarray]]()

    def after_epoch(_: int, state: Callable[[], TrainState]) -> None:
        epochs.append(arrays(state(), spec))

    given = {"tell": reports.append, "after_epoch": after_epoch, **own}
    state = train(spec, DATA, SETTINGS, mesh=mesh_of((1, 2)), stopper=stopper, **given)
    return arrays(state, spec), epochs, reports


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("patience", "least", "ended", "best"), [(2, 0, 4, 2), (3, 0, 5, 2), (2, 6, 8, 6), (4, 0, 10, 6), (9, 0, 15, 6)]
)
def test_it_ends_when_patience_is_out_and_keeps_the_first_best_epoch(
    patience: int, least: int, ended: int, best: int
) -> None:
    values = [*VALUES, *[0.2] * 9]
    stopper = Stopper(EarlyStopping(patience=patience, min_epochs=least), injected(values))
    mesh = mesh_of((1, 2))
    state = in_order(create_state(spec_of(), SETTINGS, mesh), spec_of(), mesh)
    epoch = 0
    while not stopper.ended:
        epoch += 1
        now = state._replace(step=jnp.int32(epoch))
        judged = stopper.after_epoch(epoch, lambda now=now: now)
        assert (judged.value, judged.best) == (values[epoch - 1], max(values[:epoch]))
    assert epoch == ended
    assert stopper.best_epoch == stopper.kept["step"] == best


def test_a_training_ends_early_and_returns_the_best_epoch() -> None:
    stopper = Stopper(EarlyStopping(patience=2), injected())
    found, epochs, reports = trained(stopper)
    assert len(reports) == 4
    assert reports[-1].seconds_left == 0
    assert same(found, epochs[2])
    assert not same(found, epochs[4])


class Killed(Exception):
    pass


def test_killed_again_and_again_it_keeps_the_same_epoch_bit_for_bit(tmp_path: Path) -> None:
    rule = EarlyStopping(patience=3)
    expected, _, reports = trained(whole := Stopper(rule, by_weights))
    assert 1 <= whole.best_epoch < len(reports) < 9, "the measure rises and falls"
    killed = 0

    def tell(report: EpochReport) -> None:
        nonlocal killed
        if report.epoch >= killed + 2:
            killed = report.epoch
            raise Killed

    # Four steps an epoch: some checkpoints lie within one.
    saved = Checkpoints(tmp_path, steps=3, seconds=0.0)
    for _ in range(len(reports) // 2):
        with pytest.raises(Killed):
            trained(Stopper(rule, by_weights), tell=tell, checkpoints=saved)
    found, _, rest = trained(last := Stopper(rule, by_weights), checkpoints=saved)
    assert same(found, expected)
    assert last.judged == whole.judged
    assert [report.judged for report in rest] == [report.judged for report in reports][len(reports) - len(rest) :]
    with pytest.raises(InputError, match="this checkpoint is of another network, other data or other settings"):
        trained(Stopper(rule, by_weights, about="other samples"), checkpoints=saved)


def ended(spec: NetworkSpec, **own: Any) -> tuple[Trained, list[EpochReport]]:
    reports = list[EpochReport]()
    mesh = mesh_of((1, 2))
    return train_to_its_end(spec, DATA, SETTINGS, mesh=mesh, **{"tell": reports.append, **own}), reports


def test_the_state_returned_measures_as_the_best_that_was_told() -> None:
    rule = EarlyStopping("recall@5", patience=2, validation=0.4)
    spec = spec_of(training=TrainingSpec(stopping=rule))
    found, reports = ended(spec)
    _, validation = hold_out_features(WHOLE, share=0.4, seed=SETTINGS.seed)
    measure = measure_of(spec, mesh_of((1, 2)), validation, metric="recall@5", batch_size=8)
    assert found.judged is not None
    assert measure(found.state) == found.judged.best == max(one.judged.value for one in reports if one.judged)
    assert str(found) == f"kept epoch {found.epochs}: recall@5 {found.judged.best:.4f}"


def test_where_nobody_has_five_features_every_epoch_is_trained() -> None:
    few = dataset_of([row[:4] for row in ROWS], WIDTH)
    spec = spec_of(training=TrainingSpec(stopping=EarlyStopping(refit=True)))
    data = TrainingData({"Input0": few}, {"Output2": few})
    found = train_to_its_end(spec, data, SETTINGS, mesh=mesh_of((1, 2)), tell=lambda _: None)
    assert (found.epochs, found.judged, found.refit) == (SETTINGS.epochs, None, False)


def test_given_validation_samples_leave_all_data_for_training() -> None:
    known, wanted = hold_out(WHOLE, fraction=0.3, seed=1)
    rule = EarlyStopping("ndcg@3", patience=9, refit=True)
    found, reports = ended(spec_of(), validation=HeldOut(known, wanted), stopping=rule)
    plain = list[EpochReport]()
    train(spec_of(), DATA, SETTINGS, mesh=mesh_of((1, 2)), tell=plain.append)
    assert [report.loss for report in reports] == [report.loss for report in plain]
    assert not found.refit, "there is nothing more to train on"


def test_a_refit_trains_on_everything_for_the_best_number_of_epochs_though_killed(tmp_path: Path) -> None:
    spec = spec_of(training=TrainingSpec(stopping=EarlyStopping("ndcg@5", 2, 0.4, refit=True)))
    saved, before, after = Checkpoints(tmp_path, seconds=1e9), list[EpochReport](), list[EpochReport]()

    def tell(report: EpochReport) -> None:
        if report.refit:
            raise Killed
        before.append(report)

    with pytest.raises(Killed):
        ended(spec, checkpoints=saved, tell=tell)
    found, _ = ended(spec, checkpoints=saved, tell=after.append)
    assert found.refit
    assert found.judged == before[-1].judged
    best = max(before, key=lambda report: report.judged.value if report.judged else 0.0)
    assert [(report.refit, report.epoch) for report in after] == [(True, n) for n in range(1, best.epoch + 1)]
    alone = train(spec, DATA, SETTINGS, mesh=mesh_of((1, 2)), tell=lambda _: None, until=best.epoch)
    assert same(arrays(found.state, spec), arrays(alone, spec))


def test_profiles_are_made_of_what_is_left_to_train_on() -> None:
    rule = EarlyStopping("ndcg@5", patience=2, validation=0.4)
    spec = spec_of(training=TrainingSpec(stopping=rule))
    taste = replace(spec.input, name="Taste", dataset=PROFILES, shape=(6,))
    hidden = replace(spec.layers[1], sources=("Input0", "Taste"))
    spec = replace(spec, layers=(spec.input, taste, hidden, spec.output))
    attributes = dataset_of(random_rows(WIDTH, 6, seed=3, most=3), 6)
    data = training_data(spec, WHOLE, attributes)
    on = mesh_of((1, 2))
    found = train_to_its_end(spec, data, SETTINGS, mesh=on, tell=lambda _: None, attributes=attributes)
    rest, validation = hold_out_features(WHOLE, share=0.4, seed=SETTINGS.seed)
    left = training_data(spec, rest, attributes)
    alone = train(spec, left, SETTINGS, mesh=on, tell=lambda _: None, until=found.epochs)
    assert same(arrays(found.state, spec), arrays(alone, spec))
    measure = measure_of(spec, on, validation, metric="ndcg@5", batch_size=8, attributes=attributes)
    assert found.judged is not None
    assert measure(found.state) == found.judged.best


def test_layers_of_different_datasets_leave_none_to_be_kept_from_training() -> None:
    spec = spec_of(training=TrainingSpec(stopping=EarlyStopping()))
    data = TrainingData(DATA.inputs, {"Output2": replace(WHOLE)})
    with pytest.raises(InputError, match=r"EarlyStopping: .* only where every layer has the same sparse dataset"):
        train_to_its_end(spec, data, SETTINGS, mesh=mesh_of((1, 2)), tell=lambda _: None)
