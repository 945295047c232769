"""Creating something at AWS, once and for certain: the entry in the ledger comes before the call, a lost answer is
asked for again, and what exists under the name is taken over only if it carries the run's tag.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from orchestrator.errors import AlreadyExists, CloudRefused, CloudUnavailable, NotYetVisible, RunFailed
from orchestrator.ledger import Ledger, LedgerEntry
from orchestrator.plan import Plan
from orchestrator.ports import Clock, CloudReader, CloudWriter
from orchestrator.resources import MANAGED_BY, Kind

_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between repetitions of a call whose answer was lost, or that came too early."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Site:
    """What every step of a launch touches."""

    plan: Plan
    reader: CloudReader
    writer: CloudWriter
    ledger: Ledger
    clock: Clock
    tell: Callable[[str], None]

    @property
    def name(self) -> str:
        """What groups, key pair and instances of the run are called."""
        return f"{MANAGED_BY}-{self.plan.run_id}"

    @property
    def tags(self) -> Mapping[str, str]:
        """What everything the run creates is tagged with."""
        return {
            **run_tags(self.plan.run_id),
            "owner": self.plan.account.arn,
            "created-at": _moment(self.plan.created_at),
            "expires-at": _moment(self.plan.expires_at),
        }


def create(
    site: Site,
    entry: LedgerEntry,
    call: Callable[[], T],
    *,
    existing: Callable[[], T | None],
    others: Sequence[LedgerEntry] = (),
) -> T:
    """Call until an answer comes. A refusal is written down as such, for `others` that the same call creates too,
    only if no answer was lost before it: a lost one may have created the resource all the same.
    """
    lost = False
    for pause in (*_PAUSES_SECONDS, None):
        try:
            return call()
        except (CloudUnavailable, NotYetVisible) as error:
            lost = lost or isinstance(error, CloudUnavailable)
            if pause is None:
                raise
            site.tell(f"{error}; trying again")
            site.clock.sleep(pause)
        except AlreadyExists as error:
            found = existing()
            if found is None:
                raise _not_ours(entry, error) from error
            return found
        except RunFailed as error:
            for refused in () if lost else (entry, *others):
                site.ledger.failed(refused, str(error))
            raise
    raise AssertionError("the last repetition returns or raises")


def existing_one(site: Site, kind: Kind) -> str | None:
    """Id of the resource of that name, if it carries this run's tag."""
    ours = site.reader.tagged(site.plan.run_id, kinds=[kind])
    return next((found.resource_id for found in ours if found.name == site.name), None)


def run_tags(run_id: str) -> Mapping[str, str]:
    """The tags by which a run's things are found."""
    return {"Name": f"{MANAGED_BY}-{run_id}", "managed-by": MANAGED_BY, "run-id": run_id}


def _not_ours(entry: LedgerEntry, error: AlreadyExists) -> CloudRefused:
    if entry.kind is Kind.INSTANCE:
        return CloudRefused(f"{error}; the instance that has this token is not adopted, but torn down")
    return CloudRefused(f"{error}; the {entry.kind} {entry.name} is not of this run: start the run again")


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
