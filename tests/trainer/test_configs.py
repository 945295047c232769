"""The networks that ship, each checked and trained."""

import math
from pathlib import Path

import pytest
from network_texts import ROOT
from trainer_networks import mesh_of, random_rows

from trainer.fitting import training_data
from trainer.inputs import check, prepare
from trainer.network import read_network
from trainer.settings import TrainSettings
from trainer.train import EpochReport, train

FILES = sorted((ROOT / "configs/networks").glob("*.json"))
SHIPPED = [path for path in FILES if {layer.dataset for layer in read_network(path).inputs} == {"gl_input"}]
"""Those that want a user's items and nothing else."""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_network_is_accepted_and_trains_two_epochs(path: Path, tmp_path: Path) -> None:
    rows = random_rows(12, 30, seed=8)[1:]
    lines = [f"user{number}\t{':'.join(map(str, row))}" for number, row in enumerate(rows)]
    (tmp_path / "data.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert check(path, tmp_path / "data.txt")["samples"] == 11
    settings = TrainSettings(batch_size=8, epochs=2)
    inputs = prepare(read_network(path), tmp_path / "data.txt", settings)
    told: list[EpochReport] = []
    train(inputs.spec, training_data(inputs.spec, inputs.training), settings, mesh=mesh_of((1, 2)), tell=told.append)
    assert [report.epoch for report in told] == [1, 2]
    assert all(0 < report.loss < math.inf for report in told)


def test_there_are_networks_of_every_kind() -> None:
    assert {"movielens", "multi-dae", "multi-vae", "linear", "large-catalogue", "gram"} <= {
        path.stem for path in SHIPPED
    }
