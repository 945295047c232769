"""The run directory: every file name of the contract between the two programs, metrics lines, status and
exit. `spec.json` and `network.json` lie there before; `exit` is written last. Who reads it is unknown here.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from trainer.filing import replacing


class State(StrEnum):
    """What the trainer is doing."""

    STARTING = "starting"
    TUNING = "tuning"
    TRAINING = "training"
    PREDICTING = "predicting"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Asked to end before it was done; begun again in this directory, it goes on."""


@dataclass(frozen=True, slots=True)
class Status:
    """`status.json`. Numbers are of the last finished epoch."""

    state: State
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    samples_per_second: float | None = None
    seconds_left: float | None = None
    metric: str | None = None
    """Measured after each epoch, where the training stops early."""
    best: float | None = None
    best_epoch: int | None = None


class RunDirectory:
    """One run directory, at `path`. Where it is not `ours`, nothing is written there: of several processes only the
    first one writes.
    """

    def __init__(self, path: Path, *, ours: bool = True) -> None:
        self.path, self._ours = path, ours

    @property
    def spec(self) -> Path:
        """What is asked for (`JobSpec`)."""
        return self.path / "spec.json"

    @property
    def network_file(self) -> Path:
        """The trained network, in DSSTNE's format."""
        return self.path / "gl.nc"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training's checkpoints."""
        return self.path / "checkpoints"

    @property
    def tuning(self) -> Path:
        """Folder of the trials, with the checkpoints, so that what keeps these keeps both."""
        return self.checkpoints / "tuning"

    @property
    def recommendations(self) -> Path:
        """Recommendations, in DSSTNE's format."""
        return self.path / "recs"

    @property
    def titles(self) -> Path:
        """Feature name to title, where the data has titles."""
        return self.path / "titles.json"

    def dataset(self, name: str) -> Path:
        """The NetCDF file of a dataset."""
        return self.path / f"{name}.nc"

    def index(self, name: str) -> Path:
        """An index file: `features_input`, `features_output`, `features_attributes` or `samples_input`."""
        return self.path / name

    def report(self, step: int, name: str, value: float) -> None:
        """Add one line to `metrics.jsonl`."""
        if not self._ours:
            return
        line = json.dumps({"step": step, "name": name, "value": value})
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_status(self, status: Status) -> None:
        """Replace `status.json` in one move."""
        self.write("status.json", json.dumps(asdict(status)))

    def write_exit(self, status: int) -> None:
        """Write `exit`: nothing follows it."""
        self.write("exit", f"{status}\n")

    def write(self, name: str, text: str) -> None:
        """Write a file aside and rename it."""
        if not self._ours:
            return
        with replacing(self.path / name) as aside:
            aside.write_text(text, encoding="utf-8")
