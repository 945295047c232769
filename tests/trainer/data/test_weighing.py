"""Ratings that count by what they say and by their age."""

from pathlib import Path

import numpy as np
import pytest
from network_texts import ROOT
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data.netcdf import read_datasets
from trainer.data.weighing import Weighing, load_weighed, read_weighed
from trainer.errors import DataError, SettingsError
from trainer.inputs import prepare
from trainer.network import read_network
from trainer.settings import TrainSettings
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


def test_a_job_takes_ratings_as_its_settings_say(table: Path):
    network = read_network(ROOT / "configs/networks/multi-dae.json")

    def found(**settings: object) -> dict[tuple[str, str], float]:
        return entries(prepare(network, table, TrainSettings.of(**settings)).training)

    assert found() == {("b", "y"): 1.0, ("a", "x"): 1.0, ("a", "y"): 1.0, ("b", "x"): 1.0}
    assert found(min_rating=4) == {("b", "y"): 1.0, ("a", "y"): 1.0}
    assert found(min_rating=4, analog=True) == {("b", "y"): 4.0, ("a", "y"): 5.0}
    assert found(min_rating=3, half_life_days=4) == {("b", "y"): 1.0, ("a", "y"): 0.5, ("b", "x"): 0.25}


def test_a_job_whose_data_lack_ratings_or_times_is_refused(tmp_path: Path):
    text, table = tmp_path / "samples.txt", tmp_path / "ratings.csv"
    text.write_text("a\tx:y\nb\ty\n", encoding="utf-8")
    table.write_text("user,item,rating\na,x,3\n", encoding="utf-8")
    for path, weighing, message in (
        (text, Weighing(min_rating=3), r"min_rating: .*samples\.txt is no ratings table, so it has no ratings"),
        (text, Weighing(analog=True), r"analog: .*samples\.txt has no values; `feature,value` or a ratings table"),
        (text, Weighing(half_life_days=9), r"half_life_days: .*samples\.txt is no ratings table with a fourth column"),
        (table, Weighing(half_life_days=9), r"ratings\.csv:2: .*time"),
    ):
        with pytest.raises((SettingsError, DataError), match=message):
            load_weighed(path, weighing)
    text.write_text("a\tx,2:y,0.5\nb\ty,3\n", encoding="utf-8")
    values = entries(load_weighed(text, Weighing(analog=True)).dataset)
    assert values == {("a", "x"): 2.0, ("a", "y"): 0.5, ("b", "y"): 3.0}
