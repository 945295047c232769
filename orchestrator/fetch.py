"""Brings artifacts home: the machine is asked for size and SHA-256 of each, each is downloaded under a
temporary name, verified against that, forced to disk and renamed. Nothing unverified bears a final name.
"""

import hashlib
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import CommandFailed, RunFailed, TransferMismatch
from orchestrator.events import Artifact
from orchestrator.ports import Session

_OPTIONAL = frozenset(
    {"titles.json", "features_attributes", "checkpoints.tar", "trials.jsonl", "trials.txt", "best.json"}
)
"""Artifacts that a good run may lack."""
_LISTING = """\
cd "$1" && shift || exit 1
for name do
  test -f "$name" || continue
  sum=$(sha256sum < "$name") && size=$(wc -c < "$name") || exit 1
  echo "$size ${sum%% *} $name"
done
"""
_LISTING_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file is to be when it has arrived."""

    size: int
    sha256: str


def fetch(
    session: Session,
    root: str,
    names: Sequence[str],
    *,
    into: Path,
    tell: Callable[[str], None],
    partial: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[Artifact, ...]:
    """Bring `run/NAME` under `root` into the folder `into`, in the order of `names`. Raises `RunFailed`
    where one is missing that a good run has, unless `partial`; `TransferMismatch` where one arrives differently.
    """
    expected = contents(session, root, names)
    if not partial:
        refuse_missing(names, expected, where=f"{root}/run")
    artifacts: list[Artifact] = []
    for name in names:
        if name in expected:
            artifacts.append(_bring(session, f"{root}/run/{name}", into / name, expected[name], on_bytes))
            tell(f"{name}, {expected[name].size:,} bytes")
    return tuple(artifacts)


def refuse_missing(names: Sequence[str], found: Container[str], *, where: str) -> None:
    """Raises `RunFailed` where a good run lacks one of `names` that it should have."""
    missing = [name for name in names if name not in found and name not in _OPTIONAL]
    if missing:
        raise RunFailed(f"the trainer ended well but left no {', '.join(missing)} in {where}")


def contents(session: Session, root: str, names: Sequence[str]) -> Mapping[str, Expected]:
    """What each `run/NAME` under `root` on the machine holds, of those that exist."""
    command = ("sh", "-c", _LISTING, "listing", f"{root}/run", *names)
    done = session.run(command, timeout_seconds=_LISTING_SECONDS)
    if done.exit_status != 0:
        words = done.stderr.strip() or f"status {done.exit_status}"
        raise CommandFailed(f"cannot list the results in {root}/run: {words}")
    found: dict[str, Expected] = {}
    for line in done.stdout.splitlines():
        size, sha256, name = line.split(maxsplit=2)
        found[name] = Expected(int(size), sha256)
    return found


def content_of(path: Path) -> Expected:
    """What a file here holds."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Expected(file.tell(), sha256)


def _bring(
    session: Session, remote: str, local: Path, expected: Expected, on_bytes: Callable[[int], None] | None
) -> Artifact:
    def download(aside: Path) -> Expected:
        session.get(remote, aside, on_bytes=on_bytes)
        return expected

    return verified(download, local, what=remote)


def verified(download: Callable[[Path], Expected], local: Path, *, what: str) -> Artifact:
    """Have a file downloaded aside, verify it by what `download` says of it, force it to disk, rename it.
    `TransferMismatch` if it is another.
    """
    aside = local.with_name(f".{local.name}.part")
    try:
        expected = download(aside)
        _settle(aside)
        arrived = content_of(aside)
        if arrived != expected:
            raise TransferMismatch(
                f"{what}: arrived as {arrived.size} bytes with SHA-256 {arrived.sha256}, "
                f"the machine has {expected.size} bytes with {expected.sha256}"
            )
        aside.replace(local)
    finally:
        aside.unlink(missing_ok=True)
    return Artifact(local.name, local, expected.size, expected.sha256)


def _settle(path: Path) -> None:
    """Force a file to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
