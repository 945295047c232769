"""Machines without an open port, reached through Session Manager: AWS's plugin carries the bytes between a socket of
ours and the machine's port 22. What is said over it, SSH with a pinned host key, is unknown here.
"""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence

from orchestrator.aws.clients import Clients
from orchestrator.aws.errors import translated

PLUGIN = "session-manager-plugin"
DOCUMENT = "AWS-StartSSHSession"
_ANSWER = "AWS_SSM_START_SESSION_RESPONSE"
"""Where the plugin (1.2.497 or newer) finds what StartSession answered: arguments would be for all to see."""

Dial = Callable[[str, int, float], socket.socket]


def tunnelling(clients: Clients, dial: Dial, *, plugin: Sequence[str] = (PLUGIN,)) -> Dial:
    """A dialler `(address, port, timeout_seconds) -> socket` that reaches instance ids through Session Manager and
    whatever else by `dial`. It raises `OSError` where the plugin cannot be started, our errors where AWS refuses.
    """

    def dialled(address: str, port: int, timeout_seconds: float) -> socket.socket:
        if not address.startswith("i-"):
            return dial(address, port, timeout_seconds)
        return _tunnel(clients, address, port, plugin)

    return dialled


class _Tunnel(socket.socket):
    """Our end of what the plugin reads and writes; the plugin ends when it is closed."""

    def __init__(self, ours: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        super().__init__(ours.family, ours.type, ours.proto, ours.detach())
        self._process = process
        # Whoever has ended is to be waited for.
        threading.Thread(target=process.wait, name=f"{PLUGIN} {process.pid}", daemon=True).start()

    def close(self) -> None:
        super().close()
        self._process.terminate()


def _tunnel(clients: Clients, instance_id: str, port: int, plugin: Sequence[str]) -> socket.socket:
    asked = {"Target": instance_id, "DocumentName": DOCUMENT, "Parameters": {"portNumber": [str(port)]}}
    with translated(f"opening a session with {instance_id}", service="ssm"):
        found = clients.ssm.start_session(**asked)
    answer = json.dumps({name: found[name] for name in ("SessionId", "TokenValue", "StreamUrl")})
    arguments = (_ANSWER, clients.region, "StartSession", "", json.dumps(asked), clients.ssm.meta.endpoint_url)
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                (*plugin, *arguments),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={**os.environ, _ANSWER: answer},
                # A key that interrupts us is not for the plugin.
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return _Tunnel(ours, process)
