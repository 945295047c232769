"""Throws damaged files at every reader of the trainer, for as long as it is told: `python tests/fuzz.py --minutes 10
--seed 1`. Each reader is fuzzed in processes of its own, so that one that is killed, hangs or wants too much memory
is a finding like any other; its input is kept. Ends with a line a target, and with 1 if there was a finding.
"""

import argparse
import faulthandler
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from fuzz_targets import TARGETS, Make, Target
from fuzz_words import ROOT

from trainer.errors import TrainerError

SLOW_SECONDS, HANG_SECONDS, SLICE_SECONDS = 5.0, 60.0, 20.0
_GIB = 1 << 30
_MOST_FILE_BYTES = 1 << 26
_SHRINKING_SECONDS = 5.0


@dataclass(slots=True)
class Finding:
    """What must not happen."""

    signature: str
    """What it is and where it came from; findings of one signature count as one."""
    detail: str
    """A traceback, or what a process said before it ended."""
    note: str = ""
    """What was changed, where that can be said."""
    path: str = ""
    """Where the input is kept."""
    times: int = 1


@dataclass(slots=True)
class Tally:
    """What came of the inputs to one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict[str, Finding])

    def add(self, other: "Tally") -> None:
        """Count the other's, too."""
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        for finding in other.findings.values():
            self.found(finding)

    def found(self, finding: Finding) -> None:
        """Count a finding."""
        known = self.findings.setdefault(finding.signature, finding)
        if known is not finding:
            known.times += finding.times


def fuzz(target: Target, folder: Path, *, seed: int, inputs: int, keep: Path) -> Tally:
    """Try so many inputs in this process."""
    tally, fuzzer = Tally(), Fuzzer(target, folder, keep)
    rng = Random(seed)
    for _ in range(inputs):
        fuzzer.step(rng, tally)
    return tally


class Fuzzer:
    """Makes inputs for one target in a folder of its own, and tries them."""

    def __init__(self, target: Target, folder: Path, keep: Path) -> None:
        self._target, self._folder, self._keep = target, folder, keep
        (folder / "prepared").mkdir(parents=True)
        self._make: Make = target.prepare(folder / "prepared")

    def step(self, rng: Random, tally: Tally) -> None:
        """Make one input, try it, count what came of it."""
        data, note = self._make(rng)
        (self._folder / "input").write_bytes(data)
        (self._folder / "note").write_text(note, encoding="utf-8", errors="backslashreplace")
        started = time.process_time()
        accepted, finding = self.tried(data)
        seconds = time.process_time() - started
        tally.inputs += 1
        tally.accepted += accepted
        tally.refused += not accepted and finding is None
        tally.slowest_ms = max(tally.slowest_ms, 1000 * seconds)
        if finding is None and seconds > SLOW_SECONDS:
            finding = Finding(f"takes longer than {SLOW_SECONDS:g} s", f"{seconds:.1f} s for {len(data)} bytes")
        if finding is not None:
            self._record(finding, data, note, tally)

    def tried(self, data: bytes) -> tuple[bool, Finding | None]:
        """Whether every reader accepts the input, and what must not have happened."""
        place = self._folder / "tried"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        accepted = True
        for attempt in self._target.attempts(data, place):
            try:
                attempt()
            except TrainerError as error:
                accepted = False
                if any(isinstance(one, MemoryError) for one in _chain(error)):
                    return False, _finding(error, "wants more than 1 GiB")
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                return False, _finding(error, type(error).__name__)
        return accepted, None

    def _record(self, finding: Finding, data: bytes, note: str, tally: Tally) -> None:
        is_new = finding.signature not in tally.findings
        tally.found(finding)
        if is_new:
            finding.note = note
            if not self._target.in_c and "longer" not in finding.signature:
                data = self._shrunk(data, finding.signature)
            finding.path = str(kept(self._keep, self._target.name, finding, data))

    def _shrunk(self, data: bytes, signature: str) -> bytes:
        """A shorter input with the same finding."""
        deadline = time.monotonic() + _SHRINKING_SECONDS
        size = max(len(data) // 2, 1)
        while size:
            start = 0
            while start < len(data) and time.monotonic() < deadline:
                shorter = data[:start] + data[start + size :]
                finding = self.tried(shorter)[1]
                if finding is not None and finding.signature == signature:
                    data = shorter
                else:
                    start += size
            size //= 2
        return data


def kept(keep: Path, target: str, finding: Finding, data: bytes) -> Path:
    """Keep the input of a finding, and what is known of it beside it."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{target}-{zlib.crc32(finding.signature.encode()):08x}.input"
    path.write_bytes(data)
    about = f"{finding.signature}\n{finding.note}\n{finding.detail}"
    path.with_suffix(".txt").write_text(about, encoding="utf-8", errors="backslashreplace")
    return path


def _finding(error: BaseException, what: str) -> Finding:
    places = [frame for one in _chain(error) for frame in traceback.extract_tb(one.__traceback__)]
    ours = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in places
        if f"{os.sep}trainer{os.sep}" in frame.filename
    ]
    message = str(error)[:300].encode("ascii", "backslashreplace").decode()
    detail = "".join(traceback.format_exception(error)[-12:])
    return Finding(f"{what} at {ours[-1] if ours else 'the fuzzer'}", f"{message}\n{detail}")


def _chain(error: BaseException | None) -> Sequence[BaseException]:
    """The error and what it came from, the first cause last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def work(arguments: argparse.Namespace) -> None:
    """A slice of the work, in a process that may die of it: the tally is written each second."""
    _harden()
    target, folder = TARGETS[arguments.slice], Path(arguments.folder)
    tally, fuzzer, rng = Tally(), Fuzzer(target, folder, Path(arguments.keep)), Random(arguments.seed)
    fuzzer.step(Random(0), Tally())
    _limit_memory()
    deadline, report = time.monotonic() + arguments.seconds, time.monotonic()
    while time.monotonic() < deadline and tally.inputs < arguments.inputs:
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        fuzzer.step(rng, tally)
        if time.monotonic() > report:
            _write_report(folder, tally)
            report = time.monotonic() + 1
    faulthandler.cancel_dump_traceback_later()
    _write_report(folder, tally)


def _harden() -> None:
    """A warning is a finding; what is logged is nobody's; no file fills the disk."""
    faulthandler.enable()
    warnings.simplefilter("error")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_FILE_BYTES, _MOST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory() -> None:
    """From here on no more than 1 GiB is to be had."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    taken = int(found[1]) * 1024 if found else 8 * _GIB
    most = taken + _GIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _write_report(folder: Path, tally: Tally) -> None:
    aside = folder / "report.aside"
    aside.write_text(json.dumps(asdict(tally)), encoding="utf-8")
    aside.replace(folder / "report")


class Slice:
    """A process that works on one target for a while."""

    def __init__(self, target: str, *, seed: int, seconds: float, keep: Path, inputs: int = 1 << 62) -> None:
        self.target, self._keep = target, keep
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz-")
        self._folder = Path(self._scratch.name)
        own = ("--slice", target, "--folder", self._folder / "work", "--keep", keep, "--seed", seed)
        command = [sys.executable, __file__, *own, "--seconds", seconds, "--inputs", inputs]
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stdout=said, stderr=said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._scratch.cleanup()

    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def result(self) -> Tally:
        """What came of it; a process that did not end well is a finding, with the input it died of."""
        status, work = self._process.wait(), self._folder / "work"
        tally = _read_report(work / "report")
        if status != 0:
            said = (self._folder / "said").read_text(encoding="utf-8", errors="replace")
            is_hang = "Timeout (" in said
            what = f"hangs for {HANG_SECONDS:g} s" if is_hang else f"the process ends with {status}"
            note = _text_of(work / "note")
            frames = re.findall(r'File ".*?/trainer/(\S+)", line (\d+)', said)
            where = ":".join(frames[0]) if frames else "the fuzzer"
            finding = Finding(f"{what} at {where}", said[-3000:], note)
            data = (work / "input").read_bytes() if (work / "input").exists() else b""
            finding.path = str(kept(self._keep, self.target, finding, data))
            tally.inputs += 1
            tally.found(finding)
        return tally


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _read_report(path: Path) -> Tally:
    told: dict[str, Any] = json.loads(_text_of(path) or json.dumps(asdict(Tally())))
    findings = {name: Finding(**one) for name, one in told.pop("findings").items()}
    return Tally(**told, findings=findings)


def campaign(arguments: argparse.Namespace, tell: Callable[[str], object]) -> dict[str, Tally]:
    """Every target in turn, slice by slice, until the time is over."""
    names, keep = arguments.targets or list(TARGETS), Path(arguments.keep)
    tallies = {name: Tally() for name in names}
    started, number = time.monotonic(), 0
    left = 60 * arguments.minutes
    length = max(min(SLICE_SECONDS, left * arguments.jobs / len(names)), 1.0)
    running: list[Slice] = []
    while running or time.monotonic() - started < left:
        while len(running) < arguments.jobs and time.monotonic() - started < left:
            name = names[number % len(names)]
            running.append(Slice(name, seed=1000 * arguments.seed + number, seconds=length, keep=keep))
            number += 1
        time.sleep(0.1)
        for one in [one for one in running if one.is_over()]:
            running.remove(one)
            with one:
                before = set(tallies[one.target].findings)
                tallies[one.target].add(one.result())
            for signature in sorted(set(tallies[one.target].findings) - before):
                tell(f"{one.target}: {signature}: {tallies[one.target].findings[signature].path}\n")
    return tallies


def replayed(target: Target, path: Path) -> Finding | None:
    """Try one kept input again, in a process that is hardened for it."""
    _harden()
    _limit_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return Fuzzer(target, Path(folder), path.parent).tried(path.read_bytes())[1]


def _table(tallies: dict[str, Tally]) -> str:
    lines = [f"{'target':<13}{'inputs':>9}{'accepted':>10}{'refused':>9}{'slowest ms':>12}{'findings':>10}"]
    for name, one in tallies.items():
        counts = f"{one.inputs:>9}{one.accepted:>10}{one.refused:>9}{one.slowest_ms:>12.1f}{len(one.findings):>10}"
        lines.append(f"{name:<13}{counts}")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--keep", default=str(Path(tempfile.gettempdir()) / "fuzz-findings"), help="folder of inputs")
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), help="all of them if not given")
    parser.add_argument("--replay", type=Path, help="try this one input with the only one of --targets")
    for name, kind in (("--slice", str), ("--folder", str), ("--seconds", float), ("--inputs", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """The program; 1 if there was a finding."""
    arguments = _arguments()
    if arguments.slice:
        work(arguments)
        return 0
    if arguments.replay:
        finding = replayed(TARGETS[arguments.targets[0]], arguments.replay)
        sys.stdout.write("nothing is found\n" if finding is None else f"{finding.signature}\n{finding.detail}\n")
        return finding is not None
    tallies = campaign(arguments, sys.stderr.write)
    sys.stdout.write(_table(tallies))
    for name, tally in tallies.items():
        for finding in tally.findings.values():
            sys.stdout.write(f"\n{name}: {finding.signature}, {finding.times} times\n{finding.path}\n")
            sys.stdout.write(f"{finding.note}\n{finding.detail}\n")
    return any(tally.findings for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
