"""The survey: asks a `CloudReader` for the facts that a plan needs, and refuses early and kindly what
could not work. It is handed nothing that can write.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence

from orchestrator.errors import UsageError
from orchestrator.imaging import find_image
from orchestrator.offering import offering, types_of
from orchestrator.plan import Facts, Placement
from orchestrator.ports import Clock, CloudReader
from orchestrator.resources import Account, InstanceType, Kind, Network
from orchestrator.room import room_for
from orchestrator.spec import RunSpec

_BILLED = tuple(kind for kind in Kind if kind not in {Kind.NETWORK_INTERFACE, Kind.PLACEMENT_GROUP})
"""Kinds of leftovers to look for; an interface goes with its instance, and a placement group costs nothing."""

OnTypes = Callable[[Sequence[InstanceType]], None]
"""Told of the instance types as soon as they are known, long before the survey ends."""


def survey(reader: CloudReader, spec: RunSpec, clock: Clock, *, on_types: OnTypes = lambda _: None) -> Facts:
    """Look at everything a run of `spec` depends on; change nothing. `UsageError` names what the user can
    mend; `PriceUnknown` and `QuotaExceeded` stop what must not or may not be rented.
    """
    account = _account(reader, spec)
    image = find_image(reader, spec)
    types = types_of(reader, spec, image)
    on_types(types)
    network = find_network(reader)
    found = offering(reader, spec, types, subnets=_subnets_by_zone(network))
    room = room_for(reader, found.offers, types, nodes=spec.nodes)
    return Facts(
        account=account,
        image=image,
        instance_types=types,
        offers=room.offers,
        left_out=room.left_out,
        placement=Placement(network.vpc_id, _subnets_by_zone(network)),
        ingress_cidr=ingress_of(reader, spec),
        price_notes=found.notes,
        quota_notes=room.notes,
        leftovers=reader.tagged(kinds=_BILLED),
        observed_at=clock.now(),
    )


def _account(reader: CloudReader, spec: RunSpec) -> Account:
    account = reader.account()
    if spec.account_id is not None and account.account_id != spec.account_id:
        raise UsageError(
            f"account_id = {spec.account_id}: these credentials belong to account {account.account_id} "
            f"({account.arn}); log in to the other, or change account_id"
        )
    return account


def find_network(reader: CloudReader) -> Network:
    """The default VPC. `UsageError` with the remedy where there is none."""
    network = reader.default_network()
    if network is None:
        raise UsageError(
            f"{reader.region} has no default VPC with subnets in this account; create one with "
            f"`aws ec2 create-default-vpc --region {reader.region}`, or choose another region"
        )
    return network


def _subnets_by_zone(network: Network) -> Mapping[str, str]:
    return {subnet.zone: subnet.subnet_id for subnet in network.subnets if subnet.free_addresses > 0}


def ingress_of(reader: CloudReader, spec: RunSpec) -> str:
    """Who is to reach port 22: what `spec` says, or the caller's address; empty with Session Manager: nobody."""
    if spec.ssm:
        return ""
    if spec.ingress_cidr is None:
        return f"{reader.caller_address()}/32"
    try:
        network = ipaddress.IPv4Network(spec.ingress_cidr)
    except ValueError as error:
        raise UsageError(f"ingress_cidr = {spec.ingress_cidr!r}: not an IPv4 network: {error}") from error
    if network.prefixlen == 0:
        raise UsageError(f"ingress_cidr = {spec.ingress_cidr!r}: that is everybody; give your own address, /32")
    return str(network)
