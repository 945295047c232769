"""Who may reach the machine: the caller's address, also after it has changed."""

from collections.abc import Callable, Sequence

from orchestrator.creating import run_tags
from orchestrator.errors import CloudRefused, CloudUnavailable
from orchestrator.ledger import LedgerEntry, open_entries
from orchestrator.ports import CloudReader, CloudWriter
from orchestrator.resources import Kind


def admit_caller(
    run_id: str,
    entries: Sequence[LedgerEntry],
    *,
    reader: CloudReader,
    writer: CloudWriter,
    tell: Callable[[str], None],
) -> None:
    """Open the run's group to the present address too, if the caller has moved since the launch. Where the user
    named a network of their own, nothing is opened.
    """
    group = next((entry for entry in open_entries(tuple(entries)) if entry.kind is Kind.SECURITY_GROUP), None)
    opened = group.detail.get("ingress_cidr", "") if group else ""
    if group is None or group.resource_id is None or not opened.endswith("/32"):
        return
    try:
        now = f"{reader.caller_address()}/32"
    except (CloudRefused, CloudUnavailable) as error:
        tell(f"{error}; trying the machine all the same")
        return
    if now != opened:
        writer.allow_ssh(group.resource_id, cidr=now, tags=run_tags(run_id))
        tell(f"{group.resource_id} was open to {opened}, now to {now} too")
