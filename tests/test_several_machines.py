"""A run on two machines that train as one, by the real commands: its end, how it is looked at from elsewhere, and what
happens when one of its trainers is killed.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quick_xla
from programs import Done, MockCloud
from trainer_checkerboard import write_checkerboard, write_network
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.record import Rental, read_record
from orchestrator.remote import look_at
from orchestrator.spec import RunSettings
from orchestrator.worlds import world_at
from trainer.network_file import read_network_file

KILL = 'read -r pid < "$1/run/pid" && kill -s KILL -- "-$pid"'


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[MockCloud]:
    scenario = {"pending_seconds": 0.1, "ending_seconds": 0.1, "devices": 1}
    mock = MockCloud(tmp_path_factory.mktemp("cloud"), scenario)
    yield mock
    mock.stop()


def ask(*arguments: str) -> Done:
    done = CliRunner().invoke(app, arguments)
    return Done(done.exit_code, done.stdout, done.stderr)


def answer(*arguments: str) -> Any:
    done = ask(*arguments, "--json")
    assert done.exit_status == 0, done.stderr
    return done.answer


def write_inputs(folder: Path):
    write_checkerboard(folder / "samples.txt")
    write_network(folder / "network.json")


def launch(cloud: MockCloud, folder: Path, *flags: str) -> Done:
    """A run of two machines over the checkerboard."""
    return ask(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--nodes", "2", "--json", "--k", "3",
        "--data", str(folder / "samples.txt"), "--network", str(folder / "network.json"), "--batch-size", "16",
        "--output", str(folder / "runs"), *flags,
    )  # fmt: skip


def one_machine_of_two_devices(folder: Path) -> "subprocess.Popen[bytes]":
    """The same training by one process."""
    (folder / "alone").mkdir()
    settings = RunSettings(batch_size=16, epochs=2, k=3, held_out=0.1).model_dump(exclude_none=True)
    job = {"data": "../samples.txt", "network": "../network.json", "min_devices": 2, "settings": settings}
    (folder / "alone" / "spec.json").write_text(json.dumps(job))
    flags = f"--xla_force_host_platform_device_count=2 {quick_xla.FLAGS}"
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "train", "--run-dir", "alone"],
        cwd=folder,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.DEVNULL,
    )


def weights(path: Path) -> list[Any]:
    connections = read_network_file(path)[1].connections
    return [array for connection in connections for array in connection if array is not None]


def test_two_machines_train_as_one_of_as_many_devices_does_and_all_is_given_back(cloud: MockCloud, tmp_path: Path):
    write_inputs(tmp_path)
    alone = one_machine_of_two_devices(tmp_path)
    done = launch(cloud, tmp_path, "--epochs", "2")
    assert alone.wait(100) == 0
    assert done.exit_status == 0, done.stderr
    told = done.answer
    folder = tmp_path / "runs" / told["run_id"]
    plan = json.loads((folder / "run.json").read_text())["plan"]
    assert (folder / "recs").read_text() == (tmp_path / "alone" / "recs").read_text()
    for found, wanted in zip(weights(folder / "gl.nc"), weights(tmp_path / "alone" / "gl.nc"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert plan["nodes"] == 2
    assert float(plan["worst_case_usd"]) > 2 * float(plan["offers"][0]["usd_per_hour"])
    kinds = [name.rpartition(" ")[0] for name in told["teardown"]["deleted"]]
    assert sorted(kinds) == ["instance", "instance", "key pair", "placement group", "security group"]
    assert told["hours"] >= 0.0333, "each of them is billed a minute at least"
    assert cloud.billable == []


def test_a_trainer_that_is_killed_ends_all_machines_and_is_named(cloud: MockCloud, tmp_path: Path):
    write_inputs(tmp_path)
    begun = launch(cloud, tmp_path, "--epochs", "1000000", "--detach")
    assert begun.exit_status == 0, begun.stderr
    folder = tmp_path / "runs" / begun.answer["run_id"]
    record = read_record(folder)
    assert record.machine is not None
    rental, world = (
        Rental(folder, record.run_id, record.machine, record.others),
        world_at(record.region, record.endpoint),
    )
    ends = time.monotonic() + 100
    while (looked := answer("status", str(folder)))["state"] != "training":
        assert (looked["state"], time.monotonic() < ends) == ("starting", True)
        time.sleep(0.2)
    (other,) = looked["others"]
    second = rental.nodes[1]
    assert other.startswith(f"{second.machine.instance_id} g6.xlarge in ")
    assert f"HostKeyAlias={second.host.address}" in answer("ssh", str(folder), "--node", "1")["command"]
    assert ask("logs", str(folder), "--node", "1").exit_status == 0
    assert ask("logs", str(folder), "--node", "2").exit_status == 2
    with contextlib.closing(world.connect(second.host)) as session:
        assert look_at(session, second.root).going_on
        session.run(("sh", "-c", KILL, "kill", second.root))
    began = time.monotonic()
    ended = ask("attach", str(folder), "--json")
    assert time.monotonic() - began < 40
    assert ended.exit_status == 1
    name = f"node 1 of 2 ({second.machine.instance_id} at {second.machine.address})"
    assert f"{name}: the trainer ended without an exit status: it was killed" in ended.answer["error"]
    assert (folder / "log-1.txt").exists()
    assert ended.answer["teardown"]["survivors"] == []
    assert cloud.billable == []
