"""Signals that ask a verb to stop."""

import signal
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def stoppable() -> Generator[None]:
    """SIGTERM and SIGHUP stop a run as Ctrl-C does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
