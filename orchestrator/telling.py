"""Tells the story: turns what the chapters say into `Event`s and keeps the seconds of each stage. Two chapters may
speak at once, each from its thread: what hears them hears one after the other.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from orchestrator.events import Event, Progress, Stage, StageTime
from orchestrator.ports import Clock

Say = Callable[[str], None]
"""Takes a remark."""


@dataclass(slots=True)
class Telling:
    """Where events go, and the stages that have ended so far."""

    clock: Clock
    tell: Callable[[Event], None]
    stages: list[StageTime] = field(default_factory=list[StageTime])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, stage: Stage, message: str, progress: Progress | None = None) -> None:
        """Tell one thing about a stage."""
        with self._lock:
            self.tell(Event(self.clock.now(), stage, message, progress))

    @contextmanager
    def stage(self, stage: Stage, message: str) -> Generator[Callable[[str], None]]:
        """A stage from its start to its end, however it ends; gives a callback for remarks."""
        started = self.clock.now()
        self.say(stage, message)
        try:
            yield lambda remark: self.say(stage, remark)
        finally:
            ended = self.clock.now()
            with self._lock:
                self.stages.append(StageTime(stage, (ended - started).total_seconds(), began=started))
                self.tell(Event(ended, stage, "", ended=True))
