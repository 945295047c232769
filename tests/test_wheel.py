"""The wheel is whole: from an empty folder, away from the checkout, the default job is planned with what
travels in the wheel; the orchestrator needs no JAX for it, the trainer no boto3.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BLOCK = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does it."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("orchestrator", "trainer", "configs", "infra"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))",
        ],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def without(blocked: set[str], site: Path, tmp_path: Path) -> dict[str, str]:
    """An environment in which these packages cannot be imported, in subprocesses neither."""
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": f"{tmp_path / 'block'}:{site}",
    }


def python(code: str, *, cwd: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=60
    )


def test_the_default_job_is_planned_from_an_empty_folder_without_jax(installed: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    env = without({"jax", "jaxlib", "flax", "optax", "pytest"}, installed, tmp_path)
    code = (
        "import sys; from orchestrator.cli import app;sys.argv = ['orchestrator', 'plan', '--dry-run', '--json']; app()"
    )
    done = python(code, cwd=empty, env=env)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert "`trainer capacity` does not run here: ModuleNotFoundError: jax" in plan["fit"]["unknown"]
    assert all(offer["fit"] is None for offer in plan["offers"])
    paths = {file["path"] for file in plan["upload"]["files"]}
    assert {"data/movielens-sample/ratings.csv", "tree/trainer/cli/__init__.py", "tree/infra/bootstrap.sh"} <= paths
    assert not [path for path in paths if path.startswith("tree/project")]
    assert list(empty.iterdir()) == []


def test_the_trainer_needs_no_boto3_and_finds_its_default_network(installed: Path, tmp_path: Path):
    env = without({"boto3", "botocore", "moto", "paramiko", "fabric", "asyncssh"}, installed, tmp_path)
    code = (
        "import trainer; from trainer.recommender import default_network;"
        "trainer.Recommender(folder='files'); print(default_network())"
    )
    done = python(code, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_both_programs_live_without_the_tools_of_development(installed: Path, tmp_path: Path):
    env = without({"pytest", "hypothesis", "ruff", "hatchling", "importlinter"}, installed, tmp_path)
    code = (
        "import orchestrator.verbs, orchestrator.dryrun.cloud, orchestrator.worlds;"
        "import trainer.job, trainer.programs; print(orchestrator.worlds.__file__)"
    )
    done = python(code, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)
