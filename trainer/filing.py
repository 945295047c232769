"""Files as every reader and writer of data opens them: lines end at LF alone, bytes that are no UTF-8 survive,
and nothing half-written stands under its final name.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import DataError


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file without their LF; a CR is kept. `DataError` if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


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
        yield aside
        aside.replace(target)
        aside = None
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", path) from error
    finally:
        if aside is not None:
            with suppress(OSError):
                aside.unlink()
