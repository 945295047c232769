"""What a rental needs in tests: the real boto3 adapter against a mocked AWS, a plan, a ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clocks import FakeClock

from orchestrator.aws.clients import loopback_clients
from orchestrator.aws.cloud import AwsCloud
from orchestrator.aws.storage import AwsStorage
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.events import TeardownReport
from orchestrator.launch import Launched, launch
from orchestrator.ledger import Ledger, read_ledger
from orchestrator.packaged import packaged
from orchestrator.plan import Facts, Plan, make_plan
from orchestrator.ports import CloudReader, CloudWriter
from orchestrator.resources import Manifest
from orchestrator.spec import RunSpec
from orchestrator.survey import survey
from orchestrator.teardown import teardown

REGION = "us-east-1"
QUICK = {"pending_seconds": 0.0, "ending_seconds": 0.0}
"""A scenario in which no state takes time."""


def aws(mock: MockedCloud, region: str = REGION) -> AwsCloud:
    return AwsCloud(loopback_clients(region, mock.endpoint))


def storage(mock: MockedCloud) -> AwsStorage:
    return AwsStorage(loopback_clients(REGION, mock.endpoint))


def run_spec(**changes: Any) -> RunSpec:
    given = {"instance_types": ("g6.xlarge",), "network": Path("network.json"), "data": "ratings.csv"}
    return RunSpec.model_validate(given | changes)


def left_over(mock: MockedCloud, run_id: str) -> set[str]:
    """What of a run still exists, as reports name it."""
    return {
        f"{thing['kind']} {thing['name'] if thing['kind'] == 'key pair' else thing['id']}"
        for thing in mock.state()
        if thing["run_id"] == run_id and thing["state"] != "terminated"
    }


@dataclass(slots=True)
class Rental:
    """One run's launch and teardown, with whatever reader and writer a test puts in between."""

    plan: Plan
    reader: CloudReader
    writer: CloudWriter
    clock: FakeClock
    folder: Path
    said: list[str]

    @property
    def path(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.path, clock=self.clock, run_id=self.plan.run_id, region=REGION)

    def launch(self, first_boot: str | None = None) -> Launched:
        return launch(
            self.plan,
            reader=self.reader,
            writer=self.writer,
            ledger=self.ledger,
            clock=self.clock,
            folder=self.folder,
            first_boot=first_boot or (packaged("infra") / "first-boot.yaml").read_text(encoding="utf-8"),
            tell=self.said.append,
        )

    def teardown(self) -> TeardownReport:
        return teardown(
            read_ledger(self.path),
            reader=self.reader,
            writer=self.writer,
            ledger=self.ledger,
            clock=self.clock,
            tell=self.said.append,
        )


@cache
def surveyed(cloud: AwsCloud, wanted: RunSpec) -> Facts:
    """What a survey finds where nothing goes wrong: it is the same for every test of a module's cloud."""
    return survey(cloud, wanted, FakeClock(really=0.002))


def planned(cloud: AwsCloud, run_id: str, **spec: Any) -> Plan:
    wanted = run_spec(**spec)
    return make_plan(wanted, surveyed(cloud, wanted), manifest=Manifest(()), run_id=run_id)


def rental(cloud: AwsCloud, folder: Path, run_id: str, **spec: Any) -> Rental:
    return Rental(planned(cloud, run_id, **spec), cloud, cloud, FakeClock(really=0.002), folder, [])


class Between:
    """Passes every call on to a cloud, after (or before) `meddle` was told of it."""

    def __init__(self, cloud: AwsCloud, meddle: Callable[[str], None], *, after: bool = False) -> None:
        self._cloud = cloud
        self._meddle = meddle
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cloud, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if not self._after:
                self._meddle(name)
            answer = found(*arguments, **named)
            if self._after:
                self._meddle(name)
            return answer

        return call


class Altered:
    """A reader some of whose answers are others."""

    def __init__(self, reader: AwsCloud, **answers: Any) -> None:
        self._reader = reader
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        if name in self._answers:
            return lambda *_, **__: self._answers[name]
        return getattr(self._reader, name)
