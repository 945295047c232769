"""The ledger: an append-only JSONL journal of what a run creates, written before each call and after
it, and read back by whoever gives things back. Knows nothing of the cloud, and no secret enters it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.ports import Clock
from orchestrator.resources import Kind


class LedgerEvent(StrEnum):
    """What became of a resource."""

    INTENDED = "intended"
    CREATED = "created"
    DELETED = "deleted"
    FAILED = "failed"
    HANDED_OVER = "handed over"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line. `name` names the resource before it has an id; `token` is its client token, if EC2
    takes one, and `node` tells instances apart that one token makes. The `resource_id` of a key pair or
    placement group is its name, by which it is deleted.
    """

    at: datetime
    run_id: str
    event: LedgerEvent
    kind: Kind
    region: str
    name: str
    token: str | None = None
    resource_id: str | None = None
    detail: Mapping[str, str] = field(default_factory=dict[str, str])
    node: int = 0

    @property
    def identity(self) -> tuple[Kind, str, int]:
        """What the entries of one resource have in common."""
        return self.kind, self.token or self.name, self.node


class Ledger:
    """The journal of one run, at `path`. Every line is on disk before the call that wrote it returns."""

    def __init__(self, path: Path, *, clock: Clock, run_id: str, region: str) -> None:
        self._path = path
        self.clock = clock
        self.run_id = run_id
        self.region = region

    def intend(self, kind: Kind, *, name: str, token: str | None = None, node: int = 0, **detail: str) -> LedgerEntry:
        """Write down that a resource is about to be asked for; later lines about it take this entry."""
        entry = LedgerEntry(
            self.clock.now(), self.run_id, LedgerEvent.INTENDED, kind, self.region, name, token, None, detail, node
        )
        return self._append(entry)

    def created(self, entry: LedgerEntry, resource_id: str) -> LedgerEntry:
        """The resource exists and has this id."""
        return self._follow(entry, LedgerEvent.CREATED, resource_id)

    def changed(self, entry: LedgerEntry, **detail: str) -> LedgerEntry:
        """The resource, which exists, is another in this."""
        return self._follow(entry, LedgerEvent.CREATED, entry.resource_id, at=None, **detail)

    def deleted(self, entry: LedgerEntry, *, at: datetime | None = None) -> LedgerEntry:
        """The resource is confirmed to be gone, now or since `at`."""
        return self._follow(entry, LedgerEvent.DELETED, entry.resource_id, at=at)

    def failed(self, entry: LedgerEntry, reason: str) -> LedgerEntry:
        """AWS refused: the resource was not created. Not for answers that were lost."""
        return self._follow(entry, LedgerEvent.FAILED, entry.resource_id, reason=reason)

    def adopted(self, entry: LedgerEntry, **detail: str) -> LedgerEntry:
        """Something of another run's is this one's from now on; `origin` in its detail is the run whose tag it has."""
        origin = entry.detail.get("origin", entry.run_id)
        whole = {**entry.detail, **detail, "origin": origin}
        mine = replace(entry, at=self.clock.now(), run_id=self.run_id, event=LedgerEvent.CREATED, detail=whole)
        return self._append(mine)

    def handed_over(self, entry: LedgerEntry, run_id: str) -> LedgerEntry:
        """It is another run's from now on."""
        return self._follow(entry, LedgerEvent.HANDED_OVER, entry.resource_id, to=run_id)

    def _follow(
        self,
        entry: LedgerEntry,
        event: LedgerEvent,
        resource_id: str | None,
        *,
        at: datetime | None = None,
        **detail: str,
    ) -> LedgerEntry:
        return self._append(
            LedgerEntry(
                at or self.clock.now(),
                entry.run_id,
                event,
                entry.kind,
                entry.region,
                entry.name,
                entry.token,
                resource_id,
                {**entry.detail, **detail},
                entry.node,
            )
        )

    def _append(self, entry: LedgerEntry) -> LedgerEntry:
        line = json.dumps(_record(entry), ensure_ascii=False) + "\n"
        torn = _ends_mid_line(self._path)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + line if torn else line)
            file.flush()
            os.fsync(file.fileno())
        return entry


def read_ledger(path: Path) -> tuple[LedgerEntry, ...]:
    """Every entry, in order; none where there is no file. A line that cannot be read is passed over:
    the writer may have been killed in the middle of it, before the call it announced.
    """
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(entry for line in lines if (entry := _parse(line)) is not None)


def open_entries(entries: tuple[LedgerEntry, ...]) -> tuple[LedgerEntry, ...]:
    """The last entry of each resource that may still exist, in the order of creation."""
    last: dict[tuple[Kind, str, int], LedgerEntry] = {}
    for entry in entries:
        last[entry.identity] = entry
    return tuple(entry for entry in last.values() if entry.event in {LedgerEvent.INTENDED, LedgerEvent.CREATED})


def _record(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "at": entry.at.isoformat(),
        "run_id": entry.run_id,
        "event": entry.event.value,
        "kind": entry.kind.value,
        "region": entry.region,
        "name": entry.name,
        "token": entry.token,
        "resource_id": entry.resource_id,
        "detail": dict(entry.detail),
        "node": entry.node,
    }


def _parse(line: str) -> LedgerEntry | None:
    try:
        record = json.loads(line)
        return LedgerEntry(
            at=datetime.fromisoformat(record["at"]),
            run_id=record["run_id"],
            event=LedgerEvent(record["event"]),
            kind=Kind(record["kind"]),
            region=record["region"],
            name=record["name"],
            token=record.get("token"),
            resource_id=record.get("resource_id"),
            detail=record.get("detail") or {},
            node=int(record.get("node", 0)),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _ends_mid_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
