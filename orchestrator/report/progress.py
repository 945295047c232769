"""Progress on stderr: bars where it is a terminal, quiet lines where it is not."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from orchestrator.events import Event, Progress, Stage
from orchestrator.report.units import amount, bytes_text, seconds_text

_QUIET_INTERVAL = timedelta(seconds=5)


@contextmanager
def progress(stream: TextIO) -> Generator[Callable[[Event], None]]:
    """A callback that shows events on `stream` while the context is open."""
    if not stream.isatty():
        yield _Lines(stream).show
        return
    bars = Bars(
        TextColumn("{task.fields[stage]:<9}"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}", markup=False),
        console=Console(file=stream, highlight=False),
    )
    with bars:
        yield _Bars(bars).show


def progress_text(progress: Progress) -> str:
    """`3/10 epochs, loss 812.4, 1,234 samples/s, 4.0 s left`, or `1.2 MB of 3.4 MB`."""
    if progress.unit == "bytes":
        parts = [f"{bytes_text(progress.done)} of {bytes_text(progress.total)}"]
    else:
        parts = [f"{progress.done:.0f}/{progress.total:.0f} {progress.unit}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4g}")
    if progress.samples_per_second is not None:
        parts.append(f"{amount(progress.samples_per_second)} samples/s")
    if progress.seconds_left is not None:
        parts.append(f"{seconds_text(progress.seconds_left)} left")
    if progress.usd is not None and progress.usd_at_most is not None:
        parts.append(f"{progress.usd} of at most {progress.usd_at_most} USD")
    return ", ".join(parts)


@dataclass(slots=True)
class _Lines:
    stream: TextIO
    shown_at: dict[Stage, datetime] = field(default_factory=dict[Stage, datetime])

    def show(self, event: Event) -> None:
        if event.progress is not None and not self._is_due(event, event.progress):
            return
        text = progress_text(event.progress) if event.progress else event.message
        if text:
            self.stream.write(f"{event.at:%H:%M:%S} {event.stage.value:<9} {text}\n")
            self.stream.flush()

    def _is_due(self, event: Event, progress: Progress) -> bool:
        last = self.shown_at.get(event.stage)
        if progress.done < progress.total and last is not None and event.at - last < _QUIET_INTERVAL:
            return False
        self.shown_at[event.stage] = event.at
        return True


@dataclass(slots=True)
class _Bars:
    bars: Bars
    tasks: dict[Stage, TaskID] = field(default_factory=dict[Stage, TaskID])
    started: dict[Stage, datetime] = field(default_factory=dict[Stage, datetime])
    said: dict[Stage, str] = field(default_factory=dict[Stage, str])

    def show(self, event: Event) -> None:
        stage = event.stage
        # A stage may come again, on another machine.
        self.started.setdefault(stage, event.at)
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(event.message, total=None, stage=stage.value)
        if event.ended:
            self._end(event)
        elif event.progress is not None:
            self.said[stage] = progress_text(event.progress)
            self.bars.update(
                self.tasks[stage],
                total=event.progress.total,
                completed=event.progress.done,
                description=self.said[stage],
            )
        else:
            self.said[stage] = event.message
            self.bars.update(self.tasks[stage], description=event.message)

    def _end(self, event: Event) -> None:
        took = seconds_text((event.at - self.started.pop(event.stage)).total_seconds())
        said = self.said.get(event.stage, "")
        self.bars.update(self.tasks[event.stage], total=1, completed=1, description=f"{said}  ({took})".strip())
