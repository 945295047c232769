"""The rows' jobs done one after the other, those that are missing, and what is kept of the others found."""

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks import machine
from benchmarks.quality.grounds import Ground, Say, settings_of
from benchmarks.quality.rows import MODELS, Model, Row
from benchmarks.quality.store import About, Job, Measurement, Store
from trainer.errors import TrainerError
from trainer.settings import TrainSettings

BySeed = Mapping[int, Measurement]


class Opens(Protocol):
    """Makes what a row measures on with a seed, as `grounds.open_ground`."""

    def __call__(self, row: Row, seed: int, *, data: Path, work: Path) -> Ground:
        """Of the folder of all data, and a folder to write to."""
        ...


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be measured now; what is kept of the rest is found all the same."""

    rows: frozenset[str]
    models: frozenset[str] = frozenset()
    """Of those that each row has; none: all of them."""
    also: frozenset[str] = frozenset()
    """Besides, of those that a row leaves out."""
    seeds: int | None = None
    """So many of each row's; `None`: all."""
    epochs: int | None = None
    """Of every network, whatever it states."""

    def wanted(self, row: Row, seed: int) -> frozenset[str]:
        """The models that are to be measured."""
        if row.name not in self.rows or seed not in row.seeds[: self.seeds]:
            return frozenset()
        usual = frozenset(row.models)
        return (usual & (self.models or usual)) | (frozenset(row.more) & self.also)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a row."""

    row: Row
    models: Mapping[str, BySeed]
    """By model and seed; a model of the row may be missing, and so may seeds of it."""
    problem: str = ""
    """Why there is nothing at all."""
    failed: Sequence[str] = ()
    """Models and seeds that ended with an error."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Measures rows. Errors of the trainer are said, and cost no more than what they were raised for."""

    data: Path
    """Has the folders of all data."""
    store: Store
    wishes: Wishes
    opens: Opens
    say: Say
    models: Mapping[str, Model] = field(default_factory=lambda: MODELS)

    def found(self, rows: Sequence[Row]) -> Iterator[Found]:
        """Each row that was asked for, or of which something is kept."""
        for row in rows:
            if row.name in self.wishes.rows or any(self.store.has(row.name, seed) for seed in row.seeds):
                yield self._row(row)

    def _row(self, row: Row) -> Found:
        if not (self.data / row.folder).is_dir():
            self.say(f"{row.name}: left out, since {self.data} has no folder {row.folder}")
            return Found(row, {}, f"Left out: no folder `{row.folder}` was among the data.")
        models: dict[str, dict[int, Measurement]] = {}
        failed: list[str] = []
        for seed in row.seeds:
            if not self.wishes.wanted(row, seed) and not self.store.has(row.name, seed):
                continue
            try:
                ground = self.opens(row, seed, data=self.data, work=self.store.folder)
            except TrainerError as error:
                self.say(f"{row.name}: {error}")
                return Found(row, {}, "Left out: its data cannot be used.")
            for name, measurement in self._on(ground, row, seed):
                if measurement is None:
                    failed.append(f"{name}, seed {seed}")
                else:
                    models.setdefault(name, {})[seed] = measurement
        return Found(row, models, failed=failed)

    def _on(self, ground: Ground, row: Row, seed: int) -> Iterator[tuple[str, Measurement | None]]:
        """What is kept or measured now, by model; `None` where that failed."""
        wanted = self.wishes.wanted(row, seed)
        for name in (*row.models, *row.more):
            model = self.models[name]
            settings = settings_of(row, model, seed, epochs=self.wishes.epochs)
            job = Job.of(row.name, model, settings, ground=ground.digest)
            kept = self.store.find(job)
            if kept is not None:
                yield name, kept
            elif name in wanted:
                yield name, self._measured(job, ground, model, settings)

    def _measured(self, job: Job, ground: Ground, model: Model, settings: TrainSettings) -> Measurement | None:
        self.say(f"{job.row}, seed {job.seed}: {job.model}")
        started = time.perf_counter()
        try:
            outcome = ground.measure(model, settings, say=lambda line: self.say(f"  {line}"))
        except TrainerError as error:
            self.say(f"{job.row}, seed {job.seed}: {job.model} failed: {error}")
            return None
        about = About(
            key=job.key,
            described=outcome.described,
            seconds=time.perf_counter() - started,
            date=dt.datetime.now(dt.UTC).date().isoformat(),
            machine=machine.described(),
        )
        measurement = Measurement(outcome.result, about)
        self.store.keep(job, measurement)
        return measurement
