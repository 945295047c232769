"""Waiting until something is so: by a `Clock`, with a limit, for a stated reason. What is waited for is
the caller's business.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from orchestrator.errors import TimedOut
from orchestrator.ports import Clock

T = TypeVar("T")


def wait_until(
    check: Callable[[], T | None], *, clock: Clock, limit_seconds: float, every_seconds: float, what: str
) -> T:
    """Ask `check` until it answers something other than `None`, and return that. It is asked at least
    once, and once more when the limit is reached; then `TimedOut` says `what` did not come.
    """
    deadline = clock.now() + timedelta(seconds=limit_seconds)
    while (found := check()) is None:
        left = (deadline - clock.now()).total_seconds()
        if left <= 0:
            raise TimedOut(f"gave up after {limit_seconds:g} s of waiting for {what}")
        clock.sleep(min(every_seconds, left))
    return found
