"""Whether this process was asked to save what it has and end: SIGTERM is taken as that question, so that a machine that
is about to go can be left in time.
"""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heeding_sigterm() -> Generator[Callable[[], bool]]:
    """While this is open SIGTERM ends nothing; gives what says whether it came. Only in a process's main thread."""
    came = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)
