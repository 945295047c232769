"""`Scenario`: the troubles that are played into the mocked AWS and its machines, parsed strictly
from JSON or a mapping. Everything left out goes well.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import UsageError

_Seconds = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Failure(_Strict):
    """One answer that goes wrong: the `nth` call of an action, and the `times - 1` after it."""

    action: str
    nth: Annotated[int, Field(ge=1)] = 1
    times: Annotated[int, Field(ge=1)] = 1
    code: str = "InternalError"
    message: str = "played by the scenario"
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """HTTP status; `None`: 500 for capacity and internal errors, 503 for throttling, else 400."""
    after: bool = False
    """The call was carried out, and only the answer is an error."""
    hang_up: bool = False
    """No answer at all: the connection is closed."""


class Interruption(_Strict):
    """One machine goes, so long after its training's first epoch."""

    after_seconds: _Seconds = 0.0
    notice_seconds: _Seconds = 120.0
    """How long before it is told on the machine; 0: not at all."""
    reason: str = "Server.SpotInstanceTermination"
    """State reason code."""


class Move(_Strict):
    """The caller reaches the Internet from another address, so long after a training's first epoch. Lines break."""

    after_seconds: _Seconds = 0.0
    to: str = "192.31.196.8"


class Scenario(_Strict):
    """What goes wrong, and how long things take."""

    pending_seconds: _Seconds = 1.0
    ending_seconds: _Seconds = 1.5
    """From `shutting-down` to `terminated`."""
    capacity: Mapping[str, Annotated[int, Field(ge=0)] | Literal["none", "plenty"]] = {}
    """By zone, or by `type@zone`; a number is what one request may have at most."""
    quota: Mapping[str, float] = {}
    """vCPUs by quota code."""
    fail: tuple[Failure, ...] = ()
    missing_buckets: tuple[str, ...] = ()
    """Buckets that there are not; any other is there when it is asked for."""
    dies: str | None = None
    """State reason code with which instances go from pending to terminated."""
    dies_only: Annotated[int, Field(ge=0)] | None = None
    """Of several of one request only this one does, from 0."""
    devices: Annotated[int, Field(ge=1)] = 8
    """What each machine shows in place of GPUs."""
    invisible_seconds: _Seconds = 0.0
    """How long a new instance is not yet known to Describe."""
    host_key: Literal["right", "wrong"] = "right"
    """`wrong`: machines present a host key other than their user data's."""
    refuse_ssh_seconds: _Seconds = 0.0
    """How long a running machine does not listen yet."""
    refuse_logins: Annotated[int, Field(ge=0)] = 0
    """How many connections of each machine find no key accepted."""
    drop_ssh_after_seconds: _Seconds | None = None
    """Every machine's SSH connections break once, so long after its first."""
    interrupt: tuple[Interruption, ...] = ()
    """The first for the first machine that trains, and so on; machines after the last one stay."""
    caller_moves: Move | None = None

    @property
    def heeds_training(self) -> bool:
        """Whether anything depends on when a training began."""
        return bool(self.interrupt) or self.caller_moves is not None


def read_scenario(source: Path | Mapping[str, Any] | None) -> Scenario:
    """Parse a scenario from a JSON file or a mapping; `None`: nothing goes wrong."""
    try:
        found = json.loads(source.read_text(encoding="utf-8")) if isinstance(source, Path) else source
        return Scenario.model_validate({} if found is None else found)
    except (OSError, ValueError) as error:
        raise UsageError(f"{_where(source)}: {_first_problem(error)}") from error


def _where(source: Path | Mapping[str, Any] | None) -> str:
    return str(source) if isinstance(source, Path) else "scenario"


def _first_problem(error: OSError | ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"cannot be read as a scenario: {error}"
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'scenario'}: {first['msg']}"
