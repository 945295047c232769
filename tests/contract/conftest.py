"""Every implementation of a port that the suites here are held against."""

from collections.abc import Generator

import pytest
from machines import SSHD, Target, embedded_machine, openssh_server


@pytest.fixture(scope="module", params=["embedded machine", "OpenSSH"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    folder = tmp_path_factory.mktemp("host")
    if request.param == "embedded machine":
        with embedded_machine(folder) as machine:
            yield machine
        return
    if SSHD is None:
        pytest.skip("no sshd is installed here")
    with openssh_server(folder) as machine:
        yield machine
