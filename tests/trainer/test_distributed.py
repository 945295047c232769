"""Processes that train as one: by the real command line over loopback, each with half of the devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quick_xla
from trainer_checkerboard import write_checkerboard, write_network
from trainer_programs import BOARD, sparse, trainer

from trainer import distributed
from trainer.data.netcdf import write_dataset
from trainer.distributed import Group, meet
from trainer.errors import SettingsError, TrainerError
from trainer.job import run_job
from trainer.network_file import read_network_file
from trainer.rundir import RunDirectory

PATIENCE_SECONDS = 100


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def trainers(folder: Path, *arguments: str, devices: int = 4) -> list["subprocess.Popen[str]"]:
    """Two processes of `trainer train` in `folder`, with so many devices each."""
    asked = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": quick_xla.FLAGS}
    group = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "trainer", "train", *arguments, *group, str(process)],
            cwd=folder,
            env={**os.environ, **asked},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]


def ended(running: Sequence["subprocess.Popen[str]"]) -> tuple[list[int], list[str]]:
    """Exit statuses and what was said, without the library's own lines; none outlives its time."""
    try:
        said = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    lines = [[line for line in text.splitlines() if "peer ranks" not in line] for text in said]
    return [process.returncode for process in running], ["\n".join(own) for own in lines]


def run_directory(folder: Path, epochs: int = 3) -> Path:
    folder.mkdir()
    write_checkerboard(folder / "samples.txt")
    path = write_network(folder / "network.json")
    stopping = '"Training": {"EarlyStopping": {"Metric": "recall@3", "Validation": 0.2}}, '
    path.write_text(path.read_text().replace('"Denoising"', f'{stopping}"Denoising"'))
    settings = {"batch_size": 16, "epochs": epochs, "k": 3, "data_shards": 2}
    (folder / "spec.json").write_text(json.dumps({"data": "samples.txt", "settings": settings}))
    return folder


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] in ("loss", "validation.recall@3")]


def weights(path: Path) -> list[Any]:
    connections = read_network_file(path)[1].connections
    return [array for connection in connections for array in connection if array is not None]


def test_two_processes_do_a_job_as_one_does_and_the_first_writes_it(tmp_path: Path) -> None:
    alone, first = run_directory(tmp_path / "alone"), run_directory(tmp_path / "first")
    running = trainers(tmp_path, "--run-dir", "first")
    run_job(RunDirectory(alone), say=lambda _: None)
    statuses, said = ended(running)
    assert statuses == [0, 0], said
    np.testing.assert_allclose(losses(first), losses(alone), rtol=1e-5)
    for found, wanted in zip(weights(first / "gl.nc"), weights(alone / "gl.nc"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert (first / "recs").read_text() == (alone / "recs").read_text()
    assert (first / "exit").read_text() == "0\n"
    assert said[1] == ""


def test_two_processes_go_on_from_a_checkpoint_of_one_and_one_from_theirs(working_folder: Path) -> None:
    write_network(Path("config.json"))
    write_dataset(sparse("gl_input", BOARD), Path("in.nc"))
    write_dataset(sparse("gl_output", BOARD), Path("out.nc"))

    def command(result: str, epochs: int, *more: str) -> list[str]:
        files = ["-c", "config.json", "-i", "in.nc", "-o", "out.nc", "-n", result]
        return [*files, "-b", "16", "-e", str(epochs), *more]

    saved = ("--checkpoints", "saved", "--checkpoint-steps", "5")
    assert trainer("train", *command("two.nc", 2, *saved)).exit_code == 0
    statuses, said = ended(trainers(working_folder, *command("four.nc", 4, *saved)))
    assert statuses == [0, 0], said
    assert "Epoch 1," not in said[0]
    assert {path.name for path in Path("saved").iterdir()} == {"12", "15"}
    five = trainer("train", *command("five.nc", 5, *saved))
    assert "Epoch 3," not in five.output
    assert trainer("train", *command("whole.nc", 5)).exit_code == 0
    for found, wanted in zip(weights(Path("five.nc")), weights(Path("whole.nc")), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_when_a_process_is_killed_the_other_ends_with_an_error_and_does_not_hang(tmp_path: Path) -> None:
    run = run_directory(tmp_path / "run", epochs=1_000_000)
    write_network(run / "network.json")
    running = trainers(tmp_path, "--run-dir", "run", devices=1)
    end = time.monotonic() + PATIENCE_SECONDS
    while not (run / "metrics.jsonl").exists() and running[0].poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    running[1].kill()
    killed = time.monotonic()
    statuses, said = ended(running)
    assert time.monotonic() - killed < 2 * distributed._HEARTBEAT_SECONDS
    assert statuses == [1, -signal.SIGKILL], said[0]
    assert "process 0: a computation of all 2 processes failed; if another one ended, its log says why" in said[0]
    assert (run / "exit").read_text() == "1\n"
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def group(process: int, *, port: int, processes: int = 3) -> Group:
    return Group("127.0.0.1", port, processes, process)


def test_processes_meet_whichever_comes_first() -> None:
    for order in ((0, 1, 2), (2, 1, 0)):
        port = free_port()
        with ThreadPoolExecutor(3) as threads, socket.socket() as coordinator:
            comers = [threads.submit(meet, group(process, port=port), seconds=30) for process in order]
            # What JAX does once they have met.
            comers[order.index(0)].result()
            coordinator.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            coordinator.bind(("127.0.0.1", port))
            coordinator.listen()
            assert [comer.result() for comer in comers] == [None] * 3


def test_whoever_does_not_come_is_named() -> None:
    port = free_port()
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(meet, group(process, port=port), seconds=0.4) for process in (0, 2)]
        with pytest.raises(TrainerError, match=rf"of 3 processes these did not come to 127.0.0.1:{port}: 1$"):
            waiting[0].result()
        with pytest.raises(TrainerError, match="went away before all processes had come"):
            waiting[1].result()


def test_a_coordinator_that_nobody_reaches_is_named_within_the_limit() -> None:
    port = free_port()
    with pytest.raises(TrainerError, match=f"process 0 cannot be reached at 127.0.0.1:{port}: Connection refused"):
        meet(group(1, port=port), seconds=0.2)


def test_a_port_that_is_taken_is_an_error_of_process_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(TrainerError, match=f"process 0 cannot listen at 127.0.0.1:{port}: Address already in use"):
            meet(group(0, port=port))


def test_a_stranger_on_the_port_is_passed_over_and_a_wrong_number_is_refused() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(meet, group(0, port=port, processes=2), seconds=3)
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")
        with pytest.raises(SettingsError, match="--processes: process 0 was given 2, process 1 3"):
            meet(group(1, port=port))
        with pytest.raises(TrainerError, match="did not come"):
            first.result()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("h:1", 2, None), "--coordinator, --processes and --process are given together or not at all"),
        (("h", 2, 0), "--coordinator: HOST:PORT is wanted (given: 'h')"),
        (("h:65536", 2, 0), "--coordinator: HOST:PORT is wanted (given: 'h:65536')"),
        (("::1:80", 2, 0), "--coordinator: HOST:PORT is wanted (given: '::1:80')"),
        (("h:1", 0, 0), "--processes: at least 1 is wanted (given: 0)"),
        (("h:1", 2, 2), "--process: a number from 0 to 1 is wanted (given: 2)"),
    ],
)
def test_a_group_that_cannot_be_is_refused(options: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Group.of(*options)
    assert str(refused.value) == message


def test_a_group_is_read_from_its_options_and_nothing_is_no_group() -> None:
    assert Group.of(None, None, None) is None
    found = Group.of("[::1]:8476", 2, 1)
    assert found == Group("::1", 8476, 2, 1)
    assert found.coordinator == "[::1]:8476"
