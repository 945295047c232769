"""What the verbs do with a run whose machine lives, from any shell that has its folder: look, listen, go on, bring
home, log in. A run that was left alone and one whose client died are the same to them.
"""

import contextlib
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from orchestrator.admission import admit_caller
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
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.ports import Session
from orchestrator.record import KNOWN_HOSTS, LEDGER_FILE, Rental, RunRecord, find_run, remember_outcome
from orchestrator.remote import Look, follow, look_at, progress_of, snapshot
from orchestrator.report.outcome import outcome_json
from orchestrator.report.progress import progress
from orchestrator.resources import Kind
from orchestrator.run import ARTIFACTS, World, go_on, refuse_if_ended
from orchestrator.stopping import stoppable
from orchestrator.telling import Telling
from orchestrator.worlds import door_of, world_at

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
        return Rental(self.folder, self.record.run_id, self.record.machine)


_WHY_NO_MACHINE = {
    "given back": "its machine was given back; what it brought home lies in its folder",
    "renting": "its machine was not rented (yet); `orchestrator down RUN` gives back what there is",
}


def stands(run_name: str, *, output: Path, say: Say) -> Standing:
    """How a run stands. Looks, and changes nothing but, where the caller has moved, whom the machine admits."""
    site = _site(run_name, output)
    state = _without_machine(site)
    machine = site.record.machine
    if state is not None or machine is None:
        return Standing(site.record.run_id, state or "renting")
    rental = Rental(site.folder, site.record.run_id, machine)
    try:
        refuse_if_ended(site.world, rental)
        with _line(site, rental, say) as session:
            look = look_at(session, rental.root)
    except InstanceDied as error:
        return _standing(site, rental, "machine gone", note=f"{error}; `orchestrator down` closes the books")
    except (HostUnreachable, TimedOut) as error:
        return _standing(site, rental, "out of reach", note=str(error))
    if machine.kept_until is not None and not look.going_on:
        return _standing(site, rental, "kept", note=f"`launch-and-train --on {rental.run_id}` uses it again", look=look)
    return _standing(site, rental, look.state, look=look)


def listen(run_name: str, *, output: Path, to: BinaryIO, on: bool, say: Say) -> None:
    """Write the trainer's log to `to`; with `on`, until the training ends. Where there is no machine any more, the log
    that came home.
    """
    site = _site(run_name, output)
    if _without_machine(site) is not None:
        path = site.folder / "log.txt"
        if not path.exists():
            raise UsageError(f"run {site.record.run_id}: its machine is gone and no log came home")
        to.write(path.read_bytes())
        return
    rental = site.rental()
    refuse_if_ended(site.world, rental)
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
    remember_outcome(site.folder, outcome_json(outcome))
    return outcome


def bring(run_name: str, *, output: Path, partial: bool, stream: TextIO) -> tuple[Artifact, ...]:
    """Bring the results home and keep the machine. `UsageError` while the training goes on, unless `partial`;
    `TrainingFailed` if it has failed, once what there is was brought home.
    """
    site = _site(run_name, output)
    rental = site.rental()
    refuse_if_ended(site.world, rental)
    with progress(stream) as tell:
        telling = Telling(site.world.clock, tell)
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


def ssh_command(run_name: str, *, output: Path, say: Say) -> tuple[str, ...]:
    """ssh(1) to the run's machine, by the run's key, admitting no other host key, heeding nobody's settings."""
    site = _site(run_name, output)
    rental = site.rental()
    refuse_if_ended(site.world, rental)
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


def _admit(site: _Site, say: Say) -> None:
    entries = read_ledger(site.folder / LEDGER_FILE)
    # Whether it may be opened is for the machine to show: it may be open already.
    try:
        admit_caller(site.record.run_id, entries, reader=site.world.reader, writer=site.world.writer, tell=say)
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
        with _line(site, rental, say) as session:
            look = look_at(session, rental.root)
    except (HostUnreachable, TimedOut):
        return
    if not look.started:
        raise UsageError(
            f"run {rental.run_id}: its training was not started; if nobody is at it any more, "
            f"`orchestrator down {rental.folder}` gives its machine back"
        )


def _standing(site: _Site, rental: Rental, state: str, *, note: str = "", look: Look | None = None) -> Standing:
    machine, now = rental.machine, site.world.clock.now()
    moment = min(now, machine.timer_at) if state == "machine gone" else now
    spent = rental.meter.until(moment)
    return Standing(
        run_id=rental.run_id,
        state=state,
        note=note,
        machine=f"{machine.instance_id} {machine.instance_type} in {machine.zone} at {machine.address}",
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
