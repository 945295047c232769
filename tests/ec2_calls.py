"""Questions to a mocked EC2."""

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from orchestrator.dryrun.cloud import MockedCloud


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


def instance_count(cloud: MockedCloud) -> int:
    return sum(thing["kind"] == "instance" for thing in cloud.state())
