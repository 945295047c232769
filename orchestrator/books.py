"""The books: what each run in a folder has cost and how it stands, by its record and its ledger alone; nobody is
asked. A machine whose end nobody saw is reckoned to its timer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

from orchestrator.ledger import LedgerEntry, LedgerEvent, open_entries, read_ledger
from orchestrator.money import Bill, bill
from orchestrator.record import FILE_NAME, LEDGER_FILE, RunRecord, read_record
from orchestrator.resources import Kind


@dataclass(frozen=True, slots=True)
class Books:
    """One run. `state`: `rented`, `kept` (for the next run), `over time` (its timer should have ended it), `renting`,
    `done`, `failed` or `given back`.
    """

    run_id: str
    folder: Path
    state: str
    machine: str
    began_at: datetime
    bills: tuple[Bill, ...]
    priced: bool
    """Whether every machine's price is known."""

    @property
    def hours(self) -> float:
        """Billed machine time."""
        return sum(bill.hours for bill in self.bills)

    @property
    def usd(self) -> Decimal:
        """Instance, volume and address."""
        return sum((bill.usd for bill in self.bills), Decimal(0))

    @property
    def running(self) -> bool:
        """Whether it still costs money, as far as the books tell."""
        return self.state in {"rented", "kept"}


def books_of(folder: Path, record: RunRecord, now: datetime) -> Books:
    """The books of one run, up to `now` if its machine is still rented."""
    entries = read_ledger(folder / LEDGER_FILE)
    kept_until = record.machine.kept_until if record.machine else None
    rents = tuple(_rents(entries, now, kept_until))
    last = rents[-1] if rents else None
    return Books(
        run_id=record.run_id,
        folder=folder,
        state=_state(record, entries, last, now),
        machine=_machines(rents),
        began_at=entries[0].at if entries else _written_at(folder, now),
        bills=tuple(rent.bill for rent in rents if rent.bill is not None),
        priced=all(rent.bill is not None for rent in rents),
    )


def all_books(output: Path, now: datetime) -> tuple[Books, ...]:
    """The books of every run folder below `output`, oldest first."""
    folders = sorted(path.parent for path in output.glob(f"*/{FILE_NAME}"))
    found = (books_of(folder, read_record(folder), now) for folder in folders)
    return tuple(sorted(found, key=lambda books: books.began_at))


_ENDINGS = {LedgerEvent.DELETED, LedgerEvent.HANDED_OVER}
"""By which a machine stops costing this run."""


@dataclass(frozen=True, slots=True)
class _Rent:
    instance_id: str
    instance_type: str
    timer_at: datetime | None
    bill: Bill | None
    token: str | None


def _machines(rents: Sequence[_Rent]) -> str:
    """Those of the last launch: `g6.xlarge i-…`, `2 × g6.xlarge i-… i-…`."""
    alike = [rent for rent in rents if rent.token == rents[-1].token]
    number = f"{len(alike)} × " if len(alike) > 1 else ""
    return " ".join((f"{number}{alike[-1].instance_type}", *(rent.instance_id for rent in alike))) if alike else ""


def _rents(entries: Sequence[LedgerEntry], now: datetime, kept_until: datetime | None) -> Iterator[_Rent]:
    ended = {entry.identity: entry.at for entry in entries if entry.event in _ENDINGS}
    for entry in entries:
        if entry.kind is Kind.INSTANCE and entry.event is LedgerEvent.CREATED:
            timer_at = min(filter(None, (_timer_at(entry), kept_until)), default=None)
            until = min(ended.get(entry.identity, now), timer_at or now)
            kind, rent = entry.detail.get("instance_type", ""), _bill(entry, until)
            yield _Rent(entry.resource_id or "", kind, timer_at, rent, entry.token)


def _bill(entry: LedgerEntry, until: datetime) -> Bill | None:
    try:
        price, volume_gib = Decimal(entry.detail["usd_per_hour"]), int(entry.detail["volume_gib"])
    except (KeyError, ValueError, InvalidOperation):
        return None
    return bill(price, volume_gib=volume_gib, launched_at=entry.at, ended_at=until)


def _timer_at(entry: LedgerEntry) -> datetime | None:
    try:
        return entry.at + timedelta(hours=float(entry.detail["max_hours"]))
    except (KeyError, ValueError):
        return None


def _state(record: RunRecord, entries: Sequence[LedgerEntry], last: _Rent | None, now: datetime) -> str:
    if open_entries(tuple(entries)):
        if last is not None and last.timer_at is not None and now > last.timer_at:
            return "over time"
        if record.machine is None:
            return "renting"
        return "rented" if record.machine.kept_until is None else "kept"
    if record.outcome is not None:
        return "done" if record.outcome.get("exit_status") == 0 else "failed"
    return "given back" if entries else "renting"


def _written_at(folder: Path, now: datetime) -> datetime:
    return datetime.fromtimestamp((folder / FILE_NAME).stat().st_mtime, tz=now.tzinfo)
