"""What several machines need that one does not: to reach each other, to stand close together, and to be given up
together.
"""

from collections.abc import Sequence
from contextlib import suppress

from orchestrator.creating import Site, create, existing_one
from orchestrator.errors import AlreadyGone, NotYetVisible
from orchestrator.resources import Instance, Kind
from orchestrator.wait import wait_until

_ENDING_SECONDS = 600.0
_POLL_SECONDS = 2.0


def admit_members(site: Site, group_id: str) -> None:
    """Let whatever is in the run's security group reach each other, past the kernel too where an offer can."""
    efa = any(offer.efa for offer in site.plan.offers)
    site.writer.allow_members(group_id, efa=efa, tags=site.tags)


def make_cluster(site: Site) -> str:
    """The run's placement group; its name."""
    entry = site.ledger.intend(Kind.PLACEMENT_GROUP, name=site.name, account_id=site.plan.account.account_id)

    def made() -> str:
        site.writer.create_placement_group(site.name, tags=site.tags)
        return site.name

    name = create(site, entry, made, existing=lambda: existing_one(site, Kind.PLACEMENT_GROUP))
    site.ledger.created(entry, name)
    site.tell(f"placement group {name}")
    return name


def see_ended(site: Site, instances: Sequence[Instance]) -> None:
    """End all of them, and see them terminated. Their entries in the ledger stay open for teardown to close."""
    names = [instance.instance_id for instance in instances]
    wait_until(
        lambda: True if {_has_ended(site, name) for name in names} == {True} else None,
        clock=site.clock,
        limit_seconds=_ENDING_SECONDS,
        every_seconds=_POLL_SECONDS,
        what=f"{', '.join(names)} to be terminated",
    )


def _has_ended(site: Site, instance_id: str) -> bool:
    """Whether it is terminated; it is asked to be, again and again, since it may be too young to be known."""
    with suppress(NotYetVisible):
        if (state := site.reader.instance(instance_id).state) in {"shutting-down", "terminated"}:
            return state == "terminated"
    with suppress(AlreadyGone):
        site.writer.terminate_instance(instance_id)
    return False
