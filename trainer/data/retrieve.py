"""Fetches a dataset by URL, once: what lies in the cache is not fetched again. Archives are unpacked. What the
data means is unknown here.
"""

import hashlib
import http.client
import lzma
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.errors import DataError
from trainer.filing import replacing

_SCHEMES = ("http", "https", "file")
_TIMEOUT_SECONDS = 60.0
_CHUNK = 1 << 20
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError,
)  # fmt: skip
"""What the standard library raises over archives that are broken, truncated, encrypted or malicious."""


def retrieve(url: str, *, into: Path, sha256: str | None = None) -> Path:
    """The file or folder behind `url`, kept under `into`; a path is itself. `sha256` is that of the file as it
    is fetched. Anything that goes wrong raises `DataError` and leaves nothing half-fetched.
    """
    if "://" not in url:
        return _local(Path(url), sha256=sha256)
    name = _name(url)
    folder = into / hashlib.sha256(url.encode()).hexdigest()[:16]
    file = folder / name
    if not file.is_file():
        _make(folder)
        _fetch(url, file)
    try:
        return opened(file, url, sha256=sha256)
    except DataError:
        # Kept, it would be found again and fail again.
        shutil.rmtree(folder)
        raise


def opened(file: Path, url: str, *, sha256: str | None) -> Path:
    """A file that was fetched from `url` by whatever means, or what it holds, unpacked beside it. `DataError` where its
    SHA-256 is another or it cannot be unpacked.
    """
    _check(file, url, sha256)
    return _unpacked(file, url) if file.name.lower().endswith(_ARCHIVES) else file


def _local(path: Path, *, sha256: str | None) -> Path:
    if not path.exists():
        raise DataError("no such data file or folder", path)
    if path.is_file():
        _check(path, str(path), sha256)
    return path


def _name(url: str) -> str:
    """The name of the file behind a URL that can be fetched."""
    try:
        scheme, _, path, *_ = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DataError(f"is no URL: {error}", url) from error
    if scheme not in _SCHEMES:
        raise DataError(f"scheme {scheme!r} is not fetched; one of {', '.join(_SCHEMES)} is", url)
    return PurePosixPath(urllib.parse.unquote(path)).name or "data"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be made to keep data in: {error.strerror}", folder) from error


def _fetch(url: str, file: Path) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer,  # noqa: S310 - schemes are checked
            replacing(file) as aside,
            aside.open("wb") as target,
        ):
            target.writelines(_chunks(answer, url))
            promised = answer.headers.get("Content-Length")
            if promised is not None and target.tell() != int(promised):
                raise DataError(f"broke off after {target.tell()} of {promised} bytes; try again", url)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"the server answers {error.code} {error.reason}", url) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"cannot be fetched: {getattr(error, 'reason', None) or error}", url) from error


def _chunks(answer: Any, url: str) -> Iterator[bytes]:
    """What the server sends. Its failures are told apart here from those of the disk."""
    try:
        while chunk := answer.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"broke off: {error}; try again", url) from error


def _check(file: Path, url: str, sha256: str | None) -> None:
    if sha256 is None:
        return
    with file.open("rb") as source:
        found = hashlib.file_digest(source, "sha256").hexdigest()
    if found != sha256.lower():
        raise DataError(f"has SHA-256 {found}, {sha256} was promised", url)


def _unpacked(file: Path, url: str) -> Path:
    """The folder an archive holds: its only one, or all of it."""
    folder = file.with_name(f"{file.name}.unpacked")
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            inside = Path(scratch) / "content"
            inside.mkdir()
            try:
                _unpack(file, inside)
            except _BROKEN as error:
                raise DataError(f"cannot be unpacked: {error}", url) from error
            inside.rename(folder)
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(("__MACOSX", "."))]
    return found[0] if len(found) == 1 else folder


def _unpack(file: Path, folder: Path) -> None:
    # By name first: a tar that holds a zip looks like a zip, too.
    if not file.name.lower().endswith(".zip") or not zipfile.is_zipfile(file):
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            target = (folder / member).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise ValueError(f"member {member!r} would leave the folder")
        archive.extractall(folder)  # noqa: S202 - every member was looked at
