"""A mocked AWS in which nothing takes time, one for each module of tests, and the real adapter that speaks to it."""

from collections.abc import Generator

import pytest
from rentals import QUICK, aws

from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.cloud import MockedCloud, running_cloud


@pytest.fixture(scope="module")
def mock() -> Generator[MockedCloud]:
    with running_cloud(QUICK) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def cloud(mock: MockedCloud) -> AwsCloud:
    return aws(mock)
