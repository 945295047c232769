"""What `infra/first-boot.yaml` makes a machine do; systemd's programs only note how they are called."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.keys import make_host_key
from orchestrator.packaged import packaged
from orchestrator.user_data import fill_in

HOURS = 2.0
SECONDS = 7200
SCRIPT = "/usr/local/sbin/launch-and-train-self-destruct"
NOTES = "/etc/launch-and-train"


@pytest.fixture(scope="module")
def user_data() -> str:
    return fill_in((packaged("infra") / "first-boot.yaml").read_text(), make_host_key(), max_hours=HOURS)


@pytest.fixture(scope="module")
def boot(user_data: str) -> Any:
    return yaml.safe_load(user_data)


@pytest.fixture
def machine(boot: Any, tmp_path: Path) -> Path:
    """A folder with the files that the machine would have, and programs that note how they are called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemd-run", "systemctl", "shutdown"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n')
        program.chmod(0o755)
    files = {entry["path"]: entry["content"] for entry in boot["write_files"]}
    (tmp_path / "self-destruct-after-seconds").write_text(files[f"{NOTES}/self-destruct-after-seconds"])
    (tmp_path / "script").write_text(files[SCRIPT].replace(NOTES, str(tmp_path)))
    return tmp_path


def start(machine: Path) -> list[str]:
    """Boot once; what was called."""
    (machine / "called").unlink(missing_ok=True)
    path = f"{machine / 'bin'}:{os.environ['PATH']}"
    subprocess.run(["sh", str(machine / "script")], env={"PATH": path}, check=True)
    return (machine / "called").read_text().splitlines()


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed here")
def test_cloud_init_itself_finds_nothing_wrong_with_the_user_data(user_data: str, tmp_path: Path):
    path = tmp_path / "user-data.yaml"
    path.write_text(user_data)
    told = subprocess.run(["cloud-init", "schema", "--config-file", path], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "deprecat" not in told.stdout + told.stderr


def test_the_first_boot_arms_two_timers_the_second_a_little_later(machine: Path):
    timer, belt = start(machine)
    assert timer.startswith("systemd-run ")
    assert f"--on-active={SECONDS}" in timer
    assert timer.endswith("systemctl poweroff --force")
    assert belt == f"shutdown -P +{SECONDS // 60 + 5}"


def test_a_reboot_gains_no_time(machine: Path):
    start(machine)
    deadline = machine / "self-destruct-at"
    deadline.write_text(str(int(deadline.read_text()) - 3600))
    timer, _ = start(machine)
    left = int(timer.partition("--on-active=")[2].split()[0])
    assert SECONDS - 3600 - 5 <= left <= SECONDS - 3600


def test_a_machine_that_boots_after_its_time_goes_off_at_once(machine: Path):
    (machine / "self-destruct-at").write_text(str(int(time.time()) - 1))
    assert start(machine) == ["systemctl poweroff --force"]


def test_one_timer_is_armed_before_anything_of_ours_is_written(boot: Any):
    (early,) = boot["bootcmd"]
    assert early[0] == "systemd-run"
    assert f"--on-active={SECONDS}" in early
    assert early[-3:] == ["systemctl", "poweroff", "--force"]


def test_the_timers_are_armed_at_every_boot(boot: Any):
    files = {entry["path"]: entry["content"] for entry in boot["write_files"]}
    name = "launch-and-train-self-destruct.service"
    unit = files[f"/etc/systemd/system/{name}"]
    assert f"ExecStart={SCRIPT}" in unit
    assert "WantedBy=multi-user.target" in unit
    assert f"systemctl enable --now {name}" in boot["runcmd"][-1][-1]


def test_the_machine_keeps_no_host_key_of_its_image_and_takes_no_password(boot: Any):
    assert boot["ssh_deletekeys"] is True
    assert set(boot["ssh_keys"]) == {"ed25519_private", "ed25519_public"}
    assert boot["ssh_pwauth"] is False
