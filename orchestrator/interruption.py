"""Machines that AWS takes back: how that is told from a failure, whether another is rented, for how long, and which
offers may serve; and what is done meanwhile for a line that is lost.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from orchestrator.admission import admit_caller
from orchestrator.errors import (
    CloudUnavailable,
    CommandFailed,
    HostUnreachable,
    InstanceDied,
    NotYetVisible,
    RunFailed,
    TakenBack,
    TimedOut,
    TrainingFailed,
)
from orchestrator.events import TeardownReport
from orchestrator.homing import Homing
from orchestrator.ledger import Ledger, read_ledger
from orchestrator.money import Bill, usd_per_hour
from orchestrator.plan import Plan
from orchestrator.ports import Clock, CloudReader, CloudWriter, Session
from orchestrator.record import LEDGER_FILE, MachineRecord, Rental, Turn
from orchestrator.remote import SAVED
from orchestrator.resources import Market, Offer
from orchestrator.teardown import end_instances
from orchestrator.telling import Say

ASKED_TO_END = frozenset({SAVED, 143})
"""Exit statuses of a trainer that was asked to end: by itself, once it has saved; by the signal, too early for that."""
NOTICE = "interruption.json"
"""In a run directory: AWS's notice, as the machine heard it."""
_BY_AWS = "Server."
"""How reasons begin that lie with AWS: `Server.SpotInstanceTermination`, `Server.SpotInstanceShutdown`, and, for any
machine, `Server.InternalError`. A timer, a user or a console end one by a `Client.` reason.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
"""
_WAIT_MINUTES = Decimal(15)
"""For how long offers are asked for again at least: while no machine runs, waiting costs nothing."""
_LEAST_HOURS = Decimal("0.05")
"""Less time is not worth a machine: it takes about as long until it trains."""
_NEARLY_ALL = Decimal("0.95")
_ASK_SECONDS = 5.0


def refuse_if_ended(reader: CloudReader, machine: MachineRecord) -> None:
    """Raises `TakenBack` where AWS ended the machine, `InstanceDied` where anything else did."""
    name = machine.instance_id
    try:
        seen = reader.instance(name)
    except NotYetVisible:
        kind = TakenBack if machine.market is Market.SPOT else InstanceDied
        raise kind(f"{name} is gone, and with it what was not brought home") from None
    if seen.state in {"running", "pending"}:
        return
    reason = seen.state_reason or ""
    kind = TakenBack if reason.startswith(_BY_AWS) else InstanceDied
    said = f" ({reason})" if reason else ""
    raise kind(f"{name} is {seen.state}{said}, and gone is what was not brought home")


@contextmanager
def telling_ends_apart(reader: CloudReader, machine: MachineRecord) -> Generator[None]:
    """A line, a command or a training that fails because the machine has ended is told as its end."""
    try:
        yield
    except (HostUnreachable, TimedOut, CommandFailed, TrainingFailed):
        try:
            refuse_if_ended(reader, machine)
        except InstanceDied:
            raise
        except RunFailed:
            pass
        raise


def notice_of(session: Session, rental: Rental) -> TakenBack | None:
    """What the machine heard of its end, if it did."""
    try:
        told = json.loads(session.read(f"{rental.root}/run/{NOTICE}"))
    except ValueError:
        return None
    when = told.get("time") if isinstance(told, dict) else None
    return TakenBack(f"AWS takes {rental.machine.instance_id} back" + (f" at {when}" if isinstance(when, str) else ""))


@dataclass(slots=True)
class Lookout:
    """Called while a machine does not answer: has it ended, are we cut off ourselves, and may we still reach it from
    where we are now?
    """

    reader: CloudReader
    writer: CloudWriter
    clock: Clock
    ledger: Ledger
    rental: Rental
    tell: Say
    due: datetime | None = None
    cut_off: bool = False
    said: str = ""

    def __call__(self) -> bool:
        """Whether AWS does not answer either. Raises `TakenBack` or `InstanceDied`; what else AWS says is told."""
        now = self.clock.now()
        if self.due is not None and now < self.due:
            return self.cut_off
        self.due = now + timedelta(seconds=_ASK_SECONDS)
        try:
            refuse_if_ended(self.reader, self.rental.machine)
            entries = read_ledger(self.rental.folder / LEDGER_FILE)
            admit_caller(entries, reader=self.reader, writer=self.writer, ledger=self.ledger, tell=self.tell)
            self.cut_off = False
        except InstanceDied:
            raise
        except RunFailed as error:
            self.cut_off = isinstance(error, CloudUnavailable)
            if str(error) != self.said:
                self.said = str(error)
                self.tell(f"{error}; trying the machine all the same")
        return self.cut_off


def bring_what_was_saved(session: Session, rental: Rental, clock: Clock, say: Say) -> None:
    """After a trainer was asked to end: if AWS is behind it, bring its last checkpoint home and raise `TakenBack`."""
    notice = notice_of(session, rental)
    if notice is None:
        return
    try:
        Homing(rental, clock, say).bring(session)
    except RunFailed as error:
        say(f"the last checkpoint did not come home: {error}")
    raise notice


def follow_up(
    plan: Plan,
    error: TakenBack,
    lost: Rental,
    *,
    reader: CloudReader,
    writer: CloudWriter,
    ledger: Ledger,
    clock: Clock,
    tell: Say,
) -> tuple[Plan, Turn, TeardownReport]:
    """See that a machine which was taken back is gone, and plan the next one. `TakenBack` if there is to be none."""
    entries = read_ledger(lost.folder / LEDGER_FILE)
    report = end_instances(entries, reader=reader, writer=writer, ledger=ledger, clock=clock, tell=tell)
    if report.survivors:
        raise TakenBack(f"{error}; no other machine is rented beside it: it could not be seen to end") from error
    spent = lost.meter.until(clock.now())
    again = planned_again(plan, error, lost.machine, spent, clock.now())
    tell(f"{spent.usd} USD are spent; renting another for at most {again.spec.max_hours:.2f} h")
    return again, Turn(lost.machine.number + 1, spent), report


def planned_again(plan: Plan, error: TakenBack, lost: MachineRecord, spent: Bill, now: datetime) -> Plan:
    """The plan for the machine after `lost`, where `spent` is what all have cost so far: for the hours that are left,
    or those that `max_usd` leaves; offers that can serve nearly so long, the others if none can; where AWS just took
    one, last. `TakenBack` with the reason where there is no room for another.
    """
    spec, number = plan.spec, lost.number
    if number > spec.max_interruptions:
        raise TakenBack(f"{error}; that was interruption {number}, max_interruptions = {spec.max_interruptions}")
    hours = spec.max_hours - Decimal(str(spent.hours))
    if hours < _LEAST_HOURS:
        raise TakenBack(f"{error}; of max_hours = {spec.max_hours} no time is left for another machine")
    affordable = {offer: _hours(plan, offer, spent, at_most=hours) for offer in plan.offers}
    kept = tuple(offer for offer, can in affordable.items() if can >= hours * _NEARLY_ALL) or tuple(
        offer for offer, can in affordable.items() if can >= _LEAST_HOURS
    )
    if not kept:
        raise TakenBack(f"{error}; {spent.usd} USD are spent, max_usd = {spec.max_usd} leaves none for another machine")
    hours = min(affordable[offer] for offer in kept)
    minutes = max(spec.wait_capacity_minutes, _WAIT_MINUTES)
    return replace(
        plan,
        spec=spec.model_copy(update={"max_hours": hours, "wait_capacity_minutes": minutes}),
        offers=tuple(sorted(kept, key=lambda offer: _is_of(offer, lost))),
        expires_at=now + timedelta(hours=float(hours), minutes=float(minutes)),
    )


def _hours(plan: Plan, offer: Offer, spent: Bill, *, at_most: Decimal) -> Decimal:
    """For how long the offer may be rented."""
    if plan.spec.max_usd is None:
        return at_most
    left = max(plan.spec.max_usd - spent.usd, Decimal(0))
    return min(at_most, left / usd_per_hour(offer.usd_per_hour, volume_gib=plan.volume_gib))


def _is_of(offer: Offer, lost: MachineRecord) -> bool:
    return (offer.instance_type, offer.zone, offer.market) == (lost.instance_type, lost.zone, lost.market)
