"""What the verbs do with a run whose machine lives, from any shell that has its folder: look, listen, go on, bring
home, log in. A run that was left alone and one whose client died are the same to them.
"""

import contextlib
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TextIO

from orchestrator.admission import admit_caller
from orchestrator.bucket import bring_kept, bring_what_there_is, kept_run
from orchestrator.errors import (
    HostUnreachable,
    InstanceDied,
    RunFailed,
    TimedOut,
    TrainingFailed,
    UsageError,
)
from orchestrator.events import Artifact, Outcome, Stage, Standing
from orchestrator.fetch import fetch
from orchestrator.interruption import refuse_if_ended
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.ports import Session
from orchestrator.record import KNOWN_HOSTS, LEDGER_FILE, MachineRecord, Rental, RunRecord, find_run
from orchestrator.remote import Look, follow, look_at, progress_of, snapshot
from orchestrator.report.progress import progress
from orchestrator.report.summary import close_books
from orchestrator.resources import Kind
from orchestrator.run import go_on
from orchestrator.rundir import ARTIFACTS, FETCHED
from orchestrator.stopping import stoppable
from orchestrator.telling import Telling
from orchestrator.training import World
from orchestrator.worlds import door_of, tunnel_of, world_at

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Site:
    """A run's folder, its record, and the world that it takes place in."""

    folder: Path
    record: RunRecord
    world: World

    @property
    def ledger(self) -> Ledger:
        """The run's ledger, to be written on."""
        record = self.record
        path = self.folder / LEDGER_FILE
        return Ledger(path, clock=self.world.clock, run_id=record.run_id, region=record.region)

    def rental(self) -> Rental:
        """The machine. `UsageError` where there is none any more, or not yet."""
        state = _without_machine(self)
        if self.record.handed_over_to is not None:
            raise UsageError(f"run {self.record.run_id}: its machine was handed over to {self.record.handed_over_to}")
        if state is not None or self.record.machine is None:
            raise UsageError(f"run {self.record.run_id}: {_WHY_NO_MACHINE[state or 'renting']}")
        return Rental(self.folder, self.record.run_id, self.record.machine, self.record.others)

    def node(self, number: int) -> Rental:
        """One machine of the run. `UsageError` where there is none of that number."""
        nodes = self.rental().nodes
        if number >= len(nodes):
            raise UsageError(f"--node {number}: run {self.record.run_id} has machines 0 to {len(nodes) - 1}")
        return nodes[number]


_WHY_NO_MACHINE = {
    "given back": "its machine was given back; what it brought home lies in its folder",
    "renting": "its machine was not rented (yet); `orchestrator down RUN` gives back what there is",
}


_GIVE_BACK = "`orchestrator attach` brings it home and gives back key pair and security group, which cost nothing"


def stands(run_name: str, *, output: Path, say: Say) -> Standing:
    """How a run stands. Looks, and changes nothing but, where the caller has moved, whom the machine admits."""
    site = _site(run_name, output)
    state = _without_machine(site)
    machine = site.record.machine
    if state is not None or machine is None:
        return Standing(site.record.run_id, state or "renting")
    rental = site.rental()
    try:
        for node in rental.nodes:
            refuse_if_ended(site.world.reader, node.machine)
        with _line(site, rental, say) as session:
            look = look_at(session, rental.root)
        others = tuple(_other(site, node) for node in rental.nodes[1:])
    except InstanceDied as error:
        return _stands_in_bucket(site, rental) or _standing(
            site, rental, "machine gone", note=f"{error}; `orchestrator down` closes the books"
        )
    except (HostUnreachable, TimedOut) as error:
        return _standing(site, rental, "out of reach", note=str(error))
    if machine.kept_until is not None and not look.going_on:
        return _standing(site, rental, "kept", note=f"`launch-and-train --on {rental.run_id}` uses it again", look=look)
    return replace(_standing(site, rental, look.state, look=look), others=others)


def listen(run_name: str, *, output: Path, to: BinaryIO, on: bool, node: int, say: Say) -> None:
    """Write the log of one machine's trainer to `to`; with `on`, until the training ends. Where there is no machine any
    more, the log that came home.
    """
    site = _site(run_name, output)
    if _without_machine(site) is not None:
        path = site.folder / (f"log-{node}.txt" if node else "log.txt")
        if not path.exists():
            raise UsageError(f"run {site.record.run_id}: its machine is gone and no log came home")
        to.write(path.read_bytes())
        return
    rental = site.node(node)
    try:
        refuse_if_ended(site.world.reader, rental.machine)
    except InstanceDied as error:
        to.write(_kept_log(site, rental, error))
        return
    _admit(site, say)
    if on:
        follow(
            site.world.connect,
            rental.host,
            root=rental.root,
            clock=site.world.clock,
            log=to,
            tell=lambda _message, _progress: None,
            offset=0,
        )
        return
    with _line(site, rental, say) as session:
        to.write(session.read(f"{rental.root}/run/log.txt"))


def attach(run_name: str, *, output: Path, stream: TextIO) -> Outcome:
    """Go on with a run as the command that began it would have: follow, fetch, tear down."""
    site = _site(run_name, output)
    rental = site.rental()
    with stoppable(), progress(stream) as tell:
        telling = Telling(site.world.clock, tell)
        _refuse_if_not_started(site, rental, lambda remark: telling.say(Stage.CONNECT, remark))
        outcome = go_on(rental, site.world, ledger=site.ledger, telling=telling)
    close_books(site.folder, outcome)
    return outcome


def bring(run_name: str, *, output: Path, partial: bool, stream: TextIO) -> tuple[Artifact, ...]:
    """Bring the results home and keep the machine. `UsageError` while the training goes on, unless `partial`;
    `TrainingFailed` if it has failed, once what there is was brought home.
    """
    site = _site(run_name, output)
    rental = _kept_rental(site) or site.rental()
    with progress(stream) as tell:
        telling = Telling(site.world.clock, tell)
        try:
            refuse_if_ended(site.world.reader, rental.machine)
        except InstanceDied as error:
            return _bring_from_bucket(site, rental, error, partial=partial, telling=telling)
        with telling.stage(Stage.FETCH, "bringing the results home") as say, _line(site, rental, say) as session:
            look = look_at(session, rental.root)
            if not look.started or (look.going_on and not partial):
                raise UsageError(
                    f"run {rental.run_id} is {look.state}: its results are not there yet; `orchestrator attach` waits "
                    "for them, `orchestrator fetch --partial` brings what there is"
                )
            root = snapshot(session, rental.root, ARTIFACTS) if look.going_on else rental.root
            whole = look.exit_status == 0
            artifacts = fetch(session, root, ARTIFACTS, into=rental.folder, tell=say, partial=not whole)
    if not whole and not look.going_on:
        raise TrainingFailed(f"the trainer failed (status {look.exit_status}); what it left was brought home")
    return artifacts


def _kept_rental(site: _Site) -> Rental | None:
    """The machine that was given back, of a run that lies in a bucket."""
    machine = site.record.machine
    if machine is None or machine.kept_in is None or _without_machine(site) != "given back":
        return None
    return Rental(site.folder, site.record.run_id, machine)


def _bring_from_bucket(
    site: _Site, rental: Rental, error: InstanceDied, *, partial: bool, telling: Telling
) -> tuple[Artifact, ...]:
    """What a machine that is gone has put into a bucket."""
    storage, kept_in = site.world.storage, rental.machine.kept_in
    if kept_in is None:
        raise error
    kept = kept_run(storage, kept_in)
    if kept is None and not partial:
        raise InstanceDied(f"{error}; `orchestrator fetch --partial` brings what it had put into {kept_in.url}")
    with telling.stage(Stage.FETCH, f"bringing the results home from {kept_in.url}") as say:
        if kept is None:
            return bring_what_there_is(storage, kept_in, FETCHED, into=rental.folder, tell=say)
        artifacts = bring_kept(storage, kept_in, kept, FETCHED, into=rental.folder, tell=say)
        if _without_machine(site) is None:
            say(f"the machine has ended itself; {_GIVE_BACK}")
    if kept.exit_status != 0:
        raise TrainingFailed(f"the trainer failed (status {kept.exit_status}); what it left was brought home")
    return artifacts


def ssh_command(run_name: str, *, output: Path, node: int, say: Say) -> tuple[str, ...]:
    """ssh(1) to a machine of the run, by the run's key, admitting no other host key, heeding nobody's settings."""
    site = _site(run_name, output)
    rental = site.node(node)
    refuse_if_ended(site.world.reader, rental.machine)
    _admit(site, say)
    address, port = door_of(rental.host, site.record.endpoint)
    options = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _quoted(rental.folder / KNOWN_HOSTS),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlgorithms": "ssh-ed25519",
        "HostKeyAlias": rental.host.address,
    }
    if proxy := tunnel_of(rental.host, site.record.region, site.record.endpoint):
        options["ProxyCommand"] = proxy
    flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    key = str(rental.host.private_path.resolve())
    return ("ssh", "-F", "/dev/null", "-i", key, *flags, "-p", str(port), f"{rental.host.user}@{address}")


def ssh_text(command: tuple[str, ...]) -> str:
    """The command as a shell takes it."""
    return shlex.join(command)


def _site(run_name: str, output: Path) -> _Site:
    folder, record = find_run(run_name, output=output)
    return _Site(folder, record, world_at(record.region, record.endpoint))


def _without_machine(site: _Site) -> str | None:
    """Why there is no machine to be asked: `given back`, `handed over` or `renting`; `None` where there is one."""
    if site.record.handed_over_to is not None:
        return "handed over"
    entries = read_ledger(site.folder / LEDGER_FILE)
    if any(entry.kind is Kind.INSTANCE for entry in open_entries(entries)):
        return None if site.record.machine is not None else "renting"
    return "given back" if site.record.outcome is not None or entries else "renting"


def _stands_in_bucket(site: _Site, rental: Rental) -> Standing | None:
    """How a run stands whose machine has ended: `None` where it has put nothing into a bucket."""
    kept_in = rental.machine.kept_in
    if kept_in is None:
        return None
    kept = kept_run(site.world.storage, kept_in)
    if kept is None:
        note = f"it ended before all was in {kept_in.url}; `orchestrator attach` brings home what is there"
        return _standing(site, rental, "machine gone", note=note)
    note = f"all of it is in {kept_in.url} and its machine has ended itself; {_GIVE_BACK}"
    standing = _standing(site, rental, "done" if kept.exit_status == 0 else "failed", note=note, until=kept.ended_at)
    return replace(standing, exit_status=kept.exit_status, minutes_to_timer=None)


def _kept_log(site: _Site, rental: Rental, error: InstanceDied) -> bytes:
    kept_in = rental.machine.kept_in
    log = site.world.storage.read(kept_in.bucket, kept_in.key("log.txt")) if kept_in else None
    if log is None:
        raise error
    return log


def _admit(site: _Site, say: Say) -> None:
    entries = read_ledger(site.folder / LEDGER_FILE)
    # Whether it may be opened is for the machine to show: it may be open already.
    try:
        admit_caller(entries, reader=site.world.reader, writer=site.world.writer, ledger=site.ledger, tell=say)
    except RunFailed as error:
        say(f"{error}; trying the machine all the same")


@contextmanager
def _line(site: _Site, rental: Rental, say: Say) -> Generator[Session]:
    """A line to the machine, dialled once."""
    _admit(site, say)
    with contextlib.closing(site.world.connect(rental.host)) as session:
        yield session


def _refuse_if_not_started(site: _Site, rental: Rental, say: Say) -> None:
    """Nothing is torn down for a training that never began: somebody may be about to begin it."""
    try:
        # One that has ended is not dialled: its address may be somebody else's by now.
        refuse_if_ended(site.world.reader, rental.machine)
        with _line(site, rental, say) as session:
            look = look_at(session, rental.root)
    except (HostUnreachable, InstanceDied, TimedOut):
        return
    if not look.started:
        raise UsageError(
            f"run {rental.run_id}: its training was not started; if nobody is at it any more, "
            f"`orchestrator down {rental.folder}` gives its machine back"
        )


def _other(site: _Site, node: Rental) -> str:
    try:
        with contextlib.closing(site.world.connect(node.host)) as session:
            state = look_at(session, node.root).state
    except (HostUnreachable, TimedOut) as error:
        state = f"out of reach ({error})"
    return f"{_machine_text(node.machine)}: {state}"


def _machine_text(machine: MachineRecord) -> str:
    return f"{machine.instance_id} {machine.instance_type} in {machine.zone} at {machine.address}"


def _standing(
    site: _Site,
    rental: Rental,
    state: str,
    *,
    note: str = "",
    look: Look | None = None,
    until: datetime | None = None,
) -> Standing:
    """`until`: when the machine ended itself."""
    machine, now = rental.machine, site.world.clock.now()
    moment = until or (min(now, machine.timer_at) if state == "machine gone" else now)
    spent = rental.meter.until(moment)
    return Standing(
        run_id=rental.run_id,
        state=state,
        note=note,
        machine=_machine_text(machine),
        progress=progress_of(look.status) if look else None,
        exit_status=look.exit_status if look else None,
        hours=spent.hours,
        usd=spent.usd,
        usd_at_most=rental.meter.at_most().usd,
        minutes_to_timer=(machine.timer_at - now).total_seconds() / 60,
    )


def _quoted(path: Path) -> str:
    """ssh(1) splits the value at spaces."""
    return f'"{path.resolve()}"'
