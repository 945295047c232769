"""A clock whose time passes only by sleeping."""

import time
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Sleeping takes no time, or `really` seconds where others' time has to pass meanwhile."""

    def __init__(self, *, really: float = 0.0) -> None:
        self.time = datetime(2026, 11, 24, 12, tzinfo=UTC)
        self.slept: list[float] = []
        self._really = really

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)
        time.sleep(self._really)
