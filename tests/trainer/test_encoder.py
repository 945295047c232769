"""The CDL file of DSSTNE's encoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer_checkerboard import NETWORK
from trainer_programs import BOARD, losses, sparse, trainer
from typer.testing import Result

from trainer.data.netcdf import write_datasets
from trainer.network_file import read_network_file

pytestmark = pytest.mark.usefixtures("working_folder")

CDL: dict[str, Any] = {
    "Version": 1.0,
    "Network": "config.json",
    "Data": ["in.nc", "out.nc"],
    "Command": "Train",
    "RandomSeed": 7,
    "TrainingParameters": {
        "Epochs": 5, "Alpha": 0.5, "AlphaInterval": 2, "MiniBatch": 16, "ShuffleIndices": False, "lambda": 0,
        "Optimizer": "nesterov", "CheckpointInterval": 2, "CheckpointName": "kept", "Results": "trained.nc",
    },
}  # fmt: skip


def encoder(**changes: object) -> Result:
    Path("job.cdl").write_text(json.dumps({**CDL, **changes}))
    return trainer("encoder", "job.cdl")


def board_files() -> None:
    write_datasets(Path("in.nc"), [sparse("input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("output", BOARD)])
    network = json.loads(NETWORK.replace("gl_input", "input").replace("gl_output", "output"))
    Path("config.json").write_text(json.dumps({**network, "Denoising": {"p": 0.0}}))


def test_a_cdl_trains_predicts_and_validates() -> None:
    board_files()
    told = losses(encoder())
    assert len(told) == 5, "as many epochs as are asked for, whatever AlphaInterval"
    assert told[-1] < told[0]
    assert sorted(path.name for path in Path().glob("kept*")) == ["kept2.nc", "kept4.nc"]
    done = encoder(Command="Predict", Network="trained.nc")
    assert done.exit_code == 0, done.output
    rows = [line.split(",") for line in done.output.splitlines()]
    assert [int(row[0]) for row in rows] == list(range(1, 11))
    assert all(len(row) == 4 for row in rows)
    precision, recall, ndcg = (np.array([float(row[column]) for row in rows]) for column in (1, 2, 3))
    # Five targets a sample: both speak of the same hits.
    np.testing.assert_allclose(precision * np.arange(1, 11), recall * 5, atol=2e-3)
    assert precision[0] > 0.9
    assert (np.diff(ndcg) >= 0).all()
    done = encoder(Command="Validate")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("Validation passed\n")


def test_a_cdl_that_names_no_optimizer_leaves_the_networks_own() -> None:
    board_files()
    own = {key: value for key, value in CDL["TrainingParameters"].items() if key != "Optimizer"}
    as_network = losses(encoder(TrainingParameters=own))
    assert as_network == losses(encoder(TrainingParameters={**own, "Optimizer": "adam"}))
    assert as_network != losses(encoder(TrainingParameters={**own, "Optimizer": "sgd"}))
    done = trainer("encoder")
    assert (done.exit_code, done.output) == (1, "Error: a CDL file is wanted\n")


def test_the_learning_rate_falls_by_its_multiplier_at_each_interval() -> None:
    board_files()
    still = {**CDL["TrainingParameters"], "AlphaInterval": 1, "AlphaMultiplier": 0.0}
    losses(encoder(TrainingParameters={**still, "Epochs": 1, "Results": "one.nc"}))
    losses(encoder(TrainingParameters={**still, "Epochs": 3, "Optimizer": "sgd", "Results": "three.nc"}))
    losses(encoder(TrainingParameters={**still, "Epochs": 1, "Optimizer": "sgd", "Results": "first.nc"}))
    three, first = (read_network_file(Path(name))[1].connections[0].kernel for name in ("three.nc", "first.nc"))
    np.testing.assert_array_equal(three, first)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Comand": "Train"}, "$.Comand: *** CDL::Load_JSON: Unknown keyword:  Comand"),
        ({"PredictionParameters": {}}, "*** CDL::Load_JSON: Unknown keyword:  PredictionParameters"),
        ({"Command": "Sing"}, "unknown Command: Sing"),
        ({"Network": 5}, "$.Network: a string is wanted"),
        ({"Data": []}, "CDL::Load_JSON: Data source file is required to be set"),
        ({"TrainingParameters": {}}, "CDL::Load_JSON: Mode set to Training, requires number of epochs to be set"),
        ({"TrainingParameters": {"Epochs": 1, "Momentum": 1}}, "CDL::Load_JSON: Invalid TrainingParameter: Momentum"),
        (
            {"TrainingParameters": {"Epochs": 1, "Optimizer": "best"}},
            "CDL::Load_JSON: Invalid TrainingParameter Optimizer: best",
        ),
        ({"Data": ["in.nc", "in.nc"]}, "dataset input is in another file of Data, too"),
    ],
)
def test_a_wrong_cdl_is_one_error_with_its_path(changes: dict[str, object], expected: str) -> None:
    board_files()
    done = encoder(**changes)
    assert done.exit_code == 1, done.output
    assert done.output.count("\n") == 1
    assert expected in done.output
