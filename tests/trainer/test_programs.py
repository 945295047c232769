"""DSSTNE's programs beyond its sample: more inputs and outputs, layers, checkpoints, CDL, their own names."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from trainer_checkerboard import NETWORK, SAMPLES, features_of, write_checkerboard, write_network
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.data.netcdf import write_datasets
from trainer.dense import DenseDataset
from trainer.network_file import read_network_file
from trainer.sparse import SparseDataset

FEATURES = 12
ROOT = Path(__file__).parents[2]
RATINGS = ROOT.parent / "shared/data/ml-latest-small/ratings.csv"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """DSSTNE's programs leave files where they are called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        yield tmp_path


def trainer(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sparse(name: str, rows: Sequence[Sequence[int]], *, values: bool = False) -> SparseDataset:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.array([feature for row in rows for feature in row], np.uint32)
    analog = np.linspace(0.5, 2.0, len(indices)).astype(np.float32) if values else None
    return SparseDataset(name, FEATURES, indptr, indices, analog)


BOARD = [features_of(n) for n in range(SAMPLES)]


def losses(result: Result) -> list[float]:
    assert result.exit_code == 0, result.output
    return [
        float(line.split("average training error ")[1].split(",")[0])
        for line in result.output.splitlines()
        if line.startswith("NNNetwork::Train: Epoch")
    ]


def train(network: object, *flags: object) -> Result:
    Path("config.json").write_text(json.dumps(network))
    return trainer("train", "-c", "config.json", "-i", "in.nc", "-o", "out.nc", "-n", "gl.nc", "-b", 16, *flags)


TWO_AND_TWO = {
    "Layers": [
        {"Name": "Seen", "Kind": "Input", "N": "auto", "DataSet": "seen", "Sparse": True},
        {"Name": "Rated", "Kind": "Input", "N": "auto", "DataSet": "rated", "Sparse": True},
        {"Name": "Hidden", "Kind": "Hidden", "N": 8, "Source": ["Seen", "Rated"], "Activation": "Tanh"},
        {"Name": "Next", "Kind": "Output", "N": "auto", "DataSet": "next", "Source": "Hidden"},
        {"Name": "Side", "Kind": "Output", "N": "auto", "DataSet": "side", "Source": "Hidden", "Activation": "Tanh",
         "ErrorFunction": {"Name": "L2", "Weight": 0.5}},
    ],
    "Optimizer": {"Name": "Adam", "LearningRate": 0.05},
}  # fmt: skip


def two_and_two() -> None:
    write_datasets(Path("in.nc"), [sparse("seen", BOARD), sparse("rated", BOARD, values=True)])
    side = np.array([[(-1.0) ** n, n / SAMPLES] for n in range(SAMPLES)])
    write_datasets(Path("out.nc"), [DenseDataset("side", (2,), side), sparse("next", BOARD)])


def text(name: str) -> Path:
    """The board as DSSTNE text with values, in reversed order of samples, without sample 3."""
    lines = [f"s{n}\t{':'.join(f'f{f},1.5' for f in BOARD[n])}\n" for n in reversed(range(SAMPLES)) if n != 3]
    Path(name).write_text("".join(lines))
    return Path(name)


def index(name: str) -> Path:
    Path(name).write_text("".join(f"f{n}\t{n}\n" for n in range(FEATURES)))
    return Path(name)


def test_several_inputs_and_outputs_train_and_each_output_can_be_asked() -> None:
    two_and_two()
    told = losses(train(TWO_AND_TWO, "-e", 12))
    assert told[-1] < told[0] / 2
    spec, weights = read_network_file(Path("gl.nc"))
    assert [layer.analog for layer in spec.inputs] == [False, True]
    assert len(weights.connections) == 4
    write_checkerboard(Path("samples.txt"))
    Path("none").touch()
    asked = (
        "predict", "-d", "rated", "-n", "gl.nc", "-i", index("features"), "-o", "features", "-f", "none",
        "-r", "samples.txt", "-s", "recs", "-k", 3,
    )  # fmt: skip
    done = trainer(*asked)
    assert done.exit_code == 1
    assert "reads the datasets seen, rated; given are rated_input" in done.output


def test_predict_lines_several_inputs_up_by_sample_name() -> None:
    network = json.loads(json.dumps(TWO_AND_TWO).replace('"seen"', '"gl_input"'))
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD), sparse("rated", BOARD, values=True)])
    write_datasets(Path("out.nc"), [DenseDataset("side", (2,), np.zeros((SAMPLES, 2))), sparse("next", BOARD)])
    losses(train(network, "-e", 8))
    write_checkerboard(Path("samples.txt"))
    Path("none").touch()

    def asked(*flags: object) -> list[str]:
        done = trainer(
            "predict", "-d", "gl", "-n", "gl.nc", "-i", index("features"), "-o", "features", "-f", "none",
            "-r", "samples.txt", "-s", "recs", "-k", 3, "-p", ".6f", "--output-layer", "Next", *flags,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        return Path("recs").read_text().splitlines()

    straight = asked("--also", f"rated={text('rated.txt')},features")
    assert [line.split("\t")[0] for line in straight] == [f"s{n}" for n in range(SAMPLES)]
    lines = text("rated.txt").read_text().splitlines(keepends=True)
    Path("shuffled.txt").write_text("".join([*lines[::2], *lines[1::2], "stranger\tf1,2\n"]))
    assert asked("--also", "rated=shuffled.txt,features") == straight
    Path("empty.txt").write_text("s3\t\n")
    assert asked("--also", "rated=empty.txt,features")[3] == straight[3]
    assert asked("--also", "rated=empty.txt,features") != straight


def test_two_input_layers_may_read_one_dataset() -> None:
    network = json.loads(NETWORK)
    first, hidden, output = network["Layers"]
    network["Layers"] = [first, {**first, "Name": "Again"}, {**hidden, "Source": ["Input", "Again"]}, output]
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    losses(train(network, "-e", 2))
    write_checkerboard(Path("samples.txt"))
    done = trainer(
        "predict", "-d", "gl", "-n", "gl.nc", "-i", index("features"), "-o", "features", "-f", "samples.txt",
        "-r", "samples.txt", "-s", "recs", "-k", 3,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(Path("recs").read_text().splitlines()) == SAMPLES


def test_a_network_file_says_what_the_run_was_told() -> None:
    network = json.loads(NETWORK)
    del network["Layers"][0]["Sparse"]
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    losses(train(network, "-e", 1))
    with netCDF4.Dataset("gl.nc") as file:
        # Sparse by its data, not denoised as its author did not call it sparse.
        assert int(file.getncattr("layer0_attributes")) == 1
        assert file.getncattr("checkpoint_name") == "gl.nc"
        assert (file.getncattr("checkpoint_interval").dtype, int(file.getncattr("checkpoint_interval"))) == (
            np.int32,
            10,
        )


def test_values_of_samples_are_served_where_the_network_was_trained_on_values() -> None:
    network = json.loads(NETWORK)
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD, values=True)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    losses(train(network, "-e", 5))
    Path("none").touch()
    Path("samples.txt").write_text("a\tf0,1:f1,1\nb\tf0,9:f1,1\n")

    def scores(*flags: object) -> list[str]:
        done = trainer(
            "predict", "-d", "gl", "-n", "gl.nc", "-i", index("features"), "-o", "features", "-f", "none",
            "-r", "samples.txt", "-s", "recs", "-p", ".6f", *flags,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        return [line.split("\t")[1] for line in Path("recs").read_text().splitlines()]

    first, second = scores()
    assert first != second
    first, second = scores("-t", "indicator")
    assert first == second


def test_a_layer_is_written_unit_by_unit() -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    losses(train(json.loads(NETWORK), "-e", 2))
    write_checkerboard(Path("samples.txt"))
    done = trainer(
        "predict", "-d", "gl", "-n", "gl.nc", "-i", index("features"), "-o", "features", "-f", "samples.txt",
        "-r", "samples.txt", "-s", "hidden", "-p", ".6f", "-l", "Hidden",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    _, weights = read_network_file(Path("gl.nc"))
    kernel, bias = weights.connections[0]
    expected = np.tanh(np.array([[f in row for f in range(FEATURES)] for row in BOARD], float) @ kernel + bias)
    found = [
        [float(item.split(",")[1]) for item in line.split("\t")[1].rstrip(":").split(":")]
        for line in Path("hidden").read_text().splitlines()
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_initial_network_and_every_tenth_epoch_are_kept() -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    done = train(json.loads(NETWORK), "-e", 21)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path().glob("*gl.nc*")) == ["gl.nc", "gl.nc10.nc", "gl.nc20.nc"]
    assert "NNNetwork::Train: saving checkpoint gl.nc20.nc" in done.output
    kernels = [
        read_network_file(Path(name))[1].connections[0].kernel
        for name in ("initial_network.nc", "gl.nc10.nc", "gl.nc20.nc", "gl.nc")
    ]
    assert len({kernel.tobytes() for kernel in kernels if kernel is not None}) == 4


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"ErrorFunction": "Hinge"}, "layer Output: Hinge needs a dense dataset"),
        ({"Layers": [{"DataSet": "gl_input", "N": 6, "Sparse": True}, {"DataSet": "gl_output", "N": 12}]}, "N"),
        ({"Layers": [{"DataSet": "gl", "N": 12, "Sparse": True}, {"DataSet": "gl_output", "N": 12}]}, "'gl'"),
    ],
)
def test_data_that_does_not_fit_is_one_error_and_nothing_is_written(network: dict[str, object], expected: str) -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    done = train({**json.loads(NETWORK), **network})
    assert done.exit_code == 1
    assert expected in done.output.splitlines()[-1]
    assert not Path("gl.nc").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-n", "nowhere/gl.nc"), "nowhere/gl.nc: cannot be written: there is no folder "),
        (("-n", ""), "is a folder; a file is wanted"),
        (("-alpha", "nan"), "-alpha: "),
        (("-b", "0"), "-b: "),
        (("-b", "1_0"), "-b 1_0: no number"),
        (("--seed", "99999999999999999999"), "--seed: "),
        (("--checkpoints", "in.nc"), "in.nc: is no folder"),
    ],
)
def test_what_would_fail_in_the_end_is_refused_before_the_first_epoch(flags: tuple[str, str], expected: str) -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    Path("config.json").write_text(NETWORK)
    given = {"-c": "config.json", "-i": "in.nc", "-o": "out.nc", "-n": "gl.nc", "-b": "16", flags[0]: flags[1]}
    done = trainer("train", *(word for pair in given.items() for word in pair))
    assert done.exit_code == 1
    assert done.output.splitlines()[-1].startswith("Error: ")
    assert expected in done.output
    assert "NNNetwork::Train" not in done.output


def test_no_epochs_leave_the_network_as_it_began() -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    assert losses(train(json.loads(NETWORK), "-e", 0)) == []
    for name in ("gl.nc", "initial_network.nc"):
        assert read_network_file(Path(name))[1].connections[0].bias.shape == (8,)


def test_more_samples_in_than_out_is_refused() -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD[:-1])])
    done = train(json.loads(NETWORK))
    assert done.exit_code == 1
    assert "gl_output of layer Output has 59 samples, gl_input of layer Input has 60" in done.output


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("-c", "-c: config file was not specified."),
        ("-i", "-i: input data file is not specified."),
        ("-o", "-o: output data  file is not specified."),
        ("-n", "-n: the output network file path is not specified."),
    ],
)
def test_a_missing_flag_is_said_as_dsstne_says_it(missing: str, expected: str) -> None:
    for name in ("config.json", "in.nc", "out.nc"):
        Path(name).touch()
    given = {"-c": "config.json", "-i": "in.nc", "-o": "out.nc", "-n": "gl.nc"}
    done = trainer("train", *(word for flag, value in given.items() if flag != missing for word in (flag, value)))
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: Missing required argument: {expected}\n")


CDL = {
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
    own = {key: value for key, value in CDL["TrainingParameters"].items() if key != "Optimizer"}  # type: ignore[union-attr]
    as_network = losses(encoder(TrainingParameters=own))
    assert as_network == losses(encoder(TrainingParameters={**own, "Optimizer": "adam"}))
    assert as_network != losses(encoder(TrainingParameters={**own, "Optimizer": "sgd"}))
    done = trainer("encoder")
    assert (done.exit_code, done.output) == (1, "Error: a CDL file is wanted\n")


def test_the_learning_rate_falls_by_its_multiplier_at_each_interval() -> None:
    board_files()
    still = {**CDL["TrainingParameters"], "AlphaInterval": 1, "AlphaMultiplier": 0.0}  # type: ignore[dict-item]
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
        ({"Command": "Sing"}, "'Sing' is no command"),
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


def test_a_killed_training_goes_on_to_the_same_weights(folder: Path) -> None:
    write_datasets(Path("in.nc"), [sparse("gl_input", BOARD)])
    write_datasets(Path("out.nc"), [sparse("gl_output", BOARD)])
    network = {**json.loads(NETWORK), "ShuffleIndices": True}
    whole = losses(train(network, "-e", 6))
    expected = read_network_file(Path("gl.nc"))[1]
    Path("gl.nc").unlink()
    flags = ("--checkpoints", "saved", "--checkpoint-steps", 3)
    losses(train(network, "-e", 4, *flags))
    Path("gl.nc").unlink()
    told = losses(train(network, "-e", 6, *flags))
    assert told == whole[-len(told) :]
    assert len(told) < 6
    for here, there in zip(read_network_file(Path("gl.nc"))[1].connections, expected.connections, strict=True):
        np.testing.assert_array_equal(here.kernel, there.kernel)
        np.testing.assert_array_equal(here.bias, there.bias)
    Path("gl.nc").unlink()
    refused = train(network, "-e", 4, *flags)
    assert refused.exit_code == 1
    assert "this checkpoint is of epoch 6, 4 are asked for" in refused.output
    refused = train({**network, "Denoising": {"p": 0.1}}, "-e", 6, *flags)
    assert refused.exit_code == 1
    assert "this checkpoint is of another network, other data or other settings" in refused.output


SCRIPT = """
set -e
eval "$({python} -P -m trainer dsstne-path)"
generateNetCDF -d gl_input -i ml -o gl_input.nc -f features_input -s samples_input -c
generateNetCDF -d gl_output -i ml -o gl_output.nc -f features_output -s samples_input -c
train -c config.json -i gl_input.nc -o gl_output.nc -d gl -n gl.nc -b 256 -e 10
predict -b 256 -d gl -i features_input -o features_output -k 10 -n gl.nc -f ml -s recs -r ml
"""


def run_script(folder: Path) -> str:
    """What the script says, run in `folder`."""
    Path("trainer").mkdir()  # a folder of this name is not the program
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache of mine"), "XLA_FLAGS": ""}
    script = SCRIPT.format(python=sys.executable)
    done = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dsstnes_sample_script_runs_unchanged_under_its_own_names(folder: Path) -> None:
    lines = [f"u{n}\t{':'.join(f'f{f},97881{f:04}' for f in row)}\n" for n, row in enumerate(BOARD)]
    Path("ml").write_text("".join(lines))
    write_network(Path("config.json"))
    said = run_script(folder)
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
def test_the_sample_runs_on_real_ratings_and_lists_ten_unseen_films_for_everyone(folder: Path) -> None:
    seen: dict[str, list[str]] = {}
    for line in RATINGS.read_text().splitlines()[1:]:
        user, film, _, timestamp = line.split(",")
        seen.setdefault(user, []).append(f"{film},{timestamp}")
    Path("ml").write_text("".join(f"{user}\t{':'.join(films)}\n" for user, films in seen.items()))
    shutil.copy(ROOT / "configs/networks/dsstne-movielens.json", "config.json")
    run_script(folder)
    lines = Path("recs").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(seen)
    for line in lines:
        user, _, items = line.partition("\t")
        assert re.fullmatch(r"(\d+,\d\.\d{3}:){10}", items)
        listed = [item.split(",")[0] for item in items.rstrip(":").split(":")]
        assert len(set(listed)) == 10
        assert set(listed).isdisjoint(film.split(",")[0] for film in seen[user])
