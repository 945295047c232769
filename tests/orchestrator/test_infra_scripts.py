"""The scripts that run on the machine, as that machine's `sh` reads them, and the locks they install."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
LOCKS = ("cpu", "cuda12", "cuda13")


class Bench:
    """A home without anything, and a PATH that begins with what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        self.program("python3", f'exec "{sys.executable}" "$@"')
        # The true one, where it is installed, waits for a boot that never ends.
        self.program("cloud-init", "exit 0")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def gpus(self, *lines: str) -> None:
        self.program("nvidia-smi", "\n".join(f"echo '{line}'" for line in lines))

    def bootstrap(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(INFRA / "bootstrap.sh"), *arguments],
            env={"HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def plan(self, *arguments: str) -> dict[str, str]:
        done = self.bootstrap("--print-plan", *arguments)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("gpu", "lock"),
    [
        ("595.71.05, 8.9", "cuda13"),
        ("580.65.06, 7.5", "cuda13"),
        ("580.65.06, 7.0", "cuda12"),
        ("580.65.06, 12.0", "cuda13"),
        ("579.99, 9.0", "cuda12"),
        ("525.60.13, 7.5", "cuda12"),
    ],
)
def test_the_lock_follows_the_driver_and_the_gpu(bench: Bench, gpu: str, lock: str):
    bench.gpus(gpu, gpu, gpu, gpu)
    assert bench.plan() == {
        "lock": lock,
        "backend": "cuda",
        "driver": gpu.split(",")[0],
        "gpus": "4",
        "python": str(bench.bin / "python3"),
    }
    assert list(bench.home.iterdir()) == []


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ("524.99, 7.5", "524.99 is too old"),
        ("NVIDIA-SMI has failed because it could not communicate with the driver", "no driver version"),
        ("", "no driver version"),
    ],
)
def test_a_driver_that_will_not_do_stops_the_run(bench: Bench, gpu: str, said: str):
    bench.gpus(gpu)
    done = bench.bootstrap("--print-plan")
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_a_driver_that_does_not_answer_stops_the_run_with_its_words(bench: Bench):
    bench.program("nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    done = bench.bootstrap("--print-plan")
    assert (done.returncode, done.stderr) == (1, "nvidia-smi failed: NVIDIA-SMI has failed\n")


def test_a_machine_without_a_gpu_is_used_only_when_asked(bench: Bench):
    assert bench.plan("--backend", "cpu")["lock"] == "cpu"
    assert bench.bootstrap("--backend", "tpu").returncode == 1


def test_where_nobody_tells_of_interruptions_the_watch_is_silent_and_ends_with_the_trainer(tmp_path: Path):
    (tmp_path / "run").mkdir()
    watch = subprocess.run(
        ["/bin/sh", "-c", 'sleep 0.5 & sh "$1" $!', "sh", str(INFRA / "watch-interruption.sh")],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "LAUNCH_AND_TRAIN_METADATA": "http://127.0.0.1:9",
            "LAUNCH_AND_TRAIN_METADATA_SECONDS": "0.1",
        },
        capture_output=True,
        timeout=30,
    )
    assert (watch.returncode, watch.stdout, watch.stderr) == (0, b"", b"")
    assert list((tmp_path / "run").iterdir()) == []


def test_an_old_python_is_passed_over(bench: Bench):
    bench.gpus("595.71.05, 8.9")
    bench.program("python3", "exit 1")
    bench.program("python3.12", f'exec "{sys.executable}" "$@"')
    for other in ("python3.14", "python3.13"):
        bench.program(other, "exit 1")
    assert bench.plan()["python"] == str(bench.bin / "python3.12")


def test_a_machine_without_a_python_that_will_do_is_refused(bench: Bench):
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        bench.program(name, "exit 1")
    done = bench.bootstrap("--print-plan", "--backend", "cpu")
    assert done.returncode == 1
    assert "python 3.11" in done.stderr


def write_note(bench: Bench, text: str) -> None:
    note = bench.home / ".launch-and-train" / "environment"
    note.parent.mkdir()
    note.write_text(text)


def test_a_ready_environment_is_printed_and_nothing_is_made(bench: Bench):
    write_note(bench, f"python={sys.executable}\nbackend=cpu\n")
    done = bench.bootstrap()
    assert done.stdout == f"python={sys.executable}\nbackend=cpu\nnote=ready-made environment\n"
    assert not (bench.home / ".launch-and-train" / "venv").exists()


@pytest.mark.parametrize("note", ["python=/nowhere/python\nbackend=cpu\n", f"python={sys.executable}\n", ""])
def test_a_note_that_leads_nowhere_is_not_believed(bench: Bench, note: str):
    write_note(bench, note)
    bench.gpus("595.71.05, 8.9")
    assert bench.plan()["lock"] == "cuda13"


def test_the_boot_is_waited_for_first(bench: Bench):
    write_note(bench, f"python={sys.executable}\nbackend=cpu\n")
    bench.program("cloud-init", f'echo "$@" > {bench.home}/waited; exit 2')
    assert bench.bootstrap().returncode == 0
    assert (bench.home / "waited").read_text() == "status --wait\n"


# Stands for an interpreter whose venv, pip, uv and JAX do as the test says.
INTERPRETER = """
case "$*" in
  "-c import sys; "*) exec {python} "$@" ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$@" >> {log} ;;
  "-m uv "*) echo "$@" >> {log} ;;
  "-c"*) {jax} ;;
esac
"""


def pretend(bench: Bench, *, jax: str) -> Path:
    log = bench.home / "installed"
    bench.program("python3", INTERPRETER.format(log=log, jax=jax, python=sys.executable))
    bench.gpus("595.71.05, 8.9")
    return log


def test_an_environment_is_made_from_the_lock_tried_and_noted(bench: Bench):
    log = pretend(bench, jax='echo "$JAX_PLATFORMS $LD_LIBRARY_PATH saw $3"')
    done = bench.bootstrap()
    python = bench.home / ".launch-and-train" / "venv" / "bin" / "python"
    assert done.returncode == 0, done.stderr
    printed = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (printed["python"], printed["backend"]) == (str(python), "cuda")
    assert re.fullmatch(r"cuda13\.lock installed in \d+ s: cuda  saw 1", printed["note"])
    pip, uv = log.read_text().splitlines()
    assert "--require-hashes" in pip
    assert "--require-hashes" in uv
    assert uv.endswith("infra/locks/cuda13.lock")
    uv_alone = (bench.home / ".launch-and-train" / "uv.txt").read_text()
    assert uv_alone.startswith("uv==")
    assert "==" not in uv_alone.removeprefix("uv==")
    assert bench.bootstrap().stdout == f"python={python}\nbackend=cuda\nnote=ready-made environment\n"


def test_a_python_without_venv_is_given_it_by_apt_which_is_waited_for(bench: Bench):
    log = pretend(bench, jax="true")
    lacking = (bench.bin / "python3").read_text().replace('"-m venv "*)', '"-m venv "*) test -e "$0.venv" || exit 1;')
    bench.program("python3", lacking)
    bench.program("apt-get", "exit 100")
    bench.program("sudo", f'echo "$@" >> {log}; touch {bench.bin}/python3.venv')
    done = bench.bootstrap()
    assert done.returncode == 0, done.stderr
    asked = [line for line in log.read_text().splitlines() if "apt-get" in line]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert asked[-1].endswith(f"install -y python{version}-venv")
    assert all("DPkg::Lock::Timeout=600" in line for line in asked)


def test_an_environment_in_which_jax_sees_too_few_gpus_is_refused_and_not_noted(bench: Bench):
    pretend(bench, jax="echo 'JAX sees 0 of 1 GPUs' >&2; exit 1")
    done = bench.bootstrap()
    assert done.returncode == 1
    assert done.stderr == "JAX does not work here: JAX sees 0 of 1 GPUs\n"
    assert not (bench.home / ".launch-and-train" / "environment").exists()


def test_the_trainer_starter_wants_its_two_arguments():
    done = subprocess.run(["/bin/sh", str(INFRA / "start-trainer.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("script", ["bootstrap.sh", "start-trainer.sh"])
def test_scripts_are_executable_and_parse(script: str):
    assert os.access(INFRA / script, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", str(INFRA / script)]).returncode == 0


def pins(path: Path) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_pin_what_the_projects_own_lock_pins(lock: str):
    ours, theirs = pins(INFRA / "locks" / f"{lock}.lock"), pins(ROOT / "requirements.lock")
    assert {name: ours[name] for name in ours if name in theirs and ours[name] != theirs[name]} == {}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hash_everything_and_name_no_address(lock: str):
    text = (INFRA / "locks" / f"{lock}.lock").read_text()
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert len(requirements) > 30
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_all_that_the_trainer_imports_and_a_jax_for_their_name(lock: str):
    held = pins(INFRA / "locks" / f"{lock}.lock")
    assert {name.lower() for name in third_party_imports()} <= set(held)
    assert ("jax-cuda13-plugin" in held, "jax-cuda12-plugin" in held) == (lock == "cuda13", lock == "cuda12")


def third_party_imports() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "trainer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    named = {"orbax": "orbax-checkpoint"}
    return {named.get(name, name) for name in found} - sys.stdlib_module_names - {"trainer"}
