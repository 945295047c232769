"""Who may reach the machine: the caller's address, also after it has changed, and no other."""

from collections.abc import Callable, Sequence

from orchestrator.creating import run_tags
from orchestrator.errors import CloudRefused, CloudUnavailable
from orchestrator.ledger import Ledger, LedgerEntry, open_entries
from orchestrator.ports import CloudReader, CloudWriter
from orchestrator.resources import Kind


def admit_caller(
    entries: Sequence[LedgerEntry],
    *,
    reader: CloudReader,
    writer: CloudWriter,
    ledger: Ledger,
    tell: Callable[[str], None],
) -> None:
    """Open the run's group to the present address, and close it to those before, if the caller has moved since. Where
    the user named the network, nothing is opened or closed. `ledger` is told first what may be open.
    """
    group = next((entry for entry in open_entries(tuple(entries)) if entry.kind is Kind.SECURITY_GROUP), None)
    if group is None or group.resource_id is None or group.detail.get("ingress_named") == "yes":
        return
    opened = group.detail.get("ingress_cidr", "").split()
    if not opened or not all(cidr.endswith("/32") for cidr in opened):
        return
    try:
        now = f"{reader.caller_address()}/32"
    except (CloudRefused, CloudUnavailable) as error:
        tell(f"{error}; trying the machine all the same")
        return
    if opened == [now]:
        return
    former = [cidr for cidr in opened if cidr != now]
    ledger.changed(group, ingress_cidr=" ".join((now, *former)))
    writer.allow_ssh(group.resource_id, cidr=now, tags=run_tags(ledger.run_id))
    for cidr in former:
        writer.revoke_ssh(group.resource_id, cidr=cidr)
    ledger.changed(group, ingress_cidr=now)
    tell(f"{group.resource_id} was open to {', '.join(former)}, now to {now}")
