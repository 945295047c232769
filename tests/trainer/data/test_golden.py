"""What the original converter wrote and said for hand-made inputs. The cases lie beside the project, not in it."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import netCDF4
import pytest
from netcdf_types import attribute_type
from typer.testing import CliRunner

from trainer.cli import app

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()) if GOLDEN.is_dir() else []


def content(path: Path) -> dict[str, Any]:
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        return {
            "attributes": {name: (attribute_type(file, name), str(file.getncattr(name))) for name in file.ncattrs()},
            "dimensions": {name: (len(size), size.isunlimited()) for name, size in file.dimensions.items()},
            "variables": {
                name: (str(values.dtype), values.dimensions, values[:].tolist())
                for name, values in file.variables.items()
            },
        }


def prepare(case: Path, folder: Path) -> None:
    """The inputs alone: what begins with `in` and is no result, folders, and index files as they were before."""
    for path in case.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif path.suffix == ".before":
            shutil.copy(path, folder / path.stem)
        elif path.name.startswith("in") and path.suffix not in {".nc", ".cdl"}:
            shutil.copy(path, folder)


def masked(text: str) -> str:
    """Times masked, and of the exit status whether it is 0."""
    text = re.sub(r"\d+\.?\d*(e-\d+)?(?= secs| *\)|, Total)", "<t>", text)
    return re.sub(r"\[exit [1-9]\d*\]", "[exit not 0]", text)


@pytest.mark.skipif(not CASES, reason="../shared/golden is not here")
@pytest.mark.parametrize("case", CASES)
def test_the_command_says_and_writes_what_the_original_did(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(GOLDEN / case, tmp_path)
    monkeypatch.chdir(tmp_path)
    said = ""
    for line in (GOLDEN / case / "cmd.txt").read_text().splitlines():
        done = CliRunner().invoke(app, ["generate-netcdf", *shlex.split(line.removeprefix("$ "))[1:]])
        said += f"{done.output}[exit {done.exit_code}]\n"
    assert masked(said) == masked((GOLDEN / case / "stdout.txt").read_text())
    for path in (GOLDEN / case).iterdir():
        if path.suffix == ".nc":
            assert content(tmp_path / path.name) == content(path)
        elif path.name.startswith(("features", "samples")) and path.suffix in {"", ".txt"}:
            assert set((tmp_path / path.name).read_text().splitlines()) == set(path.read_text().splitlines())
