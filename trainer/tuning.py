"""Looks for the best values of a network's open ones: trials over a Sobol sequence, each trained on the training
samples and judged on validation samples, and ended early if it falls behind most before it. Every trial is on the disk
when it ends, and a second call goes on; the test part of the data is never seen.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.stats import qmc

from trainer.content import wants_attributes
from trainer.data.load import load_data
from trainer.data.split import HeldOut
from trainer.data.split_files import read_split
from trainer.data.validation import can_hold_out, hold_out_features, hold_out_samples
from trainer.ending import train_to_its_end
from trainer.errors import InputError, Interrupted, NonFiniteError, SettingsError
from trainer.filing import replacing
from trainer.fitting import training_data
from trainer.inputs import Inputs, attributes_of, fitted, read_widest, without_open
from trainer.jsontree import Node
from trainer.network import network_of, read_network, read_tree
from trainer.network_types import NetworkSpec
from trainer.pace import EarlyStopping, metric_k, pace_of
from trainer.ranges import Open, closed, corners, open_values
from trainer.rundir import RunDirectory
from trainer.settings import JobSpec, TrainSettings
from trainer.sparse import SparseDataset
from trainer.train import EpochReport, digest_of

Say = Callable[[str], None]

_JOURNAL, _TABLE, _BEST = "trials.jsonl", "trials.txt", "best.json"
_MOST_TOLD = 10
"""Trials, the best first, that a job's log tells of."""
_IDLE = {"tune_trials", "tune_minutes", "k", "report_every"}
"""Settings that change no trial."""
_MOST_REPEATED = 4096
"""Points in a row that bring nothing new, after which every combination counts as tried."""
_FEWEST_OTHERS, _FIRST_EPOCH = 4, 5
"""A trial is compared with the others from this epoch on, where so many have come as far."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for."""

    network: Path
    """JSON with open values."""
    out: Path
    trials: int
    """In the folder altogether, those of earlier calls too."""
    seed: int
    minutes: float = float("inf")
    """After which no trial is begun."""
    metric: str = ""
    """`""`: that of the network's early stopping, else ndcg@100."""
    settings: TrainSettings | None = None
    """Of every trial, but for the seed."""
    in_all: bool = False
    """The minutes of earlier calls count, too: killed and called again it ends at the same trials."""
    asked_to_end: Callable[[], bool] = lambda: False
    """After an epoch it then raises `Interrupted`; called again, it begins that trial anew."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What trials are trained on and judged by; neither may hold anything of what is tested with later."""

    training: SparseDataset
    validation: HeldOut
    source: Path
    """Of which errors speak."""
    attributes: SparseDataset | None = None
    """Items × attributes, where the network asks for them."""

    @classmethod
    def of_split(cls, folder: Path) -> Self:
        """The training and the validation part of a split that `trainer split` wrote."""
        split = read_split(folder)
        if split.validation is None:
            raise SettingsError(
                f"split: {folder} has no validation part to judge by; make it anew with --validation-part"
            )
        return cls(split.training, split.validation, folder)

    @classmethod
    def kept_from(cls, inputs: Inputs, source: Path, *, seed: int) -> Self:
        """What early stopping would keep of what a job trains on."""
        if not can_hold_out(inputs.training):
            raise InputError(f"{source}: no sample has five features, of which one could be kept to judge trials by")
        stopping = inputs.spec.training.stopping or EarlyStopping()
        training, validation = hold_out_features(inputs.training, share=stopping.validation, seed=seed)
        return cls(training, validation, source, inputs.attributes)

    @classmethod
    def taken_from(cls, data: Path, network: Path, *, share: float, seed: int) -> Self:
        """Validation samples taken out of a dataset, with the attributes that `network` asks for."""
        loaded, spec = load_data(data), read_widest(network)
        training, validation = hold_out_samples(loaded.dataset, share=share, seed=seed)
        wanted = wants_attributes((*spec.inputs, *spec.outputs))
        return cls(training, validation, data, attributes_of(data, loaded.features) if wanted else None)


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of `trials.jsonl`."""

    trial: int
    values: Mapping[str, Any]
    """By path."""
    state: str
    """complete, behind (ended early) or failed."""
    score: float | None
    """The metric of what training this network gives: of the epoch that is kept."""
    epoch: int
    """That the score is of."""
    curve: tuple[float, ...]
    """The metric after each epoch."""
    seconds: float
    problem: str = ""

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts the best trial first."""
        return (self.state != "complete", -(self.score or 0.0))


def tune(search: Search, samples: Samples, *, mesh: Mesh, say: Say) -> list[Trial]:
    """Try as many combinations as are wanted, or as there is time for; returns all trials, those of earlier calls too.
    Their best network lies in `best.json`.
    """
    if search.metric and metric_k(search.metric) is None:
        raise SettingsError(f"metric: {search.metric} is none; ndcg@100 is one")
    started, root = time.monotonic(), read_tree(search.network)
    opened = open_values(root)
    _check_ends(root, opened, samples)
    journal = _Journal(search.out, _head(search, root, samples))
    trials = journal.trials
    for values in _combinations(opened, search.seed, before=trials):
        # By the journal alone, so that a call that comes after a kill decides alike.
        spent = sum(trial.seconds for trial in trials) if search.in_all else time.monotonic() - started
        if len(trials) >= search.trials or spent > search.minutes * 60:
            break
        begun = time.monotonic()
        tried = _tried(network_of(closed(root, _by_place(opened, values))), search, samples, mesh, trials)
        trial = replace(tried, trial=len(trials) + 1, values=values, seconds=round(time.monotonic() - begun, 3))
        journal.add(trial)
        trials.append(trial)
        say(f"trial {trial.trial}/{search.trials}: {_outcome(trial)}; {_values_text(trial)}")
        _write_results(search.out, root, opened, trials)
    _write_results(search.out, root, opened, trials)
    return trials


def tuned(
    inputs: Inputs,
    network: Path,
    job: JobSpec,
    directory: RunDirectory,
    *,
    mesh: Mesh,
    say: Say,
    asked_to_end: Callable[[], bool] = lambda: False,
) -> Inputs:
    """A job's inputs with the best network of as many trials as it asks for of what `network` leaves open. `inputs` are
    with any of its values; nothing that is held out is looked at. Trials lie with the checkpoints, to go on from, and
    in the run directory when they are done.
    """
    if jax.process_count() > 1:
        raise SettingsError("tune_trials: several processes that train as one cannot tune; tune on one machine first")
    settings, source, out = without_open(network, job.settings), directory.path / job.data, directory.tuning
    minutes = settings.tune_minutes or float("inf")
    search = Search(network, out, settings.tune_trials, settings.seed, minutes, "", settings, True, asked_to_end)
    trials = tune(search, Samples.kept_from(inputs, source, seed=settings.seed), mesh=mesh, say=say)
    for name in (_JOURNAL, _TABLE, _BEST):
        if (out / name).exists():
            directory.write(name, (out / name).read_text(encoding="utf-8"))
    for line in table(trials, most=_MOST_TOLD).splitlines():
        say(line)
    if not any(trial.state == "complete" for trial in trials):
        raise InputError(f"{out / _JOURNAL}: no trial came to its end; give tuning more time, or other ranges")
    spec = fitted(read_network(out / _BEST), inputs.loaded.dataset, source, inputs.attributes)
    return replace(inputs, spec=spec)


def table(trials: Sequence[Trial], *, most: int | None = None) -> str:
    """The trials as aligned lines, best first."""
    ordered = sorted(trials, key=lambda one: one.rank)[:most]
    names = _short_names(ordered[0].values) if ordered else []
    rows = [["trial", "score", "epoch", "state", *names]]
    for one in ordered:
        score = "" if one.score is None else f"{one.score:.4f}"
        rows.append([str(one.trial), score, str(one.epoch), one.state, *map(_text, one.values.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


class _Behind(Exception):
    """Ends a trial that does worse than most did at its epoch."""


def _tried(spec: NetworkSpec, search: Search, samples: Samples, mesh: Mesh, before: Sequence[Trial]) -> Trial:
    """How a network does; its number, values and seconds are left open."""
    spec = fitted(spec, samples.training, samples.source, samples.attributes)
    settings = (search.settings or TrainSettings()).model_copy(update={"seed": search.seed})
    pace = pace_of(spec.training, settings)
    stated = pace.stopping or EarlyStopping(patience=max(pace.epochs, 1))
    rule = replace(stated, metric=search.metric or stated.metric)
    curve: list[float] = []

    def tell(report: EpochReport) -> None:
        if report.judged is not None:
            curve.append(report.judged.value)
        if search.asked_to_end():
            raise Interrupted(f"asked to end after {len(before)} trials; begun again, the tuning goes on from there")
        if _is_behind(curve, [trial.curve for trial in before]):
            raise _Behind

    def ended(state: str, score: float | None, epoch: int, problem: str = "") -> Trial:
        return Trial(0, {}, state, score, epoch, tuple(curve), 0.0, problem)

    try:
        trained = train_to_its_end(
            spec,
            training_data(spec, samples.training, samples.attributes),
            settings,
            mesh=mesh,
            tell=tell,
            validation=samples.validation,
            stopping=rule,
            attributes=samples.attributes,
        )
    except _Behind:
        return ended("behind", max(curve), len(curve))
    except NonFiniteError as error:
        return ended("failed", None, len(curve), str(error))
    if trained.judged is None:
        return ended("failed", None, 0, "it is trained for no epoch")
    # Without early stopping of its own the network is as its last epoch leaves it.
    if pace.stopping is None:
        return ended("complete", curve[-1], len(curve))
    return ended("complete", trained.judged.best, trained.judged.best_epoch)


def _is_behind(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    epoch = len(curve)
    reached = [max(other[:epoch]) for other in others if len(other) >= epoch]
    return epoch >= _FIRST_EPOCH and len(reached) >= _FEWEST_OTHERS and max(curve) < float(np.median(reached))


def _combinations(opened: Sequence[Open], seed: int, *, before: Sequence[Trial]) -> Iterator[dict[str, Any]]:
    """Values by path, each combination once and none that was tried: the same ones in the same order for a seed."""
    points = qmc.Sobol(len(opened), rng=np.random.default_rng(seed))
    seen, repeated = {json.dumps(trial.values) for trial in before}, 0
    while repeated < _MOST_REPEATED + len(before):
        shares = points.random(1)[0].tolist()
        values = {one.path: one.pick(share) for one, share in zip(opened, shares, strict=True)}
        known = json.dumps(values)
        repeated = repeated + 1 if known in seen else 0
        if not repeated:
            seen.add(known)
            yield values


def _check_ends(root: Node, opened: Sequence[Open], samples: Samples) -> None:
    """Refuse ends of ranges that no network can have, before hours are spent."""
    for values in corners(opened):
        spec = network_of(closed(root, values))
        if samples.attributes is None and wants_attributes((*spec.inputs, *spec.outputs)):
            raise SettingsError(f"{samples.source}: the network wants attributes, which a split does not keep")
        fitted(spec, samples.training, samples.source, samples.attributes)


def _by_place(opened: Sequence[Open], values: Mapping[str, Any]) -> dict[tuple[str | int, ...], Any]:
    return {one.place: values[one.path] for one in opened}


def _write_results(folder: Path, root: Node, opened: Sequence[Open], trials: Sequence[Trial]) -> None:
    """The table, and the best network."""
    _write(folder / _TABLE, table(trials) + "\n")
    best = min(trials, key=lambda one: one.rank, default=None)
    if best is not None and best.state == "complete":
        network = closed(root, _by_place(opened, best.values))
        _write(folder / _BEST, json.dumps(network.value, indent=2, ensure_ascii=False) + "\n")


def _head(search: Search, root: Node, samples: Samples) -> dict[str, Any]:
    """What trials must have in common to be compared."""
    parts = (samples.training, samples.validation.known, samples.validation.wanted)
    network = json.dumps(root.value, sort_keys=True)
    stated = {} if search.settings is None else {"settings": search.settings.model_dump_json(exclude=_IDLE)}
    return stated | {
        "network": hashlib.sha256(network.encode()).hexdigest(),
        "samples": hashlib.sha256(b"".join(map(digest_of, parts))).hexdigest(),
        "seed": search.seed,
        "metric": search.metric,
    }


class _Journal:
    """`trials.jsonl`: a line about the search, then one a trial, each on the disk before the next begins."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._path = folder / _JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            whole = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise InputError(f"{folder}: trials cannot be kept there: {error.strerror}") from error
        # A line that a kill cut short has no end.
        good = whole[: whole.rfind(b"\n") + 1]
        if len(good) < len(whole):
            os.truncate(self._path, len(good))
        try:
            lines = [json.loads(line) for line in good.splitlines()]
            self.trials = [_trial_of(line) for line in lines[1:]]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self._path}: these are no trials: {error}; give another folder") from error
        if not lines:
            self._append(head)
        elif lines[0] != head:
            raise InputError(
                f"{self._path}: these trials are of another network, other data, another seed or metric; "
                "give another folder"
            )

    def add(self, trial: Trial) -> None:
        self._append(asdict(trial))

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _trial_of(line: Mapping[str, Any]) -> Trial:
    told: dict[str, Any] = {**line, "curve": tuple(line["curve"])}
    return Trial(**told)


def _write(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _outcome(trial: Trial) -> str:
    if trial.score is None:
        return f"failed: {trial.problem}"
    return f"{trial.score:.4f} at epoch {trial.epoch}{' (behind)' if trial.state == 'behind' else ''}"


def _values_text(trial: Trial) -> str:
    names = _short_names(trial.values)
    return ", ".join(f"{name} {_text(value)}" for name, value in zip(names, trial.values.values(), strict=True))


def _short_names(paths: Mapping[str, Any]) -> list[str]:
    """Each path's last word, or the whole path where words are the same."""
    last = [path.rpartition(".")[2] for path in paths]
    return [word if last.count(word) == 1 else path.removeprefix("$.") for word, path in zip(last, paths, strict=True)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
