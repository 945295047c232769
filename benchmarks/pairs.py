"""Two sides timed in turns: each in a process of its own, held still while the other works, so that they share
neither threads nor memory but the state of the machine. The ratio is the median of the turns' own ratios.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_WARM_UP = 2


class SideFailed(Exception):
    """A side of our own ended early; the message says how."""


class SideMissing(Exception):
    """A peer cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class SideSpec:
    """A function of a module of this package that makes a side ready and returns its work: a function without
    arguments that says how much it has done.
    """

    module: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    python: str = ""
    """Of the environment the side runs in, its own for peers, which may be missing; `""`: ours."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a side did in one turn."""

    seconds: float
    done: float
    """In the unit the side counts in."""
    peak_bytes: int
    """Most memory the process has held so far."""

    @property
    def rate(self) -> float:
        """Done per second."""
        return self.done / self.seconds


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Without a peer the bar is for `ours`, else for the ratio."""

    name: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    bar: float | None
    """`None`: shown for comparison only."""
    met: bool | None
    runs: int
    note: str = ""
    """Why there are no figures."""

    def json(self) -> str:
        """As one line."""
        said = asdict(self)
        if not self.note:
            del said["note"]
        return json.dumps({key: _short(value) for key, value in said.items()})


@dataclass(frozen=True, slots=True)
class Question:
    """What a row asks: `what` of both sides, `rate` or `seconds`, and the bar of their ratio, ours ÷ peer."""

    name: str
    unit: str
    bar: float | None
    what: str = "rate"
    is_limit: bool = False
    """The ratio is to stay below the bar instead of above."""


def compare(question: Question, ours: SideSpec, peer: SideSpec, *, runs: int) -> Row:
    """Both sides in turns after a warm-up; a row without figures where one cannot be had."""
    row = Row(question.name, None, None, question.unit, None, question.bar, None, 0)
    try:
        pairs = list(turns([ours, peer], runs=runs))
    except SideMissing as error:
        return replace(row, note=str(error))
    mine, theirs = ([getattr(pair[side], question.what) for pair in pairs] for side in (0, 1))
    ratio = median(a / b for a, b in zip(mine, theirs, strict=True))
    met = None if question.bar is None else (ratio <= question.bar if question.is_limit else ratio >= question.bar)
    return replace(row, ours=median(mine), peer=median(theirs), ratio=ratio, met=met, runs=runs)


def turns(sides: Sequence[SideSpec], *, runs: int, warm_up: int = _WARM_UP) -> Iterator[tuple[Turn, ...]]:
    """`runs` times a turn of each side, after turns to warm up. `SideMissing` if one cannot be started."""
    with ExitStack() as stack:
        # Peers come last and may be missing: they are asked first.
        running = [stack.enter_context(_running(spec)) for spec in reversed(sides)][::-1]
        for number in range(warm_up + runs):
            # Who comes second finds a warmer or a more tired machine: they change places.
            order = list(enumerate(running))[:: -1 if number % 2 else 1]
            found = {place: side.turn() for place, side in order}
            if number >= warm_up:
                yield tuple(found[place] for place in range(len(running)))


class _Side:
    def __init__(self, spec: SideSpec, process: "subprocess.Popen[str]", errors: Path) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a side is talked to through pipes")
        self._spec, self._process, self._errors = spec, process, errors
        self._to, self._from = process.stdin, process.stdout
        said = self._hear()
        if "missing" in said:
            raise self._failure(f"not installed: {said['missing']}")
        process.send_signal(signal.SIGSTOP)

    def turn(self) -> Turn:
        self._process.send_signal(signal.SIGCONT)
        self._to.write("go\n")
        self._to.flush()
        turn = Turn(**self._hear())
        self._process.send_signal(signal.SIGSTOP)
        return turn

    def _hear(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line:
            last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise self._failure(f"ended early: {''.join(last)}")
        return json.loads(line)

    def _failure(self, problem: str) -> Exception:
        if self._spec.python:
            return SideMissing(problem)
        return SideFailed(f"{self._spec.module}.{self._spec.function} {problem}")


@contextmanager
def _running(spec: SideSpec) -> Generator[_Side]:
    command = [
        spec.python or sys.executable,
        "-m",
        "benchmarks.worker",
        spec.module,
        spec.function,
        json.dumps(dict(spec.arguments)),
    ]
    # A core type forced on OpenBLAS would make the limit look low.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    with tempfile.TemporaryDirectory() as scratch:
        errors = Path(scratch) / "errors"
        with errors.open("w") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                cwd=_ROOT,
                env=environment,
            )
        with process:
            try:
                yield _Side(spec, process, errors)
            finally:
                process.kill()


def _short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
