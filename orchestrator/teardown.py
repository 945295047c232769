"""Giving back: walks the ledger's open entries backwards, then sweeps by tag what is left. It may be
repeated at will; whatever it cannot confirm to be gone it names as a survivor.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from orchestrator.errors import AlreadyGone, NotYetVisible, OrchestratorError, StillInUse
from orchestrator.events import TeardownReport
from orchestrator.ledger import Ledger, LedgerEntry, LedgerEvent, open_entries
from orchestrator.ports import Clock, CloudReader, CloudWriter
from orchestrator.resources import Kind, Tagged
from orchestrator.wait import wait_until

_ENDING_SECONDS = 600.0
_IN_USE_SECONDS = 300.0
_POLL_SECONDS = 1.0
_SETTLED_SECONDS = 30.0
"""What was asked for longer ago than this and is still not visible does not exist."""
_ORDER = (
    Kind.INSTANCE,
    Kind.KEY_PAIR,
    Kind.VOLUME,
    Kind.NETWORK_INTERFACE,
    Kind.PLACEMENT_GROUP,
    Kind.SECURITY_GROUP,
)


@dataclass(frozen=True, slots=True)
class _Site:
    """What every step touches."""

    reader: CloudReader
    writer: CloudWriter
    clock: Clock
    tell: Callable[[str], None]
    asked: set[str] = field(default_factory=set[str])
    """Instances whose end was asked for ahead of their turn."""


@dataclass(slots=True)
class _Tally:
    """What became of each resource so far. Survivors are kept with their ledger entry, if they have one:
    the sweep may still get them.
    """

    deleted: list[str] = field(default_factory=list[str])
    already_gone: list[str] = field(default_factory=list[str])
    survivors: dict[str, LedgerEntry | None] = field(default_factory=dict[str, LedgerEntry | None])

    @property
    def patience_seconds(self) -> float:
        """How long it makes sense to wait for what an instance holds: not at all if one survived."""
        return 0.0 if any(label.startswith(Kind.INSTANCE) for label in self.survivors) else _IN_USE_SECONDS

    def report(self) -> TeardownReport:
        """The tally, closed."""
        return TeardownReport(tuple(self.deleted), tuple(self.already_gone), tuple(self.survivors))


def teardown(
    entries: Sequence[LedgerEntry],
    *,
    reader: CloudReader,
    writer: CloudWriter,
    ledger: Ledger,
    clock: Clock,
    tell: Callable[[str], None],
) -> TeardownReport:
    """Delete what `entries`, a run's whole ledger, leave open, last created first, and then what still
    carries the run's tag. A failing call makes a survivor and does not stop the rest; only an interrupt
    rises. Nothing is looked for where nothing was ever asked for.
    """
    site, tally = _Site(reader, writer, clock, tell), _Tally()
    still_open = open_entries(tuple(entries))
    if _is_other_account(site, still_open):
        return TeardownReport(survivors=tuple(_label(entry) for entry in still_open))
    _ask_ahead(site, [entry.resource_id for entry in still_open if entry.kind is Kind.INSTANCE and entry.resource_id])
    for entry in reversed(still_open):
        _give_back(site, entry, ledger, tally)
    if still_open or any(entry.event is LedgerEvent.CREATED for entry in entries):
        _sweep_run(site, ledger, tally, run_ids=_tagged_as(entries, ledger), kinds=_kinds_of(entries))
    return tally.report()


def end_instances(
    entries: Sequence[LedgerEntry],
    *,
    reader: CloudReader,
    writer: CloudWriter,
    ledger: Ledger,
    clock: Clock,
    tell: Callable[[str], None],
) -> TeardownReport:
    """End the instances that `entries` leave open, and nothing else of their run."""
    site, tally = _Site(reader, writer, clock, tell), _Tally()
    for entry in reversed(open_entries(tuple(entries))):
        if entry.kind is Kind.INSTANCE:
            _give_back(site, entry, ledger, tally)
    return tally.report()


def sweep(
    reader: CloudReader,
    writer: CloudWriter,
    *,
    clock: Clock,
    tagged: Sequence[Tagged],
    tell: Callable[[str], None],
) -> TeardownReport:
    """Delete what was found by tag: instances first, security groups last. Ledgers are not needed."""
    tally = _Tally()
    _sweep(_Site(reader, writer, clock, tell), tagged, tally)
    return tally.report()


def _is_other_account(site: _Site, still_open: Sequence[LedgerEntry]) -> bool:
    """Whether the credentials are those of another account, in which all of it would seem to be gone."""
    wanted = {entry.detail["account_id"] for entry in still_open if "account_id" in entry.detail}
    if not wanted:
        return False
    try:
        account = site.reader.account()
    except OrchestratorError as error:
        site.tell(f"{error}; trying all the same")
        return False
    if account.account_id in wanted:
        return False
    site.tell(
        f"the run is in account {', '.join(sorted(wanted))}, these credentials are of {account.account_id}: "
        "nothing was touched; log in to the other account and repeat"
    )
    return True


def _give_back(site: _Site, entry: LedgerEntry, ledger: Ledger, tally: _Tally) -> None:
    label = _label(entry)
    try:
        found = (entry.resource_id,) if entry.resource_id else _found(site, entry)
        gone = [_give_one_back(site, entry, resource_id, tally.patience_seconds) for resource_id in found]
    except OrchestratorError as error:
        site.tell(f"{label}: {error}")
        tally.survivors[label] = entry
        return
    labels = [f"{entry.kind} {resource_id}" for resource_id in found] or [label]
    ledger.deleted(entry)
    (tally.deleted if any(gone) else tally.already_gone).extend(labels)
    site.tell(f"{', '.join(labels)}: {'deleted' if any(gone) else 'was not there'}")


def _give_one_back(site: _Site, entry: LedgerEntry, resource_id: str, patience_seconds: float) -> bool:
    if entry.kind is Kind.INSTANCE:
        return _end_instance(site, resource_id, settled=_age_seconds(site, entry) >= _SETTLED_SECONDS)
    return _delete(site, entry.kind, resource_id, patience_seconds=patience_seconds)


def _found(site: _Site, entry: LedgerEntry) -> tuple[str, ...]:
    """Ids of what was asked for, if anything came of it: the answer, or the program, was lost. What was
    asked for just now may take a while to be seen.
    """
    if entry.kind in {Kind.KEY_PAIR, Kind.PLACEMENT_GROUP}:
        return (entry.name,)

    def seen() -> tuple[str, ...] | None:
        ids = _by_token(site, entry) if entry.token else _by_name(site, entry)
        return ids if ids or _age_seconds(site, entry) >= _SETTLED_SECONDS else None

    return wait_until(
        seen,
        clock=site.clock,
        limit_seconds=2 * _SETTLED_SECONDS,
        every_seconds=_POLL_SECONDS,
        what=f"a trace of the {entry.kind}",
    )


def _by_token(site: _Site, entry: LedgerEntry) -> tuple[str, ...]:
    made = site.reader.instances_of_token(entry.token or "")
    return tuple(instance.instance_id for instance in made)


def _by_name(site: _Site, entry: LedgerEntry) -> tuple[str, ...]:
    ours = site.reader.tagged(entry.run_id)
    return tuple(found.resource_id for found in ours if found.kind is entry.kind and found.name == entry.name)


def _delete(site: _Site, kind: Kind, resource_id: str, *, patience_seconds: float) -> bool:
    """Delete what is no instance: `False` if it was gone before."""
    deletes: dict[Kind, Callable[[str], None]] = {
        Kind.KEY_PAIR: site.writer.delete_key_pair,
        Kind.SECURITY_GROUP: site.writer.delete_security_group,
        Kind.PLACEMENT_GROUP: site.writer.delete_placement_group,
        Kind.VOLUME: site.writer.delete_volume,
    }
    delete = deletes[kind]

    def deleted() -> bool | None:
        try:
            delete(resource_id)
        except AlreadyGone:
            return False
        except StillInUse:
            return None
        return True

    return _waited(site, deleted, limit_seconds=patience_seconds, what=f"{resource_id} to be free")


def _end_instance(site: _Site, instance_id: str, *, settled: bool) -> bool:
    """Terminate and see it terminated: `False` if it was so before."""
    asked = instance_id in site.asked or _terminated(site, instance_id)
    unseen_until = site.clock.now() + timedelta(seconds=0 if settled else _SETTLED_SECONDS)

    def ended() -> bool | None:
        nonlocal asked
        try:
            state = site.reader.instance(instance_id).state
        except NotYetVisible:
            return asked if site.clock.now() >= unseen_until else None
        if state == "terminated":
            return asked
        if state != "shutting-down":
            # It may have been too young to be known when it was asked for first.
            asked = _terminated(site, instance_id) or asked
        return None

    return _waited(site, ended, limit_seconds=_ENDING_SECONDS, what=f"{instance_id} to be terminated")


def _ask_ahead(site: _Site, instance_ids: Sequence[str]) -> None:
    """Of several instances none is to run on while another's end is waited for. What fails is tried again in turn."""
    for instance_id in instance_ids if len(instance_ids) > 1 else ():
        with suppress(OrchestratorError):
            site.writer.terminate_instance(instance_id)
            site.asked.add(instance_id)


def _terminated(site: _Site, instance_id: str) -> bool:
    try:
        site.writer.terminate_instance(instance_id)
    except AlreadyGone:
        return False
    return True


def _waited(site: _Site, check: Callable[[], bool | None], *, limit_seconds: float, what: str) -> bool:
    return wait_until(check, clock=site.clock, limit_seconds=limit_seconds, every_seconds=_POLL_SECONDS, what=what)


def _tagged_as(entries: Sequence[LedgerEntry], ledger: Ledger) -> tuple[str, ...]:
    """The runs whose tags the run's things carry: what was taken over keeps that of the run that made it."""
    return tuple(dict.fromkeys((ledger.run_id, *(entry.detail.get("origin", ledger.run_id) for entry in entries))))


def _kinds_of(entries: Sequence[LedgerEntry]) -> tuple[Kind, ...]:
    """What the run may have left. Whoever never rents several machines needs no right to look for placement groups."""
    placed = any(entry.kind is Kind.PLACEMENT_GROUP for entry in entries)
    return tuple(kind for kind in Kind if placed or kind is not Kind.PLACEMENT_GROUP)


def _sweep_run(site: _Site, ledger: Ledger, tally: _Tally, *, run_ids: Sequence[str], kinds: Sequence[Kind]) -> None:
    """Delete what carries the run's tag and the walk did not get, and look at its survivors again."""
    doubtful = dict(tally.survivors)
    try:
        tagged = [found for run_id in run_ids for found in site.reader.tagged(run_id, kinds=kinds)]
    except OrchestratorError as error:
        site.tell(f"what is left could not be looked for: {error}")
        tally.survivors[f"anything tagged run-id={ledger.run_id}"] = None
        return
    tally.survivors.clear()
    _sweep(site, tagged, tally)
    for label, entry in doubtful.items():
        traces = {f"{found.kind} {found.resource_id}" for found in tagged if entry and _is_of(entry, found)}
        if entry is None or traces & set(tally.survivors):
            continue
        if traces or _age_seconds(site, entry) >= _SETTLED_SECONDS:
            ledger.deleted(entry)
            tally.already_gone += [] if traces else [label]
        else:
            tally.survivors[label] = entry


def _sweep(site: _Site, tagged: Sequence[Tagged], tally: _Tally) -> None:
    _ask_ahead(site, [found.resource_id for found in tagged if found.kind is Kind.INSTANCE])
    for found in sorted(tagged, key=lambda found: _ORDER.index(found.kind)):
        label = f"{found.kind} {found.resource_id}"
        try:
            deleted = _swept(site, found, tally.patience_seconds)
        except OrchestratorError as error:
            site.tell(f"{label}: {error}")
            tally.survivors[label] = None
            continue
        (tally.deleted if deleted else tally.already_gone).append(label)
        site.tell(f"{label}: {'deleted' if deleted else 'gone by itself'}")


def _swept(site: _Site, found: Tagged, patience_seconds: float) -> bool:
    if found.kind is Kind.INSTANCE:
        return _end_instance(site, found.resource_id, settled=True)
    if found.kind is not Kind.NETWORK_INTERFACE:
        return _delete(site, found.kind, found.resource_id, patience_seconds=patience_seconds)

    def vanished() -> bool | None:
        left = {other.resource_id for other in site.reader.tagged(found.run_id or None)}
        return None if found.resource_id in left else False

    # An interface goes with its instance.
    what = f"{found.resource_id} to go with its instance"
    return _waited(site, vanished, limit_seconds=patience_seconds, what=what)


def _is_of(entry: LedgerEntry, found: Tagged) -> bool:
    if entry.kind is not found.kind:
        return False
    return found.resource_id == entry.resource_id if entry.resource_id else found.name == entry.name


def _label(entry: LedgerEntry) -> str:
    return f"{entry.kind} {entry.resource_id or entry.name}"


def _age_seconds(site: _Site, entry: LedgerEntry) -> float:
    return (site.clock.now() - entry.at).total_seconds()
