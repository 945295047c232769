"""Asks the trainer, as a program, whether network and data can be used, and has it fetch data that is
given by URL. It runs on the user's machine, before anything is rented, without JAX.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import RunFailed, UsageError

_USAGE = 2


class InputSummary(BaseModel):
    """What the trainer found in network and data. Read leniently: it may tell more."""

    model_config = ConfigDict(frozen=True)

    samples: int
    features: int
    nnz: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """Network and data as they lie on the user's machine, checked."""

    network: Path
    data: Path
    summary: InputSummary


def check_inputs(network: Path, data: Path) -> Inputs:
    """Have the trainer read both. `UsageError` carries its one line."""
    answer = _trainer("check", "--network", str(network), "--data", str(data), "--json")
    try:
        return Inputs(network, data, InputSummary.model_validate_json(answer))
    except ValidationError as error:
        raise RunFailed(f"`trainer check` gave an answer that cannot be read: {answer[:200]!r}") from error


def local_data(data: str, *, sha256: str | None, cache: Path) -> Path:
    """The path of `data`; a URL is fetched into `cache` first."""
    if "://" not in data:
        return Path(data)
    checksum = ("--sha256", sha256) if sha256 else ()
    answer = _trainer("retrieve", data, "--into", str(cache), *checksum, "--json")
    return Path(json.loads(answer)["path"])


def _trainer(*arguments: str) -> str:
    command: Sequence[str] = (sys.executable, "-P", "-m", "trainer", *arguments)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == _USAGE:
        raise UsageError(_last_line(done.stderr))
    if done.returncode != 0:
        raise RunFailed(f"`trainer {arguments[0]}` failed: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
