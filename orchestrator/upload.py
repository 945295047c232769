"""Puts the manifest on the host: one archive over SFTP, its SHA-256 verified there before it is unpacked
into a fresh directory. Every file is hashed again on its way into the archive.
"""

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from orchestrator.errors import CommandFailed, TransferMismatch
from orchestrator.events import Progress
from orchestrator.ports import Session
from orchestrator.resources import CommandResult, Manifest, TravelFile

_ARCHIVE = ".upload.tar"
_LEVEL = 1
_PROBE_BYTES = 1 << 20
_WORTH_IT = 0.9
_CHUNK = 1 << 20
_SLOWEST_BYTES_PER_SECOND = 5e6
"""At which the machine is trusted to hash and unpack, on a disk still being filled from a snapshot."""


def upload(
    session: Session,
    manifest: Manifest,
    *,
    root: str,
    extra: Mapping[str, bytes],
    tell: Callable[[str, Progress | None], None],
) -> None:
    """Unpack `manifest` and the `extra` files (path under `root` to content) into `root`, which must
    not exist yet. Raises `TransferMismatch` where a file has changed since it was listed or the
    archive arrives differently.
    """
    with tempfile.NamedTemporaryFile(prefix="launch-and-train-", suffix=".tar") as file:
        sha256 = write_archive(file.file, manifest, extra)
        file.flush()
        archive, size = Path(file.name), file.tell()
        tell(f"{manifest.size:,} bytes in {len(manifest.files)} files, {size:,} packed", None)
        _run(session, "mkdir", "-p", os.path.dirname(root) or ".")  # noqa: PTH120 - a remote path
        _run(session, "mkdir", "-m", "700", root)
        there = f"{root}/{_ARCHIVE}"
        session.put(archive, there, on_bytes=_progress(size, tell))
    patience = 60.0 + (size + manifest.size) / _SLOWEST_BYTES_PER_SECOND
    arrived = _run(session, "sha256sum", there, patience=patience).stdout.split()[0].lstrip("\\")
    if arrived != sha256:
        raise TransferMismatch(f"{there}: the upload arrived as SHA-256 {arrived}, it left as {sha256}")
    _run(session, "tar", "-C", root, "--no-same-owner", "-xf", there, patience=patience)
    _run(session, "rm", "-f", there)
    tell("arrived as it left, by its SHA-256", None)


def write_archive(target: IO[bytes], manifest: Manifest, extra: Mapping[str, bytes]) -> str:
    """Write the tar archive, compressed where that makes it smaller, and return its SHA-256. The same
    files give the same bytes.
    """
    hashing = _Hashing(target)
    if _compresses(manifest):
        with gzip.GzipFile("", "wb", _LEVEL, fileobj=hashing, mtime=0) as packed:
            _write_tar(packed, manifest, extra)
    else:
        _write_tar(hashing, manifest, extra)
    return hashing.sha256.hexdigest()


class _Hashing(io.RawIOBase):
    """Passes on what is written, and hashes it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # pyright: ignore[reportArgumentType] # the base class says no more than "a buffer"
        self.sha256.update(view)
        return self._target.write(view)


def _write_tar(target: io.IOBase, manifest: Manifest, extra: Mapping[str, bytes]) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # pyright: ignore[reportArgumentType, reportCallIssue] # any writable will do
        for name, content in sorted(extra.items()):
            tar.addfile(_member(name, size=len(content), mode=0o644), io.BytesIO(content))
        for file in manifest.files:
            _add(tar, file)


def _add(tar: tarfile.TarFile, file: TravelFile) -> None:
    changed = f"{file.source}: has changed since the plan was made; start again"
    try:
        with file.source.open("rb") as source:
            reading = _Reading(source)
            tar.addfile(_member(str(file.destination), size=file.size, mode=file.mode), reading)
            has_more = source.read(1) != b""
    except OSError as error:
        raise TransferMismatch(f"{changed} ({error})") from error
    if has_more or reading.sha256.hexdigest() != file.sha256:
        raise TransferMismatch(changed)


class _Reading(io.RawIOBase):
    """Hashes what is read from `source`."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.sha256.update(data)
        return data


def _member(name: str, *, size: int, mode: int) -> tarfile.TarInfo:
    """A regular file of nobody in particular, at no time in particular."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def _compresses(manifest: Manifest) -> bool:
    """Whether the largest file, which stands for the data, gets smaller."""
    largest = max(manifest.files, key=lambda file: file.size, default=None)
    if largest is None:
        return False
    try:
        with largest.source.open("rb") as file:
            probe = file.read(_PROBE_BYTES)
    except OSError:
        return False
    return len(zlib.compress(probe, _LEVEL)) < _WORTH_IT * len(probe)


def _progress(size: int, tell: Callable[[str, Progress | None], None]) -> Callable[[int], None]:
    """Told about a hundred times, however large the archive is."""
    told_at = 0

    def on_bytes(done: int) -> None:
        nonlocal told_at
        if done >= size or done - told_at >= max(_CHUNK, size // 100):
            told_at = done
            tell("", Progress(done, size, "bytes"))

    return on_bytes


def _run(session: Session, *command: str, patience: float = 60.0) -> CommandResult:
    done = session.run(command, timeout_seconds=patience)
    if done.exit_status != 0:
        words = done.stderr.strip() or f"status {done.exit_status}"
        raise CommandFailed(f"the upload failed on the machine: `{command[0]}` said: {words}")
    return done
