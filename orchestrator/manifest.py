"""Which files travel: the project's as git sees them, the trainer, the scripts for the machine, and the
data; each with size, mode and SHA-256. Secrets never do, whatever git or the user's folders say.
"""

import hashlib
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from orchestrator.errors import UsageError
from orchestrator.resources import Manifest, TravelFile

_NEVER = (
    ".git",
    ".aws",
    ".ssh",
    ".gnupg",
    ".netrc",
    ".git-credentials",
    ".env*",
    "*.pem",
    "*.key",
    "*.ppk",
    "*.p12",
    "*.pfx",
    "__pycache__",
    "*.pyc",
)
"""Names of files and folders that never travel."""
_NEVER_ABOVE = frozenset({".aws", ".ssh", ".gnupg"})
"""Folders from below which nothing travels, even where the user names a file in one of them."""
_KEY_NAME = re.compile(r"id_[^.]+(\.pub)?")
"""Names that ssh-keygen gives; `id_map.csv` is none."""
_KEY_TEXT = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----|PuTTY-User-Key-File-[0-9]")
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_CHUNK = 1 << 20
_OVERLAP = 80
"""Longer than any text `_KEY_TEXT` matches: a key may lie across two chunks."""


@dataclass(frozen=True, slots=True)
class _Tree:
    """A folder whose files go to `destination`, except for what lies under one of `without`."""

    root: Path
    destination: PurePosixPath
    without: tuple[Path, ...] = ()


def checkout_of(folder: Path) -> Path | None:
    """Root of the git checkout that contains `folder`, or `None`."""
    resolved = folder.resolve()
    return next((place for place in (resolved, *resolved.parents) if (place / ".git").exists()), None)


def build_manifest(*, project: Path | None, trainer: Path, infra: Path, data: Path | None, output: Path) -> Manifest:
    """List everything that travels. What `tree/trainer`, `tree/infra` and `data` hold is not sent a second
    time with the project; runs of before (`output`) never are. Raises `UsageError` where a file cannot be
    read, `project` is no git checkout, or nothing of `data` may travel.
    """
    runs = output.resolve()
    files: dict[PurePosixPath, TravelFile] = {}
    for tree in (
        _Tree(trainer.resolve(), PurePosixPath("tree/trainer")),
        _Tree(infra.resolve(), PurePosixPath("tree/infra")),
    ):
        _add(files, tree, _walk(tree.root))
    if project is not None:
        elsewhere = (trainer.resolve(), infra.resolve(), runs, *([data.resolve()] if data is not None else []))
        tree = _Tree(project.resolve(), PurePosixPath("tree/project"), elsewhere)
        _add(files, tree, _git_files(tree.root))
    before = len(files)
    if data is not None:
        _add_data(files, data, runs=runs)
        if len(files) == before:
            raise UsageError(f"{data}: nothing of it may travel: it is empty, or holds only keys or links away")
    return Manifest(tuple(files[destination] for destination in sorted(files)))


def _add_data(files: dict[PurePosixPath, TravelFile], data: Path, *, runs: Path) -> None:
    # Of the path as it was given: a link to the data lends it its name.
    name = Path(os.path.abspath(data)).name or "data"  # noqa: PTH100 - Path.resolve follows links
    source = data.resolve()
    if source.is_file():
        tree = _Tree(source.parent, PurePosixPath("data"))
        _add(files, tree, iter((source,)), name=name)
        return
    # Data fetched by URL is kept among the runs: only runs inside the data are left out.
    without = (runs,) if runs.is_relative_to(source) else ()
    tree = _Tree(source, PurePosixPath("data", name), without)
    _add(files, tree, _walk(source))


def _add(
    files: dict[PurePosixPath, TravelFile], tree: _Tree, paths: Iterator[Path], *, name: str | None = None
) -> None:
    environments: dict[Path, bool] = {}
    for path in paths:
        if not _may_travel(path, tree, environments):
            continue
        destination = tree.destination / (name or PurePosixPath(path.relative_to(tree.root)))
        file = _travel_file(path, destination)
        if file is not None:
            files[destination] = file


def _may_travel(path: Path, tree: _Tree, environments: dict[Path, bool]) -> bool:
    real = path.resolve()
    if not real.is_relative_to(tree.root) or not real.is_file():
        return False
    if any(place.is_relative_to(without) for without in tree.without for place in (path, real)):
        return False
    # A link is as secret as what it points to.
    names = {*path.relative_to(tree.root).parts, *real.relative_to(tree.root).parts}
    names |= _NEVER_ABOVE.intersection(real.parts)
    if any(_is_secret(name) for name in names):
        return False
    return not any(_in_environment(place.parent, tree.root, environments) for place in (path, real))


def _is_secret(name: str) -> bool:
    return _KEY_NAME.fullmatch(name) is not None or any(fnmatchcase(name.lower(), never) for never in _NEVER)


def _in_environment(folder: Path, root: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        marked = any((folder / mark).exists() for mark in _ENVIRONMENT_MARKS)
        known[folder] = marked or (folder != root and _in_environment(folder.parent, root, known))
    return known[folder]


def _walk(root: Path) -> Iterator[Path]:
    """Every file below `root`; folders that links lead to are not entered."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _is_secret(name)]
        yield from (Path(folder, name) for name in names)


def _git_files(project: Path) -> Iterator[Path]:
    """Tracked, and untracked but not ignored; submodules are not entered."""
    command = ("git", "-C", str(project), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    # A hook that calls us sets variables that would turn git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise UsageError(f"{project}: git is needed to list the project's files; install it") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"{project}: cannot list the project's files: {reason[0] if reason else 'git failed'}")
    return (project / os.fsdecode(name) for name in done.stdout.split(b"\0") if name)


def _travel_file(path: Path, destination: PurePosixPath) -> TravelFile | None:
    """`None` for a file that holds a private key."""
    digest = hashlib.sha256()
    size, tail = 0, b""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            while chunk := file.read(_CHUNK):
                if _KEY_TEXT.search(tail + chunk):
                    return None
                digest.update(chunk)
                size += len(chunk)
                tail = chunk[-_OVERLAP:]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read, and it would travel: {error.strerror}") from error
    return TravelFile(path, destination, size, 0o755 if mode & stat.S_IXUSR else 0o644, digest.hexdigest())
