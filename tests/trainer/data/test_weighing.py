"""Ratings that count by what they say and by their age."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.netcdf import read_datasets
from trainer.data.weighing import Weighing, read_weighed
from trainer.errors import DataError, SettingsError
from trainer.sparse import SparseDataset

DAY = 86_400


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"b,y,4,{10 * DAY}", f"a,x,2,{9 * DAY}", f"a,y,5,{6 * DAY}", f"b,x,3,{2 * DAY}"]
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating,time\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def entries(dataset: SparseDataset) -> dict[tuple[str, str], float]:
    names = dataset.features.names() if dataset.features else []
    rows = np.repeat(np.arange(dataset.samples), np.diff(dataset.indptr))
    values = np.ones(dataset.nnz) if dataset.values is None else np.asarray(dataset.values)
    samples = dataset.sample_names or ()
    return {
        (samples[row], names[int(feature)]): float(value)
        for row, feature, value in zip(rows, dataset.indices, values, strict=True)
    }


def test_values_are_halved_for_each_half_life_that_they_are_older_than_the_latest(table: Path):
    faded = read_weighed(table, Weighing(analog=True, half_life_days=4.0)).dataset
    assert entries(faded) == pytest.approx(
        {("b", "y"): 4.0, ("b", "x"): 3 / 4, ("a", "x"): 2 * 2**-0.25, ("a", "y"): 5 / 2}
    )
    ones = read_weighed(table, Weighing(min_rating=3.0, half_life_days=4.0)).dataset
    assert entries(ones) == pytest.approx({("b", "y"): 1.0, ("b", "x"): 1 / 4, ("a", "y"): 1 / 2})


def test_the_verb_converts_what_counts(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    base = ["generate-netcdf", "-d", "gl", "-i", str(table), "-o", "gl.nc", "-f", "features", "-s", "samples", "-c"]
    said = CliRunner().invoke(app, [*base, "-t", "analog", "--min-rating", "4", "--half-life-days", "4"])
    assert said.exit_code == 0, said.output
    written = read_datasets(tmp_path / "gl.nc")["gl"]
    assert isinstance(written, SparseDataset)
    assert sorted(np.asarray(written.values).tolist()) == [2.5, 4.0]
    assert CliRunner().invoke(app, [*base, "--half-life-days", "4"]).exit_code == 1


def test_what_cannot_be_weighed_is_said(table: Path):
    with pytest.raises(SettingsError, match="more than 0 is wanted"):
        read_weighed(table, Weighing(half_life_days=0.0))
    with pytest.raises(DataError, match="of at least 6"):
        read_weighed(table, Weighing(min_rating=6.0))
    table.write_text("user,item,rating\na,x,3\n")
    with pytest.raises(DataError, match=r"ratings.csv:2: a fourth cell"):
        read_weighed(table, Weighing(half_life_days=1.0))
