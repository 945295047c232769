"""User data: `infra/first-boot.yaml` with what one run puts into it."""

import math
from string import Template

from orchestrator.errors import RunFailed
from orchestrator.resources import HostKeyPair

_USER_DATA_LIMIT = 16 * 1024


def fill_in(first_boot: str, host_key: HostKeyPair, *, max_hours: float) -> str:
    """The user data: host key and self-destruct time put into their places, the key indented as its
    place is.
    """
    seconds = math.ceil(max_hours * 3600)
    lines = first_boot.splitlines()
    place = next((line for line in lines if line.strip() == "${host_private_key}"), "")
    indent = place[: len(place) - len(place.lstrip())]
    text = Template(first_boot).substitute(
        host_private_key=f"\n{indent}".join(host_key.private_openssh.splitlines()),
        host_public_key=host_key.public_openssh,
        self_destruct_seconds=seconds,
        self_destruct_minutes=math.ceil(seconds / 60),
    )
    size = len(text.encode())
    if size > _USER_DATA_LIMIT:
        raise RunFailed(f"the first-boot file has {size} bytes; EC2 takes {_USER_DATA_LIMIT}: shorten it")
    return text
