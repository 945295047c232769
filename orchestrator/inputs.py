"""Asks the trainer, as a program, whether network and data can be used and what a training needs, and has it
fetch data that is given by URL. It runs on the user's machine, before anything is rented; without JAX all of it
works but the needs.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import RunFailed, UsageError
from orchestrator.fit import Need, Needs
from orchestrator.spec import RunSettings, RunSpec

_USAGE = 2
_LIMIT_SECONDS = 60.0
"""An estimate is not worth a longer wait."""


class EarlyStopping(BaseModel):
    """By what a network stops its training. Read leniently: the trainer may tell more."""

    model_config = ConfigDict(frozen=True)

    metric: str
    refit: bool


class InputSummary(BaseModel):
    """What the trainer found in network and data. Read leniently: it may tell more."""

    model_config = ConfigDict(frozen=True)

    samples: int | None = None
    """With `features`, `nnz` and `parameters` `None` where the data was not here to be counted."""
    features: int | None = None
    nnz: int | None = None
    parameters: int | None = None
    batch_size: int | None = None
    """The network's own, or the trainer's default, `None` where it follows from data that is not here; `epochs`
    likewise.
    """
    epochs: int
    early_stopping: EarlyStopping | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Network and data as they lie on the user's machine, checked; no data where it goes straight to the rented one."""

    network: Path
    data: Path | None
    summary: InputSummary


def check_inputs(network: Path, data: Path | None, settings: RunSettings) -> Inputs:
    """Have the trainer read both, or the network alone, as `settings` say. `UsageError` carries its one line."""
    given = ("--data", str(data)) if data is not None else ()
    stated = settings.model_dump_json(exclude_none=True)
    answer = _trainer("check", "--network", str(network), *given, "--settings", stated, "--json")
    try:
        return Inputs(network, data, InputSummary.model_validate_json(answer))
    except ValidationError as error:
        raise RunFailed(f"`trainer check` gave an answer that cannot be read: {answer[:200]!r}") from error


def settled(spec: RunSpec, summary: InputSummary) -> RunSpec:
    """`spec` with the network's batch size and epochs where it says nothing."""
    asked = spec.settings
    own = {
        "batch_size": summary.batch_size if asked.batch_size is None else asked.batch_size,
        "epochs": summary.epochs if asked.epochs is None else asked.epochs,
    }
    return spec.model_copy(update={"settings": asked.model_copy(update=own)})


def local_data(data: str, *, sha256: str | None, cache: Path) -> Path:
    """The path of `data`; a URL is fetched into `cache` first."""
    if "://" not in data:
        return Path(data)
    checksum = ("--sha256", sha256) if sha256 else ()
    answer = _trainer("retrieve", data, "--into", str(cache), *checksum, "--json")
    return Path(json.loads(answer)["path"])


class CapacityQuestions:
    """`trainer capacity`, asked once for each number of GPUs of a training. The answers are worked out in processes
    beside this one, which end with the context.
    """

    def __init__(self, inputs: Inputs, *, batch_size: int | None) -> None:
        counts = inputs.summary
        samples, nnz = counts.samples or 0, counts.nnz or 0
        self._arguments = (
            "capacity", "--network", str(inputs.network),
            "--batch-size", str(counts.batch_size if batch_size is None else batch_size),
            "--items", str(counts.features), "--samples", str(samples),
            "--per-sample", str(nnz / max(samples, 1)), "--json",
        )  # fmt: skip
        self._running: dict[int, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.communicate()

    def ask(self, gpus: Iterable[int]) -> None:
        """Begin to work out what has not been asked yet."""
        for number in sorted(set(gpus) - set(self._running)):
            self._running[number] = subprocess.Popen(
                _command(*self._arguments, "--devices", str(number)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def needs(self) -> Needs:
        """Wait for the answers. An estimate stops nothing: what goes wrong is said in `unknown`."""
        answers: dict[int, Need] = {}
        for number, process in self._running.items():
            try:
                stdout, stderr = process.communicate(timeout=_LIMIT_SECONDS)
                if process.returncode != 0:
                    return Needs(unknown=f"`trainer capacity` does not run here: {_last_line(stderr)}")
                answers[number] = Need.model_validate_json(stdout)
            except subprocess.TimeoutExpired:
                return Needs(unknown=f"`trainer capacity` took longer than {_LIMIT_SECONDS:g} s")
            except ValidationError:
                return Needs(unknown="`trainer capacity` gave an answer that cannot be read")
        return Needs(answers)


def _command(*arguments: str) -> Sequence[str]:
    return (sys.executable, "-P", "-m", "trainer", *arguments)


def _trainer(*arguments: str) -> str:
    done = subprocess.run(_command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == _USAGE:
        raise UsageError(_last_line(done.stderr))
    if done.returncode != 0:
        raise RunFailed(f"`trainer {arguments[0]}` failed: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
