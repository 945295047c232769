"""A mocked AWS for a whole test module, and real clients that speak to it."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, suppress
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from machines import Key, make_key

from orchestrator.dryrun.cloud import MockedCloud, running_cloud
from orchestrator.dryrun.dial import loopback_dialler
from orchestrator.dryrun.first_boot import SELF_DESTRUCT_PATH

FAST = {"pending_seconds": 0.02, "ending_seconds": 0.02}
DLAMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
REGION = "us-east-1"


class Aws:
    """boto3 clients of one region that send everything to `endpoint`, and what tests do with them."""

    def __init__(self, endpoint: str, stack: ExitStack) -> None:
        self.endpoint = endpoint
        self.dial = loopback_dialler(endpoint)
        self.login, self.host_key = make_key(), make_key()
        config = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=20)

        def client(service: str) -> Any:
            made = boto3.client(
                service,
                region_name=REGION,
                endpoint_url=endpoint,
                aws_access_key_id="nobody",
                aws_secret_access_key="nothing",
                config=config,
            )
            return stack.enter_context(closing(made))

        self.ec2, self.ssm, self.sts = client("ec2"), client("ssm"), client("sts")
        self.pricing, self.quotas = client("pricing"), client("service-quotas")

    def image(self, parameter: str = DLAMI) -> str:
        return self.ssm.get_parameter(Name=parameter)["Parameter"]["Value"]

    def image_named(self, pattern: str) -> str:
        (found,) = self.ec2.describe_images(Filters=[{"Name": "name", "Values": [pattern]}])["Images"]
        return found["ImageId"]

    def subnet(self, zone: str) -> str:
        (found,) = self.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])["Subnets"]
        return found["SubnetId"]

    def run(self, **asked: Any) -> str:
        """RunInstances of one instance; its id."""
        given = {"InstanceType": "g6.xlarge", "MinCount": 1, "MaxCount": 1, **asked}
        given.setdefault("ImageId", self.image())
        return self.ec2.run_instances(**given)["Instances"][0]["InstanceId"]

    def run_machine(self, *, timer_seconds: float = 600, **asked: Any) -> str:
        """An instance whose machine holds `host_key` and admits `login`; running, with an address."""
        with suppress(ClientError):
            self.ec2.import_key_pair(KeyName="login", PublicKeyMaterial=self.login.public.encode())
        given = {"KeyName": "login", "InstanceInitiatedShutdownBehavior": "terminate", **asked}
        instance_id = self.run(UserData=cloud_config(self.host_key, timer_seconds), **given)
        self.reaches(instance_id, "running")
        return instance_id

    def instance(self, instance_id: str) -> Any:
        answer = self.ec2.describe_instances(InstanceIds=[instance_id])
        return answer["Reservations"][0]["Instances"][0]

    def state(self, instance_id: str) -> str:
        return self.instance(instance_id)["State"]["Name"]

    def reaches(self, instance_id: str, state: str, *, seconds: float = 60) -> None:
        until(lambda: self.state(instance_id) == state, what=f"{instance_id} {state}", seconds=seconds)

    def address(self, instance_id: str) -> str:
        return self.instance(instance_id)["PublicIpAddress"]

    def terminate(self, *instance_ids: str) -> None:
        for instance_id in instance_ids:
            self.ec2.terminate_instances(InstanceIds=[instance_id])
            self.reaches(instance_id, "terminated")


def cloud_config(host_key: Key, timer_seconds: float) -> str:
    document = {
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "write_files": [{"path": SELF_DESTRUCT_PATH, "content": f"{timer_seconds}\n"}],
    }
    return "#cloud-config\n" + yaml.safe_dump(document)


def until(check: Callable[[], bool], *, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def wait() -> Callable[..., None]:
    """`wait(check, what=…, seconds=…)`."""
    return until


@pytest.fixture(scope="module")
def module_cloud() -> Generator[MockedCloud]:
    with running_cloud(FAST) as cloud:
        yield cloud


@pytest.fixture
def cloud(module_cloud: MockedCloud) -> MockedCloud:
    """The module's cloud, with nothing going wrong in it."""
    module_cloud.play(FAST)
    return module_cloud


@pytest.fixture
def play(cloud: MockedCloud) -> Callable[..., None]:
    """`play(quota=…, fail=…)`: another scenario."""
    return lambda **scenario: cloud.play({**FAST, **scenario})


@pytest.fixture(scope="module")
def module_aws(module_cloud: MockedCloud) -> Generator[Aws]:
    with ExitStack() as stack:
        yield Aws(module_cloud.endpoint, stack)


@pytest.fixture
def aws(cloud: MockedCloud, module_aws: Aws) -> Generator[Aws]:
    """Clients of the module's cloud; every instance is terminated after the test."""
    yield module_aws
    cloud.play(FAST)
    module_aws.terminate(*living(cloud))


@pytest.fixture(scope="session")
def aws_at() -> Generator[Callable[[str], Aws]]:
    """Clients of another cloud."""
    with ExitStack() as stack:
        yield lambda endpoint: Aws(endpoint, stack)


def living(cloud: MockedCloud) -> Iterable[str]:
    things = (thing for thing in cloud.state() if thing["kind"] == "instance")
    return tuple(thing["id"] for thing in things if thing["state"] not in {"shutting-down", "terminated"})
