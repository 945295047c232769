"""Measurements kept in the work folder, so that a second call does only what is missing: a model's values of every
user, which `trainer compare` reads too, and beside them what was measured when and how.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from benchmarks.quality.rows import Model
from trainer.comparing import Result, read_result, write_result
from trainer.errors import DataError
from trainer.filing import replacing
from trainer.jsontree import read_json
from trainer.settings import TrainSettings


class About(BaseModel):
    """How a measurement was made."""

    key: str
    """Two jobs of the same key give the same."""
    described: str
    """The model's settings in a few words."""
    seconds: float
    date: str
    machine: str


@dataclass(frozen=True, slots=True)
class Job:
    """One model of a row, with a seed."""

    row: str
    seed: int
    model: str
    key: str

    @classmethod
    def of(cls, row: str, model: Model, settings: TrainSettings, *, ground: str) -> "Job":
        """The job whose key changes with what is measured on, by its digest `ground`, with the settings, and with the
        network, comments and layout aside.
        """
        network = None if model.network is None else read_json(model.network).value
        told = json.dumps([ground, model.name, network, settings.model_dump(exclude_defaults=True)], sort_keys=True)
        return cls(row, settings.seed, model.name, hashlib.sha256(told.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Measurement:
    """A model measured on one row and seed."""

    result: Result
    about: About


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of measurements, by row, seed and model."""

    folder: Path

    def has(self, row: str, seed: int) -> bool:
        """Whether anything is kept of a row and a seed, up to date or not."""
        return any(self._folder(row, seed).glob("*.json"))

    def find(self, job: Job) -> Measurement | None:
        """What is kept of `job`; `None` where nothing is, or of another key."""
        values, about = self._files(job)
        try:
            told = About.model_validate_json(about.read_bytes())
            return Measurement(read_result(values), told) if told.key == job.key else None
        except (OSError, ValidationError, DataError):
            return None

    def keep(self, job: Job, measurement: Measurement) -> None:
        """Write `measurement` in the place of what was kept of another key."""
        values, about = self._files(job)
        try:
            values.parent.mkdir(parents=True, exist_ok=True)
            # Last to come and first to go: a measurement that has it is whole.
            about.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"no measurement can be kept here: {error.strerror}", values.parent) from error
        write_result(measurement.result, values)
        with replacing(about) as aside:
            aside.write_text(measurement.about.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def forget(self, row: str, model: str) -> None:
        """Remove what is kept of a model on a row, with every seed."""
        for about in self.folder.glob(f"{row}/seed-*/{model}.json"):
            about.unlink()

    def _files(self, job: Job) -> tuple[Path, Path]:
        folder = self._folder(job.row, job.seed)
        return folder / f"{job.model}.npz", folder / f"{job.model}.json"

    def _folder(self, row: str, seed: int) -> Path:
        return self.folder / row / f"seed-{seed}"
