"""Machines kept after a run for the next one: how long, by a timer of their own, and how another run takes one over
with keys, ledger and all. Whoever holds the folder of either run can end the machine: the new one has it in its
ledger, the old one finds it by its tag.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from orchestrator.errors import CommandFailed, UsageError
from orchestrator.kept import KeptMachine
from orchestrator.ledger import Ledger, LedgerEntry, open_entries, read_ledger
from orchestrator.ports import Session
from orchestrator.record import (
    KEY_FILE,
    LEDGER_FILE,
    Rental,
    RunRecord,
    forget_keys,
    read_record,
    remember_machines,
    write_record,
)
from orchestrator.resources import Kind, Market
from orchestrator.spec import RunSpec

_LEAST_IDLE_SECONDS = 15.0
"""With less until its idle timer rings a machine might end before the timer is stopped."""


def keep(session: Session, rental: Rental, now: datetime) -> datetime:
    """Arm the idle timer of a machine whose run is over; when it rings. What the first boot armed may ring before."""
    asked = timedelta(minutes=float(rental.machine.keep_alive_minutes))
    _timer(session, rental.root, str(max(1, round(asked.total_seconds()))))
    until = min(now + asked, rental.machine.ends_at)
    _remember(rental.folder, kept_until=until)
    return until


@dataclass(frozen=True, slots=True)
class Keeper:
    """The run that has kept a machine: its folder, and what is open in its ledger."""

    folder: Path
    machine: KeptMachine
    entries: tuple[LedgerEntry, ...]

    @property
    def rental(self) -> Rental:
        """The machine as this run dials it."""
        return Rental(self.folder, self.machine.run_id, self.machine.machine)

    def hand_over(self, folder: Path, ledger: Ledger, spec: RunSpec, now: datetime) -> Rental:
        """Make it the machine of the run in `folder`: keys and ledger entries first, so that there is never nobody to
        give it back. `UsageError` if another run has taken it meanwhile.
        """
        try:
            shutil.move(self.folder / KEY_FILE, folder / KEY_FILE)
        except FileNotFoundError as error:
            raise UsageError(f"{self.machine.name}: another run has just taken it") from error
        for entry in self.entries:
            ledger.adopted(entry, max_hours=str(spec.max_hours))
        machine = self.machine.machine.model_copy(
            update={
                "launched_at": now,
                "max_usd": spec.max_usd,
                "checkpoint_seconds": spec.checkpoint_seconds,
                "number": 1,
                "hours_before": 0.0,
                "usd_before": Decimal(0),
                "keep_alive_minutes": spec.keep_alive_minutes,
                "kept_until": None,
            }
        )
        rental = remember_machines(folder, (machine,))
        mine = Ledger(self.folder / LEDGER_FILE, clock=ledger.clock, run_id=self.machine.run_id, region=ledger.region)
        for entry in self.entries:
            mine.handed_over(entry, ledger.run_id)
        _remember(self.folder, handed_over_to=ledger.run_id)
        forget_keys(self.folder)
        return rental

    def release(self, session: Session) -> None:
        """Stop the idle timer: somebody uses the machine again."""
        _timer(session, self.rental.root, "stop")


def keeper(folder: Path, record: RunRecord, now: datetime) -> Keeper:
    """The run as the keeper of its machine. `UsageError` where it keeps none (any more)."""
    name, machine = record.run_id, record.machine
    if record.handed_over_to is not None:
        raise UsageError(f"run {name} handed its machine over to {record.handed_over_to}: name that one")
    entries = open_entries(read_ledger(folder / LEDGER_FILE))
    if machine is None or machine.kept_until is None or not any(entry.kind is Kind.INSTANCE for entry in entries):
        raise UsageError(
            f"run {name} keeps no machine: only a run that ended well with --keep-alive does, until its time is over "
            "or `orchestrator down`"
        )
    left = (min(machine.kept_until, machine.ends_at) - now).total_seconds()
    if left < _LEAST_IDLE_SECONDS:
        raise UsageError(f"the machine of run {name} ended itself at {machine.kept_until:%H:%M} UTC, or is about to")
    detail = {entry.kind: entry.detail for entry in entries}
    instance, group = detail[Kind.INSTANCE], detail.get(Kind.SECURITY_GROUP, {})
    kept = KeptMachine(
        run_id=name,
        region=record.region,
        account_id=record.account_id,
        machine=machine,
        image_id=instance.get("image_id", ""),
        market=Market(instance.get("market", Market.ON_DEMAND)),
        vpc_id=group.get("vpc_id", ""),
        ingress_cidr=group.get("ingress_cidr", ""),
        instance_profile=instance.get("instance_profile") or None,
    )
    return Keeper(folder, kept, entries)


def _timer(session: Session, root: str, what: str) -> None:
    done = session.run(("sh", f"{root}/tree/infra/keep-alive.sh", what))
    if done.exit_status != 0:
        raise CommandFailed(f"keep-alive.sh failed on the machine: {done.stderr.strip()}")


def _remember(folder: Path, *, kept_until: datetime | None = None, handed_over_to: str | None = None) -> None:
    record = read_record(folder)
    if record.machine is not None and kept_until is not None:
        record = record.model_copy(update={"machine": record.machine.model_copy(update={"kept_until": kept_until})})
    write_record(folder, record.model_copy(update={"handed_over_to": handed_over_to}))
