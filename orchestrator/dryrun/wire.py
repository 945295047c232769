"""AWS's wire: a request as the mock sees it, and answers and errors in the dialects our clients speak, EC2's XML and
JSON 1.1, and S3's errors.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

_SERVER_FAULTS = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientReservedInstanceCapacity",
        "Unavailable",
    }
)
_THROTTLES = frozenset({"RequestLimitExceeded", "Throttling", "ServiceUnavailable"})


class Refusal(Exception):
    """The mocked AWS answers with this error."""

    def __init__(self, code: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or (500 if code in _SERVER_FAULTS else 503 if code in _THROTTLES else 400)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One AWS call. `form` holds EC2's flat parameters, `document` those of a JSON service."""

    service: str
    region: str
    action: str
    form: Mapping[str, str]
    document: Mapping[str, Any]

    @property
    def dry_run(self) -> bool:
        """Whether only the permission is asked for."""
        return self.form.get("DryRun", "").lower() == "true"

    def values(self, prefix: str) -> tuple[str, ...]:
        """Values of the list `prefix.1`, `prefix.2`, …"""
        return tuple(self.form[key] for key in _numbered(self.form, prefix))

    def groups(self, prefix: str) -> tuple[Mapping[str, str], ...]:
        """The list of structures `prefix.1.Key`, …, each as a mapping of its own keys."""
        found: dict[str, dict[str, str]] = {}
        for key, value in self.form.items():
            if key.startswith(prefix + "."):
                number, _, rest = key[len(prefix) + 1 :].partition(".")
                found.setdefault(number, {})[rest] = value
        return tuple(found[number] for number in sorted(found, key=int))


def parse_call(authorization: str, target: str, body: bytes) -> Call | None:
    """The call in a signed request, or `None` if it is none that the mock looks into."""
    scope = scope_of(authorization)
    if scope is None:
        return None
    region, service = scope
    if target:
        document = json.loads(body or b"{}")
        return Call(service, region, target.rpartition(".")[2], {}, document)
    form = dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True))
    return Call(service, region, form.get("Action", ""), form, {})


def scope_of(authorization: str) -> tuple[str, str] | None:
    """Region and service that a request is signed for, or `None` if it is not signed."""
    scope = authorization.partition("Credential=")[2].split(",")[0].split("/")
    return (scope[-3], scope[-2]) if len(scope) >= 5 else None


def encode_form(form: Mapping[str, str]) -> bytes:
    """A request body of flat parameters."""
    return urlencode(form).encode("ascii")


def xml_answer(action: str, inner: str) -> Answer:
    """EC2's answer to an action; `inner` is XML."""
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{_REQUEST_ID}</requestId>{inner}</{action}Response>"
    )
    return Answer(200, "text/xml;charset=UTF-8", text.encode("utf-8"))


def json_answer(document: Any, *, status: int = 200) -> Answer:
    """An answer of a JSON service."""
    return Answer(status, "application/x-amz-json-1.1", json.dumps(document).encode("utf-8"))


def refuse(call: Call, refusal: Refusal) -> Answer:
    """The error in the dialect of the call's service."""
    if call.form:
        return Answer(refusal.status, "text/xml;charset=UTF-8", _xml_error(call, refusal))
    return json_answer({"__type": refusal.code, "message": refusal.message}, status=refusal.status)


_REQUEST_ID = "59dbff89-35bd-4eac-99ed-be587EXAMPLE"


def _xml_error(call: Call, refusal: Refusal) -> bytes:
    error = f"<Error><Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message></Error>"
    if call.service == "s3":
        text = error
    elif call.service == "ec2":
        text = f"<Response><Errors>{error}</Errors><RequestID>{_REQUEST_ID}</RequestID></Response>"
    else:
        text = f"<ErrorResponse>{error}<RequestId>{_REQUEST_ID}</RequestId></ErrorResponse>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def _numbered(form: Mapping[str, str], prefix: str) -> Iterator[str]:
    keys = (key for key in form if key.startswith(prefix + ".") and key[len(prefix) + 1 :].isdigit())
    yield from sorted(keys, key=lambda key: int(key[len(prefix) + 1 :]))
