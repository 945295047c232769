"""`python -m orchestrator.dryrun.plugin`: stands in for AWS's session-manager-plugin. It takes the same arguments and
carries bytes between its standard streams and the embedded machine that the mocked StartSession named.
"""

import json
import os
import socket
import sys
import threading
import urllib.parse

from orchestrator.dryrun.dial import loopback_port

_CHUNK = 1 << 16


def main() -> int:
    """Until either side ends."""
    answer = json.loads(os.environ[sys.argv[1]])
    place = urllib.parse.urlsplit(answer["StreamUrl"])
    try:
        port = loopback_port(f"http://{place.netloc}", place.path.rpartition("/")[2])
    except ConnectionRefusedError:
        return 1
    with socket.create_connection(("127.0.0.1", port)) as line:
        threading.Thread(target=_send, args=(line,), daemon=True).start()
        while chunk := line.recv(_CHUNK):
            os.write(1, chunk)
    return 0


def _send(line: socket.socket) -> None:
    while chunk := os.read(0, _CHUNK):
        line.sendall(chunk)
    line.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(main())
