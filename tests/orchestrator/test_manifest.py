"""What travels and, above all, what never does."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.manifest import build_manifest, checkout_of
from orchestrator.resources import Manifest

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nAAAA\n"
Build = Callable[..., Manifest]


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write(folder / "code.py")
    git(tmp_path, "init", "-q", str(folder))
    return folder


@pytest.fixture
def build(tmp_path: Path) -> Build:
    write(tmp_path / "trainer" / "cli.py")
    write(tmp_path / "infra" / "bootstrap.sh")
    write(tmp_path / "films" / "ratings.csv", "userId,movieId\n")

    def build(**given: Path | None) -> Manifest:
        places = {name: tmp_path / name for name in ("trainer", "infra")}
        return build_manifest(
            **{**places, "project": None, "data": tmp_path / "films", "output": tmp_path / "runs", **given}
        )  # pyright: ignore[reportArgumentType]

    return build


def paths(manifest: Manifest, under: str = "") -> set[str]:
    names = {str(file.destination) for file in manifest.files}
    return {name.removeprefix(under) for name in names if name.startswith(under)}


def test_without_a_project_trainer_scripts_and_data_travel(build: Build):
    assert paths(build()) == {"tree/trainer/cli.py", "tree/infra/bootstrap.sh", "data/films/ratings.csv"}


def test_of_a_project_tracked_and_untracked_files_travel_but_not_ignored_ones(build: Build, project: Path):
    git(project, "add", "code.py")
    write(project / "new" / "file with space.txt")
    write(project / "día.txt")
    write(project / "built.o")
    write(project / ".gitignore", "*.o\n")
    assert paths(build(project=project), "tree/project/") == {
        "code.py",
        "new/file with space.txt",
        "día.txt",
        ".gitignore",
    }


def test_a_tracked_file_that_was_deleted_does_not_travel(build: Build, project: Path):
    write(project / "gone.py")
    git(project, "add", "gone.py")
    (project / "gone.py").unlink()
    assert paths(build(project=project), "tree/project/") == {"code.py"}


def test_of_a_folder_inside_a_checkout_only_that_folder_travels(build: Build, project: Path):
    write(project / "part" / "inner.py")
    assert paths(build(project=project / "part"), "tree/project/") == {"inner.py"}


SECRETS = [
    ".env", ".env.local", ".envrc", "deep/.env", ".env/bin/tool", "server.pem", "SERVER.PEM", "tls.key",
    "a.ppk", "id_rsa", "id_ed25519", "id_work.pub", ".aws/credentials", "home/.aws/config",
    ".ssh/known_hosts", ".netrc", "__pycache__/code.cpython-311.pyc",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("tracked", [True, False])
def test_secrets_of_a_project_never_travel(build: Build, project: Path, name: str, tracked: bool):
    write(project / name)
    if tracked:
        git(project, "add", "-f", name)
    assert paths(build(project=project), "tree/project/") == {"code.py"}


@pytest.mark.parametrize("name", [*SECRETS, ".git/config", "deep/.git/HEAD"])
def test_secrets_among_the_data_never_travel(build: Build, tmp_path: Path, name: str):
    write(tmp_path / "films" / name)
    assert paths(build(), "data/") == {"films/ratings.csv"}


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "-----BEGIN RSA " + "PRIVATE KEY-----\n",
        '{"private_key": "-----BEGIN ' + 'PRIVATE KEY-----\\nMII"}',
        "x" * ((1 << 20) - 20) + KEY,
        "PuTTY-User-Key-" + "File-3: ssh-ed25519",
    ],
)
def test_a_file_that_holds_a_private_key_never_travels_whatever_its_name(build: Build, project: Path, text: str):
    write(project / "notes.txt", text)
    assert paths(build(project=project), "tree/project/") == {"code.py"}


@pytest.mark.parametrize("name", ["id_map.csv", "environment.yml", "keys.py", "pem.txt", "monkey"])
def test_names_that_only_look_like_secrets_travel(build: Build, project: Path, name: str):
    write(project / name)
    assert paths(build(project=project), "tree/project/") == {"code.py", name}


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta/history"])
def test_virtual_environments_never_travel(build: Build, project: Path, tmp_path: Path, mark: str):
    for folder in (project, tmp_path / "films"):
        write(folder / "mine" / mark)
        write(folder / "mine" / "lib" / "site-packages" / "code.py")
    manifest = build(project=project)
    assert paths(manifest, "tree/project/") == {"code.py"}
    assert paths(manifest, "data/") == {"films/ratings.csv"}


def test_links_travel_as_what_they_lead_to_unless_they_lead_away(build: Build, project: Path, tmp_path: Path):
    outside = write(tmp_path / "outside" / "secret.txt", "outside")
    write(project / ".env")
    write(project / "real.txt", "inside")
    for name, target in {
        "alias.txt": "real.txt",
        "away.txt": str(outside),
        "up.txt": "../outside/secret.txt",
        "folder": str(outside.parent),
        "innocent.txt": ".env",
        "config.txt": ".git/config",
        "broken": "nowhere",
    }.items():
        (project / name).symlink_to(target)
    manifest = build(project=project)
    assert paths(manifest, "tree/project/") == {"code.py", "real.txt", "alias.txt"}
    alias = next(file for file in manifest.files if file.destination.name == "alias.txt")
    assert alias.sha256 == hashlib.sha256(b"inside").hexdigest()


def test_links_among_the_data_that_lead_away_do_not_travel(build: Build, tmp_path: Path):
    write(tmp_path / "outside.csv")
    (tmp_path / "films" / "link.csv").symlink_to(tmp_path / "outside.csv")
    (tmp_path / "films" / "loop").symlink_to(tmp_path / "films")
    assert paths(build(), "data/") == {"films/ratings.csv"}


def test_runs_of_before_do_not_travel(build: Build, project: Path):
    write(project / "runs" / "old" / "log.txt")
    assert paths(build(project=project, output=project / "runs"), "tree/project/") == {"code.py"}


def test_data_fetched_into_the_runs_folder_travels(build: Build, tmp_path: Path):
    write(tmp_path / "runs" / "data" / "ml" / "ratings.csv")
    assert paths(build(data=tmp_path / "runs" / "data" / "ml"), "data/") == {"ml/ratings.csv"}


def test_runs_inside_the_data_folder_do_not_travel(build: Build, tmp_path: Path):
    write(tmp_path / "films" / "runs" / "old" / "log.txt")
    assert paths(build(output=tmp_path / "films" / "runs"), "data/") == {"films/ratings.csv"}


def test_nothing_travels_twice(build: Build, project: Path):
    write(project / "trainer" / "cli.py")
    write(project / "infra" / "bootstrap.sh")
    write(project / "films" / "ratings.csv")
    manifest = build(**{name: project / name for name in ("trainer", "infra")}, data=project / "films", project=project)
    assert paths(manifest) == {
        "tree/project/code.py",
        "tree/trainer/cli.py",
        "tree/infra/bootstrap.sh",
        "data/films/ratings.csv",
    }


def test_data_in_one_file_travels_under_its_name(build: Build, tmp_path: Path):
    write(tmp_path / "films" / "u.data")
    assert paths(build(data=tmp_path / "films" / "u.data"), "data/") == {"u.data"}


def test_data_behind_a_link_travels_under_the_links_name(build: Build, tmp_path: Path):
    (tmp_path / "latest").symlink_to(tmp_path / "films")
    (tmp_path / "mine.csv").symlink_to(tmp_path / "films" / "ratings.csv")
    assert paths(build(data=tmp_path / "latest"), "data/") == {"latest/ratings.csv"}
    assert paths(build(data=tmp_path / "mine.csv"), "data/") == {"mine.csv"}


def test_the_data_folder_may_be_where_one_stands(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path / "films")
    assert paths(build(data=Path()), "data/") == {"films/ratings.csv"}


@pytest.mark.parametrize("name", ["key.pem", ".aws/credentials", "only.txt"])
def test_data_of_which_nothing_may_travel_is_refused(build: Build, tmp_path: Path, name: str):
    path = write(tmp_path / "other" / name, KEY)
    with pytest.raises(UsageError, match=path.name):
        build(data=path)


def test_a_project_that_is_no_checkout_is_refused(build: Build, tmp_path: Path):
    with pytest.raises(UsageError, match="films"):
        build(project=tmp_path / "films")


def test_a_git_hooks_variables_do_not_lead_to_another_repository(
    build: Build, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    git(tmp_path, "init", "-q", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert paths(build(project=project), "tree/project/") == {"code.py"}


def test_files_are_listed_in_order_with_size_mode_and_sum(build: Build, project: Path):
    write(project / "code.py", "print()\n")
    write(project / "run.sh", "#!/bin/sh\n").chmod(0o700)
    manifest = build(project=project)
    files = {str(file.destination): file for file in manifest.files}
    assert list(files) == sorted(files)
    code, script = files["tree/project/code.py"], files["tree/project/run.sh"]
    assert (code.size, code.mode, code.sha256) == (8, 0o644, hashlib.sha256(b"print()\n").hexdigest())
    assert script.mode == 0o755
    assert manifest.size == sum(file.source.stat().st_size for file in manifest.files)


def test_the_checkout_of_a_folder_is_the_nearest_above(project: Path, tmp_path: Path):
    deep = write(project / "a" / "b" / "c.py").parent
    assert checkout_of(deep) == checkout_of(project) == project.resolve()
    if not any((place / ".git").exists() for place in tmp_path.resolve().parents):
        assert checkout_of(tmp_path) is None
