"""Archives of an upload: what must travel in every case, what the machine lacks, and how the run's folder is made
of both. Every file is hashed again on its way into an archive.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from orchestrator.errors import TransferMismatch
from orchestrator.resources import TravelFile
from orchestrator.tar import Sink, Written, header

_LEVEL = 1
_PROBE_BYTES = 1 << 20
_WORTH_IT = 0.9
_CHUNK = 1 << 18


def store_name(file: TravelFile) -> str:
    """What the machine's store calls the content of a file: its SHA-256, and `x` where it may be executed, since hard
    links share their mode.
    """
    return f"{file.sha256}x" if file.mode & 0o100 else file.sha256


def pack_plain(files: Iterable[TravelFile], extra: Mapping[str, bytes]) -> bytes:
    """A compressed archive of `files` by their destinations and of `extra`, path to content. The same give the same
    bytes.
    """
    packed = io.BytesIO()
    sink = Sink(packed, compressing=False)
    for name, content in sorted(extra.items()):
        sink.write(header(name, size=len(content), mode=0o644))
        sink.write(content)
        sink.end_file(len(content))
    for file in files:
        _add(sink, file, str(file.destination), mode=file.mode)
    sink.close()
    return gzip.compress(packed.getvalue(), _LEVEL, mtime=0)


def pack_links(files: Iterable[TravelFile], *, root: str, store: str) -> bytes:
    """An archive of hard links from `root` into `store`, both seen from the folder it is unpacked in. An empty file
    is made anew: a file system allows so many links to one, and nothing is as common.
    """
    packed = io.BytesIO()
    sink = Sink(packed, compressing=False)
    for file in files:
        link = f"{store}/{store_name(file)}" if file.size else ""
        sink.write(header(f"{root}/{file.destination}", size=0, mode=file.mode, link=link))
    sink.close()
    return packed.getvalue()


def pack_contents(target: BinaryIO, files: Iterable[TravelFile], *, on_bytes: Callable[[int], None]) -> Written:
    """Write an archive of contents, each once, by the names that the store has for them, for reading only, compressed
    where that makes it smaller; `on_bytes` is told how much more of them went in. Raises `TransferMismatch` where a
    file has changed since it was listed.
    """
    ordered = sorted(files, key=store_name)
    sink = Sink(target, compressing=_compresses(ordered))
    for file in ordered:
        _add(sink, file, store_name(file), mode=file.mode & 0o555, on_bytes=on_bytes)
    return sink.close()


def _add(
    sink: Sink, file: TravelFile, name: str, *, mode: int, on_bytes: Callable[[int], None] = lambda _: None
) -> None:
    changed = f"{file.source}: has changed since the plan was made; start again"
    digest, left = hashlib.sha256(), file.size
    sink.write(header(name, size=file.size, mode=mode))
    try:
        with file.source.open("rb", 0) as source:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                sink.write(chunk)
                on_bytes(len(chunk))
    except OSError as error:
        raise TransferMismatch(f"{changed} ({error})") from error
    if left or digest.hexdigest() != file.sha256:
        raise TransferMismatch(changed)
    sink.end_file(file.size)


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
