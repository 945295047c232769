"""What was launched, beside moto's own books: when each instance changes state, which machine stands
for it, and which client token made it. Time passes in `advance`; moto's objects are made to agree.
"""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from orchestrator.dryrun.catalog import IMAGES, ShelfQuota, image_id
from orchestrator.dryrun.first_boot import FirstBoot, read_user_data
from orchestrator.dryrun.fleet import Fleet
from orchestrator.dryrun.hardware import MACHINES
from orchestrator.dryrun.images import MockedImage
from orchestrator.dryrun.machine import Machine, MachineOrder
from orchestrator.dryrun.placement import Placements
from orchestrator.dryrun.scenario import Interruption, Scenario
from orchestrator.dryrun.storage import machine_settings
from orchestrator.dryrun.wire import Answer

PENDING, RUNNING, ENDING, TERMINATED, STOPPED = "pending", "running", "shutting-down", "terminated", "stopped"
_CODES = {PENDING: 0, RUNNING: 16, ENDING: 32, TERMINATED: 48, STOPPED: 80}
CALLER_ADDRESS = "192.31.196.7"
"""What the mock says the caller's public address is until a scenario moves them: global in form, and nobody's."""
_SELF_ENDED = "Client.InstanceInitiatedShutdown"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a RunInstances call asks for, as far as it can be told."""

    instance_type: str
    zone: str | None
    spot: bool
    user_data: bytes
    quota: ShelfQuota | None
    vcpus: int
    """Of each instance."""
    count: int
    placement_group: str | None


@dataclass(slots=True)
class Launch:
    """One instance, the `number`th of its request. Times are of the monotonic clock; `instance` is moto's object."""

    region: str
    instance: Any
    group_ids: frozenset[str]
    quota: ShelfQuota | None
    vcpus: int
    placement_group: str | None
    number: int
    first_boot: FirstBoot
    launched_at: float
    has_profile: bool = False
    """Whether the machine has rights of its own."""
    state: str = PENDING
    ended_at: float = 0.0
    ended_by: str = ""
    address: str | None = None
    machine: Machine | None = None
    interruption: Interruption | None = None

    @property
    def trained_seconds(self) -> float | None:
        """For how long it has trained, as far as the scenario asks."""
        since = self.machine.trains_since if self.machine is not None else None
        return None if since is None else time.monotonic() - since

    @property
    def code(self) -> int:
        """EC2's number for the state."""
        return _CODES[self.state]

    @property
    def holding(self) -> bool:
        """Whether it still may be terminated."""
        return self.state not in {ENDING, TERMINATED}

    @property
    def living(self) -> bool:
        """Whether it still takes quota and holds its security groups."""
        return self.state not in {TERMINATED, STOPPED}


@dataclass(frozen=True, slots=True)
class TokenUse:
    """What a client token was used for."""

    digest: str
    answer: Answer
    launches: tuple[Launch, ...]


class Estate:
    """All launches of all regions. Not thread-safe: the cloud holds one lock around it."""

    def __init__(self, folder: Path, fleet: Fleet, scenario: Scenario, *, endpoint: Callable[[], str]) -> None:
        self.play(scenario)
        self.tokens: dict[str, TokenUse] = {}
        self.regions: set[str] = set()
        self.placements = Placements()
        self.port = 0
        """Of the mocked AWS; machines of two that run beside each other must not share an address."""
        self._folder = folder
        self._fleet = fleet
        self._endpoint = endpoint
        self._launches: list[Launch] = []

    def play(self, scenario: Scenario) -> None:
        """Let a scenario begin."""
        self.scenario, self._interruptions = scenario, iter(scenario.interrupt)
        self.caller_address = CALLER_ADDRESS

    def backend(self, region: str) -> Any:
        """Moto's EC2 of a region, with our images on its shelf."""
        backend: Any = ec2_backends[DEFAULT_ACCOUNT_ID][region]
        if region not in self.regions:
            self.regions.add(region)
            backend.amis = {image_id(shelf.key, region): MockedImage(backend, shelf) for shelf in IMAGES}
        return backend

    def have_profile(self, name: str) -> None:
        """An instance profile of this name, as the rehearsed account may have one."""
        backend: Any = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if all(profile.name != name for profile in backend.get_instance_profiles()):
            backend.create_instance_profile(name=name, path="/", role_names=[])

    def launches(self, region: str | None = None) -> tuple[Launch, ...]:
        """Everything launched, in order."""
        return tuple(launch for launch in self._launches if region in {None, launch.region})

    def find(self, instance_id: str) -> Launch | None:
        """The launch of this instance id."""
        return next((launch for launch in self._launches if launch.instance.id == instance_id), None)

    def at(self, address: str) -> Launch | None:
        """The running instance with this public address, or with this id, where Session Manager knows it."""
        found = (
            launch
            for launch in self._launches
            if launch.address == address or (launch.has_profile and launch.instance.id == address)
        )
        return next((launch for launch in found if launch.state == RUNNING), None)

    def admits_caller(self, launch: Launch) -> bool:
        """Whether one of its groups lets the caller in. Asked only of one who has moved: a test need not say where it
        calls from.
        """
        if self.caller_address == CALLER_ADDRESS:
            return True
        caller, backend = ipaddress.ip_address(self.caller_address), self.backend(launch.region)
        rules = (rule for group in launch.group_ids for rule in backend.get_security_group_from_id(group).ingress_rules)
        return any(caller in ipaddress.ip_network(rule.ip_range["CidrIp"]) for rule in rules)

    def visible(self, launch: Launch) -> bool:
        """Whether Describe knows the instance yet."""
        return time.monotonic() - launch.launched_at >= self.scenario.invisible_seconds

    def vcpus_in_use(self, quota: ShelfQuota, region: str) -> int:
        """vCPUs of living instances that the quota covers."""
        living = (launch for launch in self.launches(region) if launch.living)
        return sum(launch.vcpus for launch in living if launch.quota == quota)

    def holders(self, group_id: str) -> tuple[Launch, ...]:
        """Instances not yet terminated that are in a security group."""
        return tuple(launch for launch in self._launches if launch.state != TERMINATED and group_id in launch.group_ids)

    def placed_in(self, name: str, region: str) -> tuple[Launch, ...]:
        """Instances not yet terminated that are in a placement group."""
        here = (launch for launch in self.launches(region) if launch.placement_group == name)
        return tuple(launch for launch in here if launch.state != TERMINATED)

    def add(self, region: str, instance: Any, wanted: Wanted, *, number: int) -> Launch:
        """Enter a new instance, the `number`th of its request: pending, without a public address yet."""
        groups = {group.id for nic in instance.nics.values() for group in nic.group_set}
        groups |= {group.id for group in instance.security_groups}
        launch = Launch(
            region=region,
            instance=instance,
            group_ids=frozenset(groups),
            quota=wanted.quota,
            vcpus=wanted.vcpus,
            placement_group=wanted.placement_group,
            number=number,
            first_boot=read_user_data(wanted.user_data),
            launched_at=time.monotonic(),
        )
        for nic in instance.nics.values():
            nic.stop()
            self._put_on_loopback(nic)
        self._launches.append(launch)
        self._agree(launch)
        return launch

    def advance(self) -> None:
        """Let every launch reach the state that is due by now."""
        now = time.monotonic()
        for launch in self._launches:
            if launch.state == PENDING and now - launch.launched_at >= self.scenario.pending_seconds:
                self._leave_pending(launch)
            if launch.state == RUNNING and launch.machine is not None and launch.machine.off:
                self._powered_off(launch)
            if launch.state == RUNNING and launch.trained_seconds is not None:
                self._trains(launch, launch.trained_seconds)
            if launch.state == ENDING and now - launch.ended_at >= self.scenario.ending_seconds:
                launch.state = TERMINATED
            self._agree(launch)

    def end(self, launch: Launch, *, reason: str) -> None:
        """Begin to terminate an instance; its machine is gone when this returns."""
        if not launch.holding:
            return
        launch.state, launch.ended_at, launch.ended_by = ENDING, time.monotonic(), reason
        launch.address = None
        if launch.machine is not None:
            self._fleet.end(launch.machine)
            launch.machine = None
        self._agree(launch)

    def stop(self, launch: Launch) -> None:
        """Stop an instance; its machine is gone when this returns."""
        launch.state, launch.address = STOPPED, None
        if launch.machine is not None:
            self._fleet.end(launch.machine)
            launch.machine = None

    def _leave_pending(self, launch: Launch) -> None:
        if self.scenario.dies is not None and self.scenario.dies_only in {None, launch.number}:
            launch.instance.terminate()
            self.end(launch, reason=self.scenario.dies)
            launch.state = TERMINATED
            return
        for nic in launch.instance.nics.values():
            nic.start()
        launch.address = launch.instance.public_ip
        launch.machine = self._fleet.boot(self._order(launch))
        launch.state = RUNNING

    def _put_on_loopback(self, nic: Any) -> None:
        """A private address by which the machines of this mock, and nobody else, reach each other: all of 127/8 is this
        computer.
        """
        address = f"127.{self.port >> 8}.{self.port & 255}.{len(self._launches) % 254 + 1}"
        for told in nic.private_ip_addresses:
            if told.get("PrivateIpAddress") == nic.private_ip_address:
                told["PrivateIpAddress"] = address
        nic.private_ip_address = address

    def _trains(self, launch: Launch, seconds: float) -> None:
        move = self.scenario.caller_moves
        if move is not None and seconds >= move.after_seconds and self.caller_address != move.to:
            self.caller_address = move.to
            self._fleet.drop_connections()
        launch.interruption = launch.interruption or next(self._interruptions, None)
        coming = launch.interruption
        if coming is None or seconds < coming.after_seconds or launch.machine is None:
            return
        left = coming.after_seconds + coming.notice_seconds - seconds
        if left > 0:
            launch.machine.announce_end(left)
            return
        launch.instance.terminate()
        self.end(launch, reason=coming.reason)

    def _powered_off(self, launch: Launch) -> None:
        if launch.instance.instance_initiated_shutdown_behavior == "terminate":
            launch.instance.terminate()
            self.end(launch, reason=_SELF_ENDED)
        else:
            launch.instance.stop()
            self.stop(launch)

    def _order(self, launch: Launch) -> MachineOrder:
        pairs = self.backend(launch.region).key_pairs
        pair = pairs.get(launch.instance.key_name)
        return MachineOrder(
            instance_id=launch.instance.id,
            folder=self._folder / MACHINES / launch.instance.id,
            public_key=pair.public_key if pair is not None else "",
            first_boot=launch.first_boot,
            scenario=self.scenario,
            settings=machine_settings(self._endpoint()) if launch.has_profile else {},
        )

    def _agree(self, launch: Launch) -> None:
        state = launch.instance.instance_state
        state.name, state.code = launch.state, launch.code
        if launch.ended_by:
            reason = launch.instance.state_reason
            reason.code, reason.message = launch.ended_by, f"{launch.ended_by}: instance ended"
