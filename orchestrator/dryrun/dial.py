"""Dialling in a dry run: the public address that the mocked AWS gave an instance leads to the loopback
port of its embedded machine.
"""

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

_SSH_PORT = 22


def loopback_dialler(endpoint: str) -> Callable[[str, int, float], socket.socket]:
    """A dialler `(address, port, timeout_seconds) -> socket` for machines of the mock at `endpoint`.
    It raises `ConnectionRefusedError` while no machine listens there.
    """
    if urllib.parse.urlsplit(endpoint).hostname != "127.0.0.1":
        raise ValueError(f"{endpoint}: the mocked AWS must be on 127.0.0.1")

    def dial(address: str, port: int, timeout_seconds: float) -> socket.socket:
        if port != _SSH_PORT:
            raise ConnectionRefusedError(f"{address}:{port}: nobody listens")
        local_port = loopback_port(endpoint, address, timeout_seconds)
        connection = socket.create_connection(("127.0.0.1", local_port), timeout_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    return dial


def loopback_port(endpoint: str, address: str, timeout_seconds: float = 10.0) -> int:
    """The port on 127.0.0.1 of the machine at a public address. Raises `ConnectionRefusedError` while it has none."""
    url = f"{endpoint.rstrip('/')}/_machines/{urllib.parse.quote(address, safe='.')}"
    # An environment's proxy settings must not carry this request off the machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as answer:
            return int(json.load(answer)["port"])
    except urllib.error.HTTPError as error:
        error.close()
        raise ConnectionRefusedError(f"{address}:{_SSH_PORT}: nobody listens (yet)") from error
    except urllib.error.URLError as error:
        raise ConnectionRefusedError(f"{endpoint}: the mocked AWS does not answer") from error
