"""The rehearsal of the embedded default as a whole, and how long giving back takes beyond what EC2 itself takes."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.pairs import Row
from benchmarks.scale import Scale
from orchestrator.dryrun.cloud import running_cloud

_WHOLE_BAR = 30.0
_GIVING_BACK_BAR = 2.0
_ENDING_SECONDS = 1.5
"""What the mocked EC2 takes from `shutting-down` to `terminated`."""


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """Seconds of wall time."""

    whole: float
    giving_back: float


def rows(scale: Scale) -> Iterator[Row]:
    """A rehearsal a run, each a process of its own against a fresh cloud."""
    found = [_rehearsed() for _ in range(min(scale.runs, 3))]
    whole = median(one.whole for one in found)
    beyond = median(one.giving_back for one in found) - _ENDING_SECONDS
    yield Row("rental/dry-run", whole, None, "s", None, _WHOLE_BAR, whole <= _WHOLE_BAR, len(found))
    yield Row("rental/teardown", beyond, None, "s", None, _GIVING_BACK_BAR, beyond <= _GIVING_BACK_BAR, len(found))


def _rehearsed() -> _Rehearsal:
    with tempfile.TemporaryDirectory() as folder, running_cloud({"ending_seconds": _ENDING_SECONDS}) as cloud:
        program = Path(sys.executable).parent / "launch-and-train"
        command = [program, "--dry-run", "--mock-cloud", cloud.endpoint, "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - started
    stages = {stage["name"]: stage["seconds"] for stage in json.loads(done.stdout)["stages"]}
    return _Rehearsal(whole, stages["teardown"])
