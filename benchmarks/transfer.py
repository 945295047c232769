"""How fast files reach a machine, beside OpenSSH's sftp, and how soon a trainer starts there."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.pairs import Question, Row, SideSpec, compare, turns
from benchmarks.scale import Scale
from benchmarks.sshd import NoServer, far_away, openssh_server

_PUT_BAR = 1.0
_MANY_BAR = 1.7
_FAR_BAR = 20.0
_AGAIN_SECONDS = 1.0
_BEGUN_SECONDS = 5.0
_ROUND_TRIP_SECONDS = 0.06
_FAR_RUNS = 3
_FILE_BYTES = 4_400
_NAMES = ("put", "many-files", "many-files-far", "again", "begun")


def rows(scale: Scale) -> Iterator[Row]:
    """Against a true sshd on loopback; without one, rows without figures."""
    with tempfile.TemporaryDirectory(prefix="launch-and-train-") as scratch:
        made = _make(Path(scratch), scale)
        try:
            with openssh_server(made.folder) as host:
                yield from _beside_sftp(scale, made, host)
                yield _alone("transfer/again", _AGAIN_SECONDS, "upload_all", made.whole(host) | {"again": True}, scale)
        except NoServer as error:
            yield from (Row(f"transfer/{name}", None, None, "", None, None, None, 0, str(error)) for name in _NAMES[:4])
        yield _alone("transfer/begun", _BEGUN_SECONDS, "begin", made.whole(None), scale)


@dataclass(frozen=True, slots=True)
class _Made:
    """Files that travel, and where to."""

    folder: Path
    project: Path
    few: Path
    big: Path
    data: Path
    there: Path

    def whole(self, host: dict[str, str] | None) -> dict[str, Any]:
        """Project and data."""
        found = {"project": str(self.project), "data": str(self.data)}
        return found if host is None else {**found, "host": host, "there": str(self.there)}


def _make(folder: Path, scale: Scale) -> _Made:
    made = _Made(folder, *(folder / name for name in ("project", "few", "big", "data", "there")))
    made.there.mkdir()
    _write_files(made.project, scale.upload_files)
    _write_files(made.few, scale.far_files)
    noise = np.random.default_rng(1)
    made.big.write_bytes(noise.bytes(scale.upload_bytes))
    made.data.write_bytes(noise.bytes(scale.data_bytes))
    return made


def _beside_sftp(scale: Scale, made: _Made, host: dict[str, str]) -> Iterator[Row]:
    def by_sftp(source: Path, done: int, host: dict[str, str] = host) -> SideSpec:
        arguments = {"host": host, "source": str(source), "there": str(made.there), "done": done}
        return SideSpec("transfer_sides", "sftp", arguments)

    put = SideSpec("transfer_sides", "put", {"host": host, "source": str(made.big), "there": str(made.there)})
    peer = by_sftp(made.big, scale.upload_bytes)
    yield compare(Question("transfer/put", "bytes/s", _PUT_BAR), put, peer, runs=scale.runs)
    # Of the data as much as makes no difference: sftp sends none.
    tiny = made.few / "0" / "0.py"
    many = SideSpec("transfer_sides", "upload_all", made.whole(host) | {"data": str(tiny)})
    peer = by_sftp(made.project, scale.upload_files)
    yield compare(Question("transfer/many-files", "files/s", _MANY_BAR), many, peer, runs=scale.runs)
    with far_away(host, made.folder, round_trip_seconds=_ROUND_TRIP_SECONDS) as far:
        many = SideSpec("transfer_sides", "upload_all", made.whole(far) | {"data": str(tiny)})
        peer = by_sftp(made.few, scale.far_files, far)
        question = Question("transfer/many-files-far", "files/s", _FAR_BAR)
        yield compare(question, many, peer, runs=min(scale.runs, _FAR_RUNS))


def _alone(name: str, bar: float, function: str, arguments: dict[str, Any], scale: Scale) -> Row:
    found = [turn.seconds for (turn,) in turns([SideSpec("transfer_sides", function, arguments)], runs=scale.runs)]
    seconds = median(found)
    return Row(name, seconds, None, "s", None, bar, seconds <= bar, scale.runs)


def _write_files(folder: Path, count: int) -> None:
    """Text as programs are, twenty files a folder."""
    chance = np.random.default_rng(count)
    words = [
        bytes(letters[: 2 + number % 11]) + b" "
        for number, letters in enumerate(chance.integers(97, 123, (3_000, 12), np.uint8))
    ]
    for number in range(count):
        path = folder / str(number // 20) / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = b"".join(words[place] for place in chance.integers(0, len(words), _FILE_BYTES // 8))
        path.write_bytes(text.ljust(_FILE_BYTES)[:_FILE_BYTES])
