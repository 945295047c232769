"""`run.json` of a run folder: what was planned, where, on which machines, and how it ended. Written before
anything is rented, so that `orchestrator down` finds region and endpoint whatever happens; the machines are
added once they run, and for as long as they live the keys that open them lie beside it: whoever has the folder can
go on with the run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import UsageError
from orchestrator.money import NOTHING, Bill, Meter
from orchestrator.resources import BucketFolder, Host, Market

FILE_NAME = "run.json"
LEDGER_FILE = "ledger.jsonl"
PLAN_FILE = "plan.txt"
"""The plan as it was shown."""
KEY_FILE = "key.pem"
"""The private login key."""
KNOWN_HOSTS = "known_hosts"
"""The machine's pinned host key, as ssh(1) reads it."""
_SSH_PORT = 22


class MachineRecord(BaseModel):
    """A rented machine: where it is dialled, as whom, which host key it holds, and what it costs."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    instance_type: str
    zone: str
    address: str
    user: str
    host_key: str
    """Public half, in OpenSSH form."""
    usd_per_hour: Decimal
    volume_gib: int
    launched_at: datetime
    ends_at: datetime
    """When its own timer ends it."""
    max_usd: Decimal | None = None
    """What all machines may cost together."""
    market: Market = Market.ON_DEMAND
    checkpoint_seconds: float = 60.0
    """How old a checkpoint at home is at least before the next one comes."""
    number: int = 1
    """Which machine of the run it is; those before it were taken back."""
    hours_before: float = 0.0
    """What those before it cost."""
    usd_before: Decimal = Decimal(0)
    kept_in: BucketFolder | None = None
    """Where it puts what it makes; it then ends itself."""
    private_address: str | None = None
    """Where others of its subnet reach it."""
    keep_alive_minutes: Decimal = Decimal(0)
    """For how long it is kept once the run has ended well."""
    kept_until: datetime | None = None
    """When its idle timer ends it, if it is kept and no run takes it over."""

    @property
    def timer_at(self) -> datetime:
        """When a timer ends it."""
        return self.ends_at if self.kept_until is None else min(self.kept_until, self.ends_at)


class RunRecord(BaseModel):
    """One run, read leniently."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    region: str
    account_id: str
    endpoint: str | None = None
    """Address of the mocked AWS the run rents from; `None` for the real one."""
    plan: Mapping[str, Any] = {}
    machine: MachineRecord | None = None
    others: tuple[MachineRecord, ...] = ()
    """Where several train as one, the second and further."""
    handed_over_to: str | None = None
    """The run that has taken the kept machine over."""
    outcome: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Which machine of its run one is, and what those before it have cost."""

    number: int = 1
    before: Bill = NOTHING


FIRST = Turn()


@dataclass(frozen=True, slots=True)
class Rental:
    """A run whose machine, or machines, are rented, as it stands in its folder."""

    folder: Path
    run_id: str
    machine: MachineRecord
    """The first, which writes what the training makes."""
    others: tuple[MachineRecord, ...] = ()

    @property
    def nodes(self) -> "tuple[Rental, ...]":
        """Each machine as if it were the only one, in the order of their processes."""
        return tuple(Rental(self.folder, self.run_id, machine) for machine in (self.machine, *self.others))

    @property
    def root(self) -> str:
        """The run's folder on the machine, from the login user's home."""
        return f"launch-and-train/{self.run_id}"

    @property
    def host(self) -> Host:
        """The machine as SSH dials it."""
        machine = self.machine
        return Host(machine.address, _SSH_PORT, machine.user, self.folder / KEY_FILE, machine.host_key)

    @property
    def meter(self) -> Meter:
        """What all of them cost, those before them included."""
        machine, count = self.machine, 1 + len(self.others)
        before = Bill(machine.hours_before, machine.usd_before)
        return Meter(machine.usd_per_hour, machine.volume_gib, machine.launched_at, machine.timer_at, count, before)


def remember_machines(folder: Path, machines: Sequence[MachineRecord]) -> Rental:
    """Enter the machines into the record, and their host keys into `known_hosts`, for the owner's eyes only."""
    first, *others = machines
    record = read_record(folder)
    write_record(folder, record.model_copy(update={"machine": first, "others": tuple(others)}))
    path = folder / KNOWN_HOSTS
    path.touch(mode=0o600)
    path.write_text("".join(f"{one.address} {one.host_key}\n" for one in machines), encoding="utf-8")
    return Rental(folder, record.run_id, first, tuple(others))


def remember_outcome(folder: Path, outcome: Mapping[str, Any]) -> None:
    """Enter how the run ended."""
    write_record(folder, read_record(folder).model_copy(update={"outcome": outcome}))


def forget_keys(folder: Path) -> None:
    """Delete what opened a machine that is gone; harmless where there is nothing."""
    for name in (KEY_FILE, KNOWN_HOSTS):
        (folder / name).unlink(missing_ok=True)


def write_record(folder: Path, record: RunRecord) -> None:
    """Write or replace `run.json`, aside and renamed."""
    aside = folder / f".{FILE_NAME}"
    aside.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / FILE_NAME)


def read_record(folder: Path) -> RunRecord:
    """The record of a run folder. Raises `UsageError` if it cannot be read."""
    path = folder / FILE_NAME
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path}: not a run record: {error.errors()[0]['msg']}") from error


def find_run(run: str, *, output: Path) -> tuple[Path, RunRecord]:
    """The folder and record of `run`, a run id below `output` or the path of a run folder."""
    for folder in (output / run, Path(run)):
        if (folder / FILE_NAME).is_file():
            return folder, read_record(folder)
    raise UsageError(f"no run {run!r}: neither {output / run / FILE_NAME} nor {Path(run) / FILE_NAME} exists")
