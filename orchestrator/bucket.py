"""A run that its machine has put into a bucket of the user's: whether all is there, bringing it home, verified, and
closing the books of a machine that has ended itself. Nothing here writes to the bucket.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.errors import AlreadyGone, NotYetVisible, RunFailed
from orchestrator.events import Artifact
from orchestrator.fetch import Expected, refuse_missing, verified
from orchestrator.ledger import Ledger, LedgerEvent, open_entries, read_ledger
from orchestrator.ports import Clock, CloudReader, Storage
from orchestrator.record import LEDGER_FILE, read_record
from orchestrator.resources import BucketFolder, Kind
from orchestrator.wait import wait_until

MANIFEST = "manifest.json"
"""Written by the machine last of all."""
_KEEPING_SECONDS = 900.0
"""How long the machine may take to put there what it has made."""
_LOOK_SECONDS = 3.0


class KeptFile(BaseModel):
    """A file that the machine has put there."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    sha256: str


class KeptRun(BaseModel):
    """What the machine tells when all is there. Read leniently."""

    model_config = ConfigDict(frozen=True)

    exit_status: int
    """The trainer's."""
    ended_at: datetime
    files: tuple[KeptFile, ...]


def kept_run(storage: Storage, folder: BucketFolder) -> KeptRun | None:
    """What the machine has told, or `None` while not everything is there: it begins by telling that it has begun."""
    told = storage.read(folder.bucket, folder.key(MANIFEST))
    if told is None:
        return None
    try:
        values = json.loads(told)
        return None if "begun_at" in values else KeptRun.model_validate(values)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunFailed(f"{folder.url}/{MANIFEST}: not what the machine writes: {reason}") from error


class Watch:
    """Looks now and then whether a run was kept."""

    def __init__(self, storage: Storage, folder: BucketFolder, clock: Clock) -> None:
        self._storage, self._folder, self._clock = storage, folder, clock
        self._looked_at: datetime | None = None

    def exit_status(self) -> int | None:
        """The trainer's, once everything is there. A bucket that does not answer tells nothing."""
        now = self._clock.now()
        if self._looked_at is not None and (now - self._looked_at).total_seconds() < _LOOK_SECONDS:
            return None
        self._looked_at = now
        with suppress(RunFailed):
            kept = kept_run(self._storage, self._folder)
            return None if kept is None else kept.exit_status
        return None


def wait_for_kept(storage: Storage, folder: BucketFolder, *, clock: Clock) -> KeptRun:
    """What the machine tells, once everything is there. `TimedOut` if that takes too long."""
    return wait_until(
        lambda: kept_run(storage, folder),
        clock=clock,
        limit_seconds=_KEEPING_SECONDS,
        every_seconds=_LOOK_SECONDS,
        what=f"{folder.url}/{MANIFEST}",
    )


def bring_kept(
    storage: Storage,
    folder: BucketFolder,
    kept: KeptRun,
    names: Sequence[str],
    *,
    into: Path,
    tell: Callable[[str], None],
) -> tuple[Artifact, ...]:
    """Bring what is there into the folder `into`, in the order of `names`, each file verified by its size and SHA-256.
    `TransferMismatch` where one is not what the machine has put there, `RunFailed` where one is missing that a good run
    has.
    """
    files = {file.name: file for file in kept.files}
    if kept.exit_status == 0:
        refuse_missing(names, files, where=folder.url)
    found: list[Artifact] = []
    for file in (files[name] for name in names if name in files):
        found.append(_bring(storage, folder, file.name, into, Expected(file.size, file.sha256)))
        tell(f"{file.name}, {file.size:,} bytes")
    return tuple(found)


def bring_what_there_is(
    storage: Storage, folder: BucketFolder, names: Sequence[str], *, into: Path, tell: Callable[[str], None]
) -> tuple[Artifact, ...]:
    """Bring those of `names` that the machine had put there before it ended, verified by what it noted of each."""
    there = set(storage.names(folder.bucket, folder.key("")))
    found: list[Artifact] = []
    for name in (name for name in names if name in there):
        found.append(_bring(storage, folder, name, into, None))
        tell(f"{name}, {found[-1].size:,} bytes")
    return tuple(found)


def date_own_end(reader: CloudReader, storage: Storage, ledger: Ledger, folder: Path) -> None:
    """Where a run's machine has kept everything and ended itself, enter the moment at which it did into the ledger: it
    cost nothing from then on. Where that cannot be told, nothing happens.
    """
    entries = open_entries(read_ledger(folder / LEDGER_FILE))
    instances = [entry for entry in entries if entry.kind is Kind.INSTANCE and entry.event is LedgerEvent.CREATED]
    machine = read_record(folder).machine if instances else None
    if machine is None or machine.kept_in is None:
        return
    with suppress(RunFailed):
        kept = kept_run(storage, machine.kept_in)
        for entry in instances if kept is not None and _has_ended(reader, machine.instance_id) else ():
            if entry.resource_id == machine.instance_id and kept is not None:
                ledger.deleted(entry, at=kept.ended_at)


def _has_ended(reader: CloudReader, instance_id: str) -> bool:
    try:
        return reader.instance(instance_id).state == "terminated"
    except NotYetVisible:
        return True


def _bring(storage: Storage, folder: BucketFolder, name: str, into: Path, promised: Expected | None) -> Artifact:
    url = f"{folder.url}/{name}"

    def download(aside: Path) -> Expected:
        try:
            stored = storage.download(folder.bucket, folder.key(name), aside)
        except AlreadyGone as error:
            raise RunFailed(f"{url} is not there (any more): {error}") from error
        if promised is not None:
            return promised
        if stored.sha256 is None:
            raise RunFailed(f"{url}: its SHA-256 is not noted with it: it was not put there by a run's machine")
        return Expected(stored.size, stored.sha256)

    return verified(download, into / name, what=url)
