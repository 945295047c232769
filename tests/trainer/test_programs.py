"""DSSTNE's programs beyond its sample: more inputs and outputs, layers, checkpoints."""

import json
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from trainer_checkerboard import NETWORK, SAMPLES, write_checkerboard
from trainer_programs import BOARD, FEATURES, index, losses, sparse, text, train, trainer

from trainer import programs
from trainer.data.netcdf import Dataset, read_datasets, write_datasets
from trainer.dense import DenseDataset
from trainer.network_file import read_network_file

pytestmark = pytest.mark.usefixtures("working_folder")

TWO_AND_TWO: dict[str, Any] = {
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
        ({"Layers": [{"DataSet": "gl", "N": 12, "Sparse": True}, {"DataSet": "gl_output", "N": 12}]}, "data set gl to"),
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


def test_data_left_in_their_files_end_at_the_same_weights() -> None:
    two_and_two()
    *layers, following, side = TWO_AND_TWO["Layers"]
    following = {**following, "WeightInit": {"Bias": "LogOdds"}}
    network = {**TWO_AND_TWO, "ShuffleIndices": True, "Layers": [*layers, following, side]}
    told = losses(train(network, "-e", 3, "--checkpoints", "saved"))
    expected = Path("gl.nc").read_bytes()
    Path("gl.nc").unlink()
    assert losses(train(network, "-e", 3, "--data-memory", 0)) == told
    assert Path("gl.nc").read_bytes() == expected
    Path("gl.nc").unlink()
    # A training begun in memory goes on from the files: its data count as the same.
    goes_on = train(network, "-e", 4, "--checkpoints", "saved", "--data-memory", 0)
    assert len(losses(goes_on)) < 4


def test_the_memory_for_data_is_shared_by_both_files(monkeypatch: pytest.MonkeyPatch) -> None:
    two_and_two()
    asked: list[float] = []

    def read(path: Path, *, memory_bytes: float, **more: Any) -> dict[str, Dataset]:
        asked.append(memory_bytes)
        return read_datasets(path, memory_bytes=memory_bytes, **more)

    monkeypatch.setattr(programs, "read_datasets", read)
    losses(train(TWO_AND_TWO, "-e", 0, "--data-memory", 1e-3))
    entries = sum(map(len, BOARD))
    assert asked == [1e-3 * 2**30, 1e-3 * 2**30 - 3 * 4 * entries]


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


def test_a_killed_training_goes_on_to_the_same_weights(working_folder: Path) -> None:
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
