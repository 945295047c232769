"""The embedded machine's instance metadata (IMDSv2) on loopback: a token first, then, once AWS takes the machine back,
the notice of it. Everything else is not there.
"""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from secrets import compare_digest, token_urlsafe

_DESK = "/latest/api/token"
_NOTICE = "/latest/meta-data/spot/instance-action"
_SHOWN = "x-aws-ec2-metadata-token"
_LASTING = "x-aws-ec2-metadata-token-ttl-seconds"
_PATIENCE_SECONDS = 5.0
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


class Metadata:
    """Answers on `url` from `open` to `close`, both called in the machine's loop."""

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._notice = ""
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        if self._server is None:
            return ""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    def announce(self, seconds: float) -> None:
        """From now on say that the machine goes in so many seconds. May be called from any thread."""
        if not self._notice:
            when = datetime.now(UTC) + timedelta(seconds=seconds)
            self._notice = json.dumps({"action": "terminate", "time": f"{when:%Y-%m-%dT%H:%M:%SZ}"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE_SECONDS)
            status, body = self._answer(head.decode("latin-1"))
            lines = (f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {len(body)}", "Connection: close")
            writer.write("\r\n".join((*lines, "", body)).encode())
            await writer.drain()
        writer.close()

    def _answer(self, head: str) -> tuple[int, str]:
        request, *lines = head.split("\r\n")
        method, path, _ = request.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if (method, path) == ("PUT", _DESK):
            if not headers.get(_LASTING, "").isdecimal():
                return 400, ""
            self._tokens.append(token_urlsafe(32))
            return 200, self._tokens[-1]
        shown = headers.get(_SHOWN, "")
        if not any(compare_digest(token, shown) for token in self._tokens):
            return 401, ""
        return (200, self._notice) if (method, path) == ("GET", _NOTICE) and self._notice else (404, "")
