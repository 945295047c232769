"""Runs the real programs as subprocesses, as a user does, or their verbs here, where only what they say is looked at;
and asks the mocked cloud what is left.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quick_xla
from typer.testing import CliRunner

from orchestrator.cli import app

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Done:
    """A finished program."""

    exit_status: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Any:
        """The one JSON object of `--json`."""
        return json.loads(self.stdout)

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]


def environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's but PATH: no AWS settings, an empty HOME. The programs are those of this checkout,
    whichever one is installed.
    """
    own = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quick_xla.FLAGS}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **own}


def command(*arguments: str) -> list[str]:
    return [str(BIN / arguments[0]), *arguments[1:]]


def run(*arguments: str, cwd: Path, timeout: float = 120) -> Done:
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ask(*arguments: str) -> Done:
    """A verb of `orchestrator` in this process and its working directory: a program of its own first imports for a
    second.
    """
    done = CliRunner().invoke(app, arguments)
    return Done(done.exit_code, done.stdout, done.stderr)


def start(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(check: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def state(endpoint: str) -> Any:
    """Everything that exists in the mocked cloud."""
    with urllib.request.urlopen(f"{endpoint}/_state") as answer:
        return json.load(answer)


class MockCloud:
    """`orchestrator mock-cloud` as a user starts it by hand."""

    def __init__(self, folder: Path, scenario: Mapping[str, Any]) -> None:
        path = folder / "scenario.json"
        path.write_text(json.dumps(scenario))
        self.process = start("orchestrator", "mock-cloud", "--scenario", str(path), cwd=folder)
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint.startswith("http://127.0.0.1:"), self.process.stderr

    @property
    def billable(self) -> list[Any]:
        """What still exists and is ours or costs money."""
        return [thing for thing in state(self.endpoint) if thing.get("state") != "terminated"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
