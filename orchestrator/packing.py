"""Archives of an upload: what must travel in every case, what the machine lacks, and how the run's folder is made
of both. Every file is hashed again on its way into an archive, and the same files give the same bytes.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import IO

from orchestrator.errors import TransferMismatch
from orchestrator.resources import TravelFile

_LEVEL = 1
_PROBE_BYTES = 1 << 20
_WORTH_IT = 0.9


def store_name(file: TravelFile) -> str:
    """What the machine's store calls the content of a file: its SHA-256, and `x` where it may be executed, since hard
    links share their mode.
    """
    return f"{file.sha256}x" if file.mode & 0o100 else file.sha256


def pack_plain(files: Iterable[TravelFile], extra: Mapping[str, bytes]) -> bytes:
    """A compressed archive of `files` by their destinations and of `extra`, path to content."""

    def write(tar: tarfile.TarFile) -> None:
        for name, content in sorted(extra.items()):
            tar.addfile(_member(name, size=len(content), mode=0o644), io.BytesIO(content))
        for file in files:
            _add(tar, file, str(file.destination), mode=file.mode)

    packed = io.BytesIO()
    _pack(packed, write, compress=True)
    return packed.getvalue()


def pack_links(files: Iterable[TravelFile], *, root: str, store: str) -> bytes:
    """An archive of hard links from `root` into `store`, both seen from the folder it is unpacked in. An empty file
    is made anew: a file system allows so many links to one, and nothing is as common.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            member = _member(str(PurePosixPath(root) / file.destination), size=0, mode=file.mode)
            if file.size:
                member.type, member.linkname = tarfile.LNKTYPE, f"{store}/{store_name(file)}"
            tar.addfile(member)
    return packed.getvalue()


def pack_contents(target: IO[bytes], files: Iterable[TravelFile]) -> str:
    """Write an archive of contents by the names that the store has for them, for reading only, compressed where that
    makes it smaller; returns its SHA-256. Raises `TransferMismatch` where a file has changed since it was listed.
    """
    contents = {store_name(file): file for file in files}

    def write(tar: tarfile.TarFile) -> None:
        for name, file in sorted(contents.items()):
            _add(tar, file, name, mode=file.mode & 0o555)

    return _pack(target, write, compress=_compresses(contents.values()))


def _pack(target: IO[bytes], write: Callable[[tarfile.TarFile], None], *, compress: bool) -> str:
    hashing = _Hashing(target)
    if compress:
        with gzip.GzipFile("", "wb", _LEVEL, fileobj=hashing, mtime=0) as packed:
            _write_tar(packed, write)
    else:
        _write_tar(hashing, write)
    return hashing.sha256.hexdigest()


def _write_tar(target: io.IOBase, write: Callable[[tarfile.TarFile], None]) -> None:
    with tarfile.open(fileobj=target, mode="w|", bufsize=_PROBE_BYTES, format=tarfile.PAX_FORMAT) as tar:  # pyright: ignore[reportArgumentType, reportCallIssue] # any writable will do
        write(tar)


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


class _Reading(io.RawIOBase):
    """Hashes what is read from `source`."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.sha256.update(data)
        return data


def _add(tar: tarfile.TarFile, file: TravelFile, name: str, *, mode: int) -> None:
    changed = f"{file.source}: has changed since the plan was made; start again"
    try:
        with file.source.open("rb") as source:
            reading = _Reading(source)
            tar.addfile(_member(name, size=file.size, mode=mode), reading)
            has_more = source.read(1) != b""
    except OSError as error:
        raise TransferMismatch(f"{changed} ({error})") from error
    if has_more or reading.sha256.hexdigest() != file.sha256:
        raise TransferMismatch(changed)


def _member(name: str, *, size: int, mode: int) -> tarfile.TarInfo:
    """A regular file of nobody in particular, at no time in particular."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def _compresses(files: Iterable[TravelFile]) -> bool:
    """Whether the largest file, which stands for the data, gets smaller."""
    largest = max(files, key=lambda file: file.size, default=None)
    if largest is None:
        return False
    try:
        with largest.source.open("rb") as file:
            probe = file.read(_PROBE_BYTES)
    except OSError:
        return False
    return len(zlib.compress(probe, _LEVEL)) < _WORTH_IT * len(probe)
