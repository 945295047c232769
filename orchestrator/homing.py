"""Checkpoints on their way: home while a training goes on, so that a machine that is lost costs minutes, and along to
the next machine. Always whole: packed on the machine from copies that hold still, verified, and only then in the place
of the one before.
"""

import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.errors import (
    CommandFailed,
    HostUnreachable,
    OrchestratorError,
    OverBudget,
    RunFailed,
    SurvivorsLeft,
    TimedOut,
    TrainingFailed,
    TransferMismatch,
    UsageError,
)
from orchestrator.fetch import content_of, contents, fetch
from orchestrator.ports import Clock, Session
from orchestrator.record import FILE_NAME as RECORD_FILE
from orchestrator.record import Rental, read_record
from orchestrator.rundir import CHECKPOINTS

METRICS = "metrics.jsonl"
LOG = "log.txt"

_ASK_SECONDS = 5.0
"""Between questions for a new checkpoint, once one may come home again."""
_SHARE = 20.0
"""A transfer may take one part in so many of the time: while it lasts, nobody sees the training end."""
_PATIENCE_SECONDS = 300.0
"""What has not come home by then is too large for this line, and no other is tried."""
_DECIDING = ("samples", "features", "nnz", "parameters", "batch_size", "seed", "held_out", "learning_rate")
"""Of a plan's inputs and settings: what makes two trainings different."""
_PACK = """\
cd "$1/run" 2> /dev/null || exit 0
newest() { ls "$1" 2> /dev/null | grep -E '^[0-9]+$' | sort -n | tail -n 1; }
first=$(newest checkpoints)
again=$(newest checkpoints/refit)
[ -n "$first$again" ] || exit 0
echo "$first/$again"
[ "$first/$again" != "$2" ] || exit 0
rm -rf ../homing && mkdir -p ../homing/run ../homing/checkpoints || exit 1
[ -z "$first" ] || cp -al "checkpoints/$first" ../homing/checkpoints/ || exit 1
if [ -n "$again" ]; then
  mkdir ../homing/checkpoints/refit && cp -al "checkpoints/refit/$again" ../homing/checkpoints/refit/ || exit 1
fi
if [ -f metrics.jsonl ]; then cp metrics.jsonl ../homing/run/ || exit 1; fi
tar -cf ../homing/run/checkpoints.tar -C ../homing checkpoints || exit 1
rm -rf ../homing/checkpoints
"""
"""Prints which checkpoints are the newest, of the training and of the one done anew, and packs them unless they are
those at home. Their files are linked first: the trainer removes old ones when it likes, and changes none.
"""


@dataclass(slots=True)
class Homing:
    """Called with a line now and then, brings the newest checkpoint home if it is time. `on_bytes` is called while one
    travels.
    """

    rental: Rental
    clock: Clock
    tell: Callable[[str], None]
    on_bytes: Callable[[], None] = lambda: None
    due: datetime | None = None
    given_up: bool = False

    def __call__(self, session: Session) -> None:
        """Bring it if it is new, and the last is old enough. What goes wrong on the machine is told and tried again;
        `HostUnreachable` rises.
        """
        now = self.clock.now()
        if self.given_up or (self.due is not None and now < self.due):
            return
        every = self.rental.machine.checkpoint_seconds
        self.due = now + timedelta(seconds=min(_ASK_SECONDS, every))
        try:
            brought = self.bring(session)
        except (HostUnreachable, OverBudget):
            raise
        except RunFailed as error:
            self.given_up = isinstance(error, TimedOut)
            self.tell(f"{'checkpoints stay on the machine' if self.given_up else 'no checkpoint came home'}: {error}")
            return
        if brought:
            took = (self.clock.now() - now).total_seconds()
            self.due = now + timedelta(seconds=max(every, took * _SHARE))

    def bring(self, session: Session) -> bool:
        """Bring the newest checkpoint now; `False` if there is none that is not here. Raises `RunFailed`."""
        root, folder, started = self.rental.root, self.rental.folder, self.clock.now()
        known = held(folder)
        done = session.run(("sh", "-c", _PACK, "pack", root, known), timeout_seconds=_PATIENCE_SECONDS)
        newest = done.stdout.strip()
        if done.exit_status != 0:
            raise CommandFailed(f"cannot pack the checkpoints in {root}/run: {done.stderr.strip()}")
        if newest in {"", known}:
            return False

        def on_bytes(arrived: int) -> None:
            self.on_bytes()
            if (self.clock.now() - started).total_seconds() > _PATIENCE_SECONDS:
                raise TimedOut(f"after {_PATIENCE_SECONDS:g} s {arrived:,} bytes had come home, and not all")

        names = (CHECKPOINTS, METRICS)
        found = fetch(session, f"{root}/homing", names, into=folder, tell=_unheard, partial=True, on_bytes=on_bytes)
        size = next(artifact.size for artifact in found if artifact.name == CHECKPOINTS)
        seconds = (self.clock.now() - started).total_seconds()
        self.tell(f"the checkpoint of step {_step(newest)} is home: {size:,} bytes in {seconds:.1f} s")
        return True


def _unheard(_remark: str) -> None:
    pass


def take_along(session: Session, rental: Rental) -> str:
    """Put what earlier machines left at home where a trainer goes on from it; what there was, in words. The log, too:
    it is added to there as it was here.
    """
    names = [name for name in (LOG, METRICS, CHECKPOINTS) if (rental.folder / name).exists()]
    for name in names:
        session.put(rental.folder / name, f"{rental.root}/run/{name}")
    arrived = contents(session, rental.root, names) if names else {}
    for name in names:
        if arrived.get(name) != content_of(rental.folder / name):
            raise TransferMismatch(f"{rental.root}/run/{name}: arrived otherwise than it lies in {rental.folder}")
    if CHECKPOINTS not in names:
        return "no checkpoint had come home: the training begins anew"
    there = f"{rental.root}/run"
    command = ("sh", "-c", 'cd "$1" && tar -xf "$2" && rm -f "$2"', "unpack", there, CHECKPOINTS)
    done = session.run(command, timeout_seconds=_PATIENCE_SECONDS)
    if done.exit_status != 0:
        raise CommandFailed(f"cannot unpack {CHECKPOINTS} in {there}: {done.stderr.strip()}")
    return f"the training goes on from the checkpoint of step {_step(held(rental.folder))}"


def held(folder: Path) -> str:
    """Which checkpoints are at home, as the machine names its newest: `7/`, `70/12` where the training is done anew;
    nothing where there are none.
    """
    try:
        with tarfile.open(folder / CHECKPOINTS) as packed:
            names = packed.getnames()
    except (OSError, tarfile.TarError):
        return ""
    first = [int(found[1]) for name in names if (found := re.fullmatch(r"checkpoints/(\d+)", name))]
    again = [int(found[1]) for name in names if (found := re.fullmatch(r"checkpoints/refit/(\d+)", name))]
    return "/".join(str(max(steps)) if steps else "" for steps in (first, again)) if first or again else ""


def refuse_other_training(earlier: Path, now: Mapping[str, Any]) -> None:
    """`UsageError` where the inputs and settings of a run differ from those that its record names: a checkpoint is of
    one training. The trainer, which sees all of both, would refuse it too, but on a machine that costs money.
    """
    if not (earlier / RECORD_FILE).exists():
        return
    plan = read_record(earlier).plan
    before = {**plan.get("inputs", {}), **plan.get("settings", {})}
    for key in _DECIDING:
        if key in before and before[key] != now[key]:
            raise UsageError(
                f"{earlier}: its training had {key} = {before[key]}, this one has {now[key]}: a checkpoint is gone on "
                "from with the same network, data and settings"
            )


def copy_from(earlier: Path, folder: Path) -> None:
    """Put what a run brought home into the folder of another, which goes on from it."""
    for name in (LOG, METRICS, CHECKPOINTS):
        if (earlier / name).exists():
            shutil.copyfile(earlier / name, folder / name)


def continuing(error: OrchestratorError, folder: Path) -> str:
    """The error's words, and how to go on where there is something to go on from."""
    if isinstance(error, TrainingFailed | SurvivorsLeft) or not held(folder):
        return str(error)
    return f"{error}; its last checkpoint is home: `launch-and-train --continue {folder}` goes on from it"


def _step(named: str) -> str:
    return named.strip("/").rpartition("/")[2]
