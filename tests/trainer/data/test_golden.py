"""What the original converter wrote for hand-made inputs. The cases lie beside the project, not in it."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import netCDF4
import pytest
from netcdf_types import attribute_type

from trainer.data.generate import GenerateOptions, generate_netcdf

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()) if GOLDEN.is_dir() else []


def options_of(line: str) -> GenerateOptions:
    words = shlex.split(line.removeprefix("$ "))[1:]

    def value(flag: str, default: str = "") -> str:
        return words[words.index(flag) + 1] if flag in words else default

    return GenerateOptions(
        dataset_name=value("-d"),
        input_path=Path(value("-i")),
        output_path=Path(value("-o")),
        feature_index=Path(value("-f")),
        sample_index=Path(value("-s")),
        create="-c" in words,
        merge="-m" in words,
        kind=value("-t", "indicator"),
    )


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


@pytest.mark.skipif(not CASES, reason="../shared/golden is not here")
@pytest.mark.parametrize("case", CASES)
def test_the_converter_writes_what_the_original_wrote(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / case
    folder.mkdir()
    for path in (GOLDEN / case).glob("*"):
        if path.name.startswith("in") and path.suffix == ".txt":
            shutil.copy(path, folder)
        if path.suffix == ".before":
            shutil.copy(path, folder / path.stem)
    monkeypatch.chdir(folder)
    said: list[str] = []
    for line in (GOLDEN / case / "cmd.txt").read_text().splitlines():
        generate_netcdf(options_of(line), said.append)
        said.append("[exit 0]")
    told = re.sub(r"\d+\.\d+ secs", "<t> secs", "\n".join(said) + "\n")
    assert told == (GOLDEN / case / "stdout.txt").read_text()
    for path in (GOLDEN / case).glob("*"):
        if path.suffix == ".nc":
            assert content(folder / path.name) == content(path)
        elif path.name.startswith(("features", "samples")) and path.suffix in {"", ".txt"}:
            assert set((folder / path.name).read_text().splitlines()) == set(path.read_text().splitlines())
