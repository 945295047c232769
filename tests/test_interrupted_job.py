"""The whole job through the real command, on spot machines that AWS takes back, beside the same training left alone."""

import hashlib
import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from programs import BIN, MockCloud, run
from trainer_checkerboard import write_checkerboard, write_network

EPOCHS = 300


@pytest.fixture
def cloud(tmp_path: Path) -> Generator[MockCloud]:
    folder = tmp_path / "cloud"
    folder.mkdir()
    quick = {"pending_seconds": 0.1, "ending_seconds": 0.1}
    mock = MockCloud(folder, quick | {"interrupt": [{"notice_seconds": 120}, {"notice_seconds": 120}]})
    yield mock
    mock.stop()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_alone(folder: Path) -> "subprocess.Popen[bytes]":
    """The same training by the trainer alone, on as many devices."""
    run_folder = folder / "run"
    run_folder.mkdir(parents=True)
    write_network(run_folder / "network.json")
    job = {"data": "../../samples.txt", "min_devices": 8, "settings": {"batch_size": 16, "epochs": EPOCHS}}
    (run_folder / "spec.json").write_text(json.dumps(job))
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [str(BIN / "trainer"), "train", "--run-dir", str(run_folder)]
    return subprocess.Popen(command, env=os.environ | eight, stdout=subprocess.DEVNULL)


def test_taken_back_twice_it_ends_at_the_bytes_of_a_training_left_alone(cloud: MockCloud, tmp_path: Path):
    write_checkerboard(tmp_path / "samples.txt")
    write_network(tmp_path / "network.json")
    (tmp_path / "run.toml").write_text(
        'instance_types = ["g6.xlarge"]\nmarket = "spot"\nnetwork = "network.json"\ndata = "samples.txt"\n'
        f'output = "runs"\n[settings]\nbatch_size = 16\nepochs = {EPOCHS}\n'
    )
    alone = left_alone(tmp_path / "alone")
    done = run(
        "launch-and-train", "--dry-run", "--mock-cloud", cloud.endpoint, "--config", "run.toml", "--json",
        cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.exit_status == 0, done.stderr
    assert (done.answer["machines"], done.answer["teardown"]["survivors"]) == (3, [])
    assert cloud.billable == []
    assert alone.wait(timeout=300) == 0
    for name in ("gl.nc", "recs"):
        found = done.answer["artifacts"][name]
        assert found["sha256"] == sha256(Path(found["path"])) == sha256(tmp_path / "alone" / "run" / name)
    log = Path(done.answer["artifacts"]["log.txt"]["path"]).read_text()
    assert log.count("asked to end, saved after") == 2
    assert done.stderr.count("interrupted: AWS takes i-") == 2
    assert done.stderr.count("the training goes on from the checkpoint of step") == 2
    assert f"epoch {EPOCHS}/{EPOCHS}" in log
    assert len(log.split("samples × ")) == 4, "each of three trainers said what it trains"
    books = run("orchestrator", "cost", done.answer["run_id"], "--json", cwd=tmp_path).answer
    assert books["usd"] == done.answer["estimated_usd"]
