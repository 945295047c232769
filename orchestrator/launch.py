"""Launching: security group, key pair, instances; the next offer where AWS has none left. Every creation is
in the ledger before the call, its id after it, so that an interruption at any line leaves nothing
that teardown cannot find.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

from orchestrator.cluster import admit_members, make_cluster, see_ended
from orchestrator.creating import Site, create, existing_one
from orchestrator.errors import (
    CloudUnavailable,
    InstanceDied,
    NoCapacity,
    NotYetVisible,
    QuotaExceeded,
    RunFailed,
)
from orchestrator.keys import make_host_key, make_login_key
from orchestrator.ledger import Ledger, open_entries, read_ledger
from orchestrator.plan import Plan
from orchestrator.ports import Clock, CloudReader, CloudWriter
from orchestrator.record import FIRST, KEY_FILE, LEDGER_FILE, MachineRecord, Turn
from orchestrator.resources import (
    HostKeyPair,
    Instance,
    KeyPair,
    Kind,
    LaunchRequest,
    Offer,
    SecurityGroup,
    Way,
)
from orchestrator.user_data import fill_in
from orchestrator.wait import wait_until

_GROUP_VISIBLE_SECONDS = 60.0
_VISIBLE_SECONDS = 120.0
"""EC2 may not know a new instance for so long."""
_RUNNING_SECONDS = 600.0
_ROUND_PAUSES_SECONDS = (15.0, 30.0, 60.0, 120.0, 300.0)
"""Between rounds of the offers while AWS has none of them; the last one again and again."""
_POLL_SECONDS = 1.0
_LOST_CAPACITY = ("InsufficientInstanceCapacity", "SpotInstanceTermination", "SpotInstanceShutdown")


@dataclass(frozen=True, slots=True)
class Launched:
    """Running instances and what is needed to dial them."""

    instances: tuple[Instance, ...]
    offer: Offer
    key_pair: KeyPair
    host_key: HostKeyPair
    group: SecurityGroup

    @property
    def instance(self) -> Instance:
        """The first, or only one."""
        return self.instances[0]


@dataclass(frozen=True, slots=True)
class _Order:
    """What every request of a round has in common."""

    site: Site
    group: SecurityGroup
    key_pair: KeyPair
    placement_group: str | None
    user_data: str
    number: int
    turn: int

    def of(self, offer: Offer) -> LaunchRequest:
        """The request of an offer."""
        return LaunchRequest(
            client_token=_token(self.site.plan, offer, self.turn, self.number),
            image=self.site.plan.image,
            instance_type=offer.instance_type,
            market=offer.market,
            subnet_id=offer.subnet_id,
            group_id=self.group.group_id,
            key_name=self.key_pair.name,
            volume_gib=self.site.plan.volume_gib,
            user_data=self.user_data,
            tags=self.site.tags,
            instance_profile=self.site.plan.spec.instance_profile,
            count=self.site.plan.spec.nodes,
            placement_group=self.placement_group,
            efa=offer.efa and self.placement_group is not None,
        )


def launch(
    plan: Plan,
    *,
    reader: CloudReader,
    writer: CloudWriter,
    ledger: Ledger,
    clock: Clock,
    folder: Path,
    first_boot: str,
    tell: Callable[[str], None],
    turn: Turn = FIRST,
) -> Launched:
    """Rent the first offer that AWS has; returns when all its instances run and have public addresses. Key pair and
    security group are made for the first machine of a run and serve every later one.

    `first_boot` is the text of `infra/first-boot.yaml`, filled in here. Raises `NoCapacity` if no offer
    is to be had, `InstanceDied` with EC2's reason if an instance ends by itself. What was created
    until then stands in `ledger`, and is not given back here.
    """
    site = Site(plan, reader, writer, ledger, clock, tell)
    host_key = make_host_key()
    user_data = fill_in(first_boot, host_key, max_hours=float(plan.spec.max_hours))
    group, key_pair = (_group(site), _key_pair(site, folder)) if turn.number == 1 else _kept(site, folder)
    tell(f"{group.group_id} open to {group.ingress_cidr or 'nobody'}, key pair {key_pair.name}")
    cluster = make_cluster(site) if plan.spec.nodes > 1 else None
    instances, offer = _instances(site, _Order(site, group, key_pair, cluster, user_data, 0, turn.number))
    for instance in instances:
        tell(f"{instance.instance_id} runs in {instance.zone} at {instance.public_ip}")
    return Launched(instances, offer, key_pair, host_key, group)


def records_of(launched: Launched, plan: Plan, *, now: datetime, turn: Turn = FIRST) -> tuple[MachineRecord, ...]:
    """The launched machines as the run's record keeps them."""
    return tuple(_record_of(instance, launched, plan, now=now, turn=turn) for instance in launched.instances)


def _record_of(instance: Instance, launched: Launched, plan: Plan, *, now: datetime, turn: Turn) -> MachineRecord:
    offer = launched.offer
    if instance.public_ip is None:
        raise InstanceDied(f"{instance.instance_id} has no public address")
    launched_at = instance.launched_at or now
    return MachineRecord(
        instance_id=instance.instance_id,
        instance_type=offer.instance_type,
        zone=instance.zone,
        address=instance.instance_id if plan.spec.ssm else instance.public_ip,
        private_address=instance.private_ip,
        user=plan.image.ssh_user,
        host_key=launched.host_key.public_openssh,
        usd_per_hour=offer.usd_per_hour,
        volume_gib=plan.volume_gib,
        launched_at=launched_at,
        ends_at=launched_at + timedelta(hours=float(plan.spec.max_hours)),
        max_usd=plan.spec.max_usd,
        market=offer.market,
        checkpoint_seconds=plan.spec.checkpoint_seconds,
        number=turn.number,
        hours_before=turn.before.hours,
        usd_before=turn.before.usd,
        keep_alive_minutes=plan.spec.keep_alive_minutes,
        kept_in=plan.kept_in,
    )


def _group(site: Site) -> SecurityGroup:
    plan, tags = site.plan, site.tags
    entry = site.ledger.intend(
        Kind.SECURITY_GROUP,
        name=site.name,
        account_id=plan.account.account_id,
        vpc_id=plan.placement.vpc_id,
        ingress_cidr=plan.ingress_cidr,
        ingress_named="no" if plan.spec.ingress_cidr is None else "yes",
    )
    group_id = create(
        site,
        entry,
        lambda: site.writer.create_security_group(site.name, vpc_id=plan.placement.vpc_id, tags=tags),
        existing=lambda: existing_one(site, Kind.SECURITY_GROUP),
    )
    site.ledger.created(entry, group_id)

    def opened() -> SecurityGroup | None:
        try:
            if plan.ingress_cidr:
                site.writer.allow_ssh(group_id, cidr=plan.ingress_cidr, tags=tags)
            if plan.spec.nodes > 1:
                admit_members(site, group_id)
        except NotYetVisible:
            return None
        return SecurityGroup(group_id, site.name, plan.ingress_cidr)

    return wait_until(
        opened,
        clock=site.clock,
        limit_seconds=_GROUP_VISIBLE_SECONDS,
        every_seconds=_POLL_SECONDS,
        what=f"EC2 to know {group_id}",
    )


def _key_pair(site: Site, folder: Path) -> KeyPair:
    made = make_login_key(folder / KEY_FILE, site.name)
    entry = site.ledger.intend(
        Kind.KEY_PAIR, name=made.name, account_id=site.plan.account.account_id, fingerprint=made.fingerprint
    )
    fingerprint = create(
        site,
        entry,
        lambda: site.writer.import_key_pair(made.name, public_openssh=made.public_openssh, tags=site.tags),
        existing=lambda: made.fingerprint if existing_one(site, Kind.KEY_PAIR) else None,
    )
    site.ledger.created(entry, made.name)
    return replace(made, fingerprint=fingerprint)


def _kept(site: Site, folder: Path) -> tuple[SecurityGroup, KeyPair]:
    """What the run's first machine was given."""
    held = {entry.kind: entry for entry in open_entries(read_ledger(folder / LEDGER_FILE))}
    try:
        group, pair = held[Kind.SECURITY_GROUP], held[Kind.KEY_PAIR]
    except KeyError as error:
        raise RunFailed(f"the run's {error.args[0]} is gone: start the run again") from error
    cidr = group.detail.get("ingress_cidr", site.plan.ingress_cidr)
    fingerprint = pair.detail.get("fingerprint", "")
    return (
        SecurityGroup(group.resource_id or "", group.name, cidr),
        KeyPair(pair.name, fingerprint, "", folder / KEY_FILE),
    )


def _instances(site: Site, order: _Order) -> tuple[tuple[Instance, ...], Offer]:
    """Go round the offers until one is to be had, once or for as long as the spec waits for capacity."""
    spec = site.plan.spec
    deadline = site.clock.now() + timedelta(minutes=float(spec.wait_capacity_minutes))
    refused: dict[Way, str] = {}
    for number, pause in enumerate(chain(_ROUND_PAUSES_SECONDS, repeat(_ROUND_PAUSES_SECONDS[-1]))):
        found = _round(site, replace(order, number=number), refused)
        if found is not None:
            return found
        left = (deadline - site.clock.now()).total_seconds()
        if left <= 0:
            break
        wait = min(pause, left)
        site.tell(f"AWS has none of the offers; asking again in {wait:.0f} s, for {left / 60:.0f} min more")
        site.clock.sleep(wait)
    tried = ", ".join(offer.text for offer in site.plan.offers if offer.way not in refused)
    waited = f" after {spec.wait_capacity_minutes.normalize():f} min" if spec.wait_capacity_minutes else ""
    raise NoCapacity(
        f"AWS has none of the offers{waited or ' now'}: {tried}; try again later, wait longer (--wait-capacity), "
        "or allow more instance types, zones of another region or the other market"
    )


def _round(site: Site, order: _Order, refused: dict[Way, str]) -> tuple[tuple[Instance, ...], Offer] | None:
    """Try each offer once; `None` if AWS has none of them. What a quota refuses is written into `refused`, and its like
    not tried again; `QuotaExceeded` if nothing else is left.
    """
    for offer in site.plan.offers:
        if offer.way in refused:
            continue
        try:
            return _all_running(site, _started(site, offer, order.of(offer))), offer
        except NoCapacity as error:
            site.tell(f"no {offer.text}: {error}")
        except QuotaExceeded as error:
            refused |= _alike(site, offer, str(error))
            if all(other.way in refused for other in site.plan.offers):
                raise QuotaExceeded(refused[offer.way]) from error
            site.tell(f"no {offer.text}: {refused[offer.way]}")
    return None


def _alike(site: Site, offer: Offer, error: str) -> dict[Way, str]:
    """The ways that share the quota of the offer that was refused, and what to tell."""
    ways = tuple(dict.fromkeys(other.way for other in site.plan.offers))
    try:
        quotas = site.reader.quotas(ways)
    except RunFailed:
        quotas = {}
    quota = quotas.get(offer.way)
    code = f"quota {quota.code} ({quota.name})" if quota else f"the vCPU quota of {offer.instance_type}"
    told = f"{error}; ask AWS for more of {code} in {site.plan.spec.region}"
    return {offer.way: told} | {way: told for way, other in quotas.items() if quota and other.code == quota.code}


def _started(site: Site, offer: Offer, request: LaunchRequest) -> tuple[Instance, ...]:
    entries = tuple(
        site.ledger.intend(
            Kind.INSTANCE,
            name=site.name,
            token=request.client_token,
            node=node,
            account_id=site.plan.account.account_id,
            instance_type=offer.instance_type,
            zone=offer.zone,
            market=offer.market.value,
            image_id=request.image.image_id,
            usd_per_hour=str(offer.usd_per_hour),
            volume_gib=str(request.volume_gib),
            max_hours=str(site.plan.spec.max_hours),
            instance_profile=site.plan.spec.instance_profile or "",
        )
        for node in range(request.count)
    )
    first, *others = entries
    instances = create(site, first, lambda: site.writer.run_instances(request), existing=lambda: None, others=others)
    for entry, instance in zip(entries, instances, strict=True):
        site.ledger.created(entry, instance.instance_id)
    site.tell(f"{', '.join(instance.instance_id for instance in instances)}: {offer.text}")
    return instances


def _all_running(site: Site, started: tuple[Instance, ...]) -> tuple[Instance, ...]:
    """The instances once all of them run. Where capacity was lost for one, the others are ended with it, since the
    next offer may be in another zone, and would not find room in their placement group.
    """
    try:
        return tuple(_running(site, instance) for instance in started)
    except NoCapacity:
        if len(started) > 1:
            see_ended(site, started)
        raise


def _running(site: Site, started: Instance) -> Instance:
    """The instance once it runs and has a public address."""
    known_by = site.clock.now() + timedelta(seconds=_VISIBLE_SECONDS)

    def arrived() -> Instance | None:
        try:
            seen = site.reader.instance(started.instance_id)
        except (NotYetVisible, CloudUnavailable) as error:
            if site.clock.now() > known_by:
                raise InstanceDied(f"{started.instance_id} started and was never seen: {error}") from error
            return None
        if seen.state in {"pending", "running"}:
            return seen if seen.state == "running" and seen.public_ip else None
        raise _death(seen)

    return wait_until(
        arrived,
        clock=site.clock,
        limit_seconds=_RUNNING_SECONDS,
        every_seconds=_POLL_SECONDS,
        what=f"{started.instance_id} to run with a public address",
    )


def _death(seen: Instance) -> RunFailed:
    reason = seen.state_reason or "EC2 gives no reason"
    if any(code in reason for code in _LOST_CAPACITY):
        return NoCapacity(f"{seen.instance_id} ended before it ran: {reason}")
    return InstanceDied(f"{seen.instance_id} in {seen.zone} is {seen.state} before it could be used: {reason}")


def _token(plan: Plan, offer: Offer, turn: int, number: int) -> str:
    """A client token of this run, offer, machine and round only: the token of an instance that ended is spent."""
    told = f"{plan.run_id} {offer.instance_type} {offer.subnet_id} {offer.market} {turn} {number}"
    return hashlib.sha256(told.encode()).hexdigest()
