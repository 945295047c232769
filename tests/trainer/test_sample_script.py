"""DSSTNE's own sample script, under its own names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import netCDF4
import pytest
import quick_xla
from trainer_checkerboard import SAMPLES, write_network
from trainer_programs import BOARD, FEATURES, trainer

pytestmark = pytest.mark.usefixtures("working_folder")

ROOT = Path(__file__).parents[2]


RATINGS = ROOT.parent / "shared/data/ml-latest-small/ratings.csv"


SCRIPT = """
set -e
eval "$({python} -P -m trainer dsstne-path)"
generateNetCDF -d gl_input -i ml -o gl_input.nc -f features_input -s samples_input -c
generateNetCDF -d gl_output -i ml -o gl_output.nc -f features_output -s samples_input -c
train -c config.json -i gl_input.nc -o gl_output.nc -d gl -n gl.nc -b 256 -e 10
predict -b 256 -d gl -i features_input -o features_output -k 10 -n gl.nc -f ml -s recs -r ml
"""


def run_script(working_folder: Path) -> str:
    """What the script says, run in the working folder."""
    Path("trainer").mkdir()  # a folder of this name is not the program
    environment = {**os.environ, "XDG_CACHE_HOME": str(working_folder / "cache of mine"), "XLA_FLAGS": quick_xla.FLAGS}
    script = SCRIPT.format(python=sys.executable)
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here() -> None:
    """The script's commands in this process, which has imported JAX already, for fewer epochs."""
    for line in SCRIPT.replace("-e 10", "-e 2").strip().splitlines()[2:]:
        program, *flags = line.split()
        done = trainer({"generateNetCDF": "generate-netcdf"}.get(program, program), *flags)
        assert done.exit_code == 0, done.output


def test_dsstnes_sample_script_runs_unchanged_under_its_own_names(working_folder: Path) -> None:
    lines = [f"u{n}\t{':'.join(f'f{f},97881{f:04}' for f in row)}\n" for n, row in enumerate(BOARD)]
    Path("ml").write_text("".join(lines))
    write_network(Path("config.json"))
    said = run_script(working_folder)
    assert "Train will use configuration file: config.json" in said
    recs = Path("recs").read_text().splitlines()
    assert len(recs) == SAMPLES
    for n, line in enumerate(recs):
        name, _, items = line.partition("\t")
        assert name == f"u{n}"
        listed = [item.split(",")[0] for item in items.rstrip(":").split(":")]
        # Ten are asked for, seven are there that the sample has not seen; those of padding units are none.
        assert sorted(listed) == sorted(f"f{f}" for f in range(FEATURES) if f not in BOARD[n])
    with netCDF4.Dataset("gl.nc") as file:
        assert file.getncattr("layers") == 3


@pytest.mark.skipif(not RATINGS.is_file(), reason="../shared/data/ml-latest-small is not here")
def test_the_sample_runs_on_real_ratings_and_lists_ten_unseen_films_for_everyone(working_folder: Path) -> None:
    seen: dict[str, list[str]] = {}
    for line in RATINGS.read_text().splitlines()[1:]:
        user, film, _, timestamp = line.split(",")
        seen.setdefault(user, []).append(f"{film},{timestamp}")
    Path("ml").write_text("".join(f"{user}\t{':'.join(films)}\n" for user, films in seen.items()))
    shutil.copy(ROOT / "configs/networks/dsstne-movielens.json", "config.json")
    run_here()
    lines = Path("recs").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(seen)
    for line in lines:
        user, _, items = line.partition("\t")
        assert re.fullmatch(r"(\d+,\d\.\d{3}:){10}", items)
        listed = [item.split(",")[0] for item in items.rstrip(":").split(":")]
        assert len(set(listed)) == 10
        assert set(listed).isdisjoint(film.split(",")[0] for film in seen[user])
