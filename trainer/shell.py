"""DSSTNE's programs by their own names: small scripts that call this trainer, in a folder to be put on the PATH."""

import os
import shlex
import sys
from pathlib import Path

from trainer.errors import TrainerError
from trainer.filing import cache_folder

_PROGRAMS = {"generateNetCDF": "generate-netcdf", "train": "train", "predict": "predict", "encoder": "encoder"}


def path_line() -> str:
    """The line a shell evaluates; the scripts are written anew, since they name the Python that runs here."""
    folder = _folder()
    if ":" in str(folder):
        raise TrainerError(f"{folder}: a folder with a colon cannot be on the PATH; set XDG_CACHE_HOME to another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for program, verb in _PROGRAMS.items():
            _write(folder / program, verb)
    except OSError as error:
        raise TrainerError(f"{folder}: cannot be written: {error.strerror}; set XDG_CACHE_HOME") from error
    return f"export PATH={shlex.quote(str(folder))}:$PATH"


def _folder() -> Path:
    # One folder for each environment: two may be on one machine.
    return cache_folder() / "dsstne" / Path(sys.prefix).as_posix().strip("/").replace("/", "-")


def _write(path: Path, verb: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    # -P: a folder called trainer in the working directory is not this one.
    aside.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m trainer {verb} "$@"\n', encoding="utf-8")
    aside.chmod(0o755)
    aside.replace(path)
