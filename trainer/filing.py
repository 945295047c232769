"""Files as every reader and writer of data opens them: lines end at LF alone, bytes that are no UTF-8 survive,
and nothing half-written stands under its final name.
"""

import errno
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import DataError

_LEAST_FREE_BYTES = 1 << 16


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file without their LF; a CR is kept. `DataError` if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def cache_folder() -> Path:
    """Where this program may keep what it can make again; not made here."""
    # A relative one is to be ignored, says the XDG base directory specification.
    given = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    return (given if given.is_absolute() else Path.home().absolute() / ".cache") / "launch-and-train"


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written: before the work is done, not after."""
    folder = path.resolve().parent
    if path.is_dir() or not path.name:
        raise DataError("is a folder; a file is wanted", path)
    if path.exists() and not path.is_file():
        raise DataError("is no regular file; it is not replaced", path)
    if not folder.is_dir():
        raise DataError(f"cannot be written: there is no folder {folder}", path)
    if not os.access(folder, os.W_OK):
        raise DataError(f"cannot be written: {os.strerror(errno.EACCES)}", path)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A name to write to, which takes the place of `path` if all goes well and vanishes if not. What a link points to
    is replaced; a folder or a device never is.
    """
    aside: Path | None = None
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise DataError("is no regular file; it is not replaced", path)
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        # The HDF5 library calls every failure a refused permission.
        aside.touch()
        yield aside
        aside.replace(target)
        aside = None
    except OSError as error:
        reason = os.strerror(errno.ENOSPC) if _is_full(path) else error.strerror or str(error)
        raise DataError(f"cannot be written: {reason}", path) from error
    finally:
        if aside is not None:
            with suppress(OSError):
                aside.unlink()


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.resolve().parent).free < _LEAST_FREE_BYTES
    except OSError:
        return False
