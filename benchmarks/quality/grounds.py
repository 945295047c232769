"""What models of a row and a seed are measured on: a split, or items that are hidden. What is asked is told apart from
other questions by its digest.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.quality.rows import CHANCE, Model, Row
from trainer.cold import cold_items
from trainer.comparing import Result
from trainer.data.given import Source, make_split
from trainer.data.protocols import Split
from trainer.errors import DataError
from trainer.filing import read_lines, replacing
from trainer.measuring import Wishes, measure
from trainer.metrics import KS, Measured, measured
from trainer.network import read_network
from trainer.pace import pace_of
from trainer.referees import fit
from trainer.settings import SplitSettings, TrainSettings
from trainer.train import EpochReport, digest_of

Say = Callable[[str], None]
_HIDDEN = 0.05
_LISTS = ("train.txt", "test.txt")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model measured, and its settings in a few words."""

    result: Result
    described: str


class Ground(Protocol):
    """What the models of a row are measured on."""

    @property
    def digest(self) -> str:
        """Of everything that a model learns from and is asked."""
        ...

    def measure(self, model: Model, settings: TrainSettings, *, say: Say) -> Outcome:
        """Fit or train `model` and ask it."""
        ...


@dataclass(frozen=True, slots=True)
class SplitGround:
    """A split."""

    split: Split
    metric: str
    """What early stopping goes by."""
    digest: str

    @classmethod
    def of(cls, split: Split, metric: str) -> "SplitGround":
        """On `split`, for the sake of `metric`."""
        asked = [part for one in (split.validation, split.test) if one for part in (one.known, one.wanted)]
        return cls(split, metric, _digest(*(digest_of(part) for part in (split.training, *asked))))

    def measure(self, model: Model, settings: TrainSettings, *, say: Say) -> Outcome:
        """As `Ground` has it."""
        if model.network is None:
            return self._baseline(model, settings)
        told: list[str] = []

        def heard(line: str) -> None:
            told.append(line)
            say(line)

        (found,) = measure(model.network, self.split, settings, Wishes(baselines=(), metric=self.metric), say=heard)
        pace = pace_of(read_network(model.network).training, settings)
        described = f"batch {pace.batch_size}, epochs {pace.epochs}"
        if pace.stopping is not None:
            described = f"{described} at most: {told[-1]}"
        return Outcome(Result(model.name, self.digest, found.measured), described)

    def _baseline(self, model: Model, settings: TrainSettings) -> Outcome:
        split, live = self.split, len(self.split.features)
        learnt = fit(
            model.name,
            split.training,
            live=live,
            validation=split.validation,
            seed=settings.seed,
            again=split.rejoined(),
        )
        lists = learnt.best(split.test.known, k=max(KS))
        found = measured(lists, split.test.wanted, split.training, live=live)
        return Outcome(Result(model.name, self.digest, found), learnt.described)


@dataclass(frozen=True, slots=True)
class ColdGround:
    """A folder of ratings and tables of attributes, of whose items some are hidden."""

    data: Path
    digest: str

    @classmethod
    def of(cls, data: Path) -> "ColdGround":
        """On the files in `data`."""
        files = sorted(data.glob("*.csv"))
        return cls(data, _digest(f"{_HIDDEN}".encode(), *(path.read_bytes() for path in files)))

    def measure(self, model: Model, settings: TrainSettings, *, say: Say) -> Outcome:
        """As `Ground` has it; a model without a network is `content` or `chance`."""

        def tell(report: EpochReport) -> None:
            say(f"epoch {report.epoch}: loss {report.loss:.4f}")

        report = cold_items(self.data, model.network, settings=settings, fraction=_HIDDEN, tell=tell)
        values = report.recalls["content" if model.network is None else "network"]
        described = f"{report.cold} hidden films, {len(values)} users"
        if model.name == CHANCE:
            values = np.full(len(values), report.chance)
        asked = f"{self.digest} {settings.seed}"
        return Outcome(Result(model.name, asked, Measured({f"cold_recall@{report.k}": values}, {})), described)


def open_ground(row: Row, seed: int, *, data: Path, work: Path) -> Ground:
    """What `row` measures on with `seed`. `data` has the folders of all data; what must be written goes to `work`."""
    folder = data / row.folder
    if not row.split:
        return ColdGround.of(folder)
    settings = SplitSettings.of(seed=seed, **row.split)
    if not row.is_joined:
        return SplitGround.of(make_split(Source(folder), settings), row.metrics[0])
    work.mkdir(parents=True, exist_ok=True)
    joined = work / f"{row.folder}.txt"
    join_lists([folder / name for name in _LISTS], joined)
    return SplitGround.of(make_split(Source(joined), settings), row.metrics[0])


def settings_of(row: Row, model: Model, seed: int, *, epochs: int | None = None) -> TrainSettings:
    """How `model` is trained on `row`: as its network states, else as `Model` has it; `epochs` counts before both."""
    k = int(row.metrics[0].partition("@")[2])
    if model.network is None:
        return TrainSettings(seed=seed, k=k)
    stated = read_network(model.network).training
    batch_size = model.batch_size if stated.batch_size is None else None
    own = model.epochs if stated.epochs is None else None
    return TrainSettings(seed=seed, k=k, batch_size=batch_size, epochs=own if epochs is None else epochs)


def join_lists(files: list[Path], path: Path) -> None:
    """Write lines of `sample feature feature …` of several files as one DSSTNE text, a line a sample."""
    rows: dict[str, list[str]] = {}
    for file in files:
        for line in read_lines(file):
            sample, *features = line.split() or [""]
            if features:
                rows.setdefault(sample, []).extend(features)
    if not rows:
        raise DataError("has no list of numbers, `sample feature …`", files[0])
    with replacing(path) as aside:
        aside.write_text("".join(f"{sample}\t{':'.join(features)}\n" for sample, features in rows.items()))


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()
