"""What is done to several machines at once, and which of them is to blame; their lines are played."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from clocks import FakeClock

from orchestrator.errors import CommandFailed, HostUnreachable, InstanceDied, TrainingFailed
from orchestrator.ports import Session
from orchestrator.record import MachineRecord, Rental
from orchestrator.resources import CommandResult, Host
from orchestrator.together import Crew, Node, Watch, naming_the_cause

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRAINING, DONE, FAILED, KILLED, GONE = "alive\n\n", "gone\n0\n", "gone\n1\n", "gone\n\n", ""
"""What a look at a trainer begins with; nothing: nobody answers."""
DRAGGED = "error: process 0: a computation of all 2 processes failed; if another one ended, its log says why: …\n"


def machine(number: int) -> MachineRecord:
    return MachineRecord(
        instance_id=f"i-{number}", instance_type="g6.xlarge", zone="us-east-1a", address=f"192.0.2.{number}",
        user="ubuntu", host_key="k", usd_per_hour=Decimal(1), volume_gib=8, launched_at=NOON,
        ends_at=NOON + timedelta(hours=1), private_address=f"172.31.0.{number}",
    )  # fmt: skip


def pair(folder: Path = Path()) -> Rental:
    return Rental(folder, "run-1", machine(0), (machine(1),))


@dataclass
class Line:
    """A session whose trainer stands as it is told."""

    state: str = TRAINING
    log: str = "epoch 1\n"
    closed: threading.Event = field(default_factory=threading.Event)
    looks: int = 0

    def run(self, command: Sequence[str], **_: Any) -> CommandResult:
        self.looks += 1
        return CommandResult(tuple(command), 0, f"{self.state}{len(self.log)}\n{{}}\n", "", 0.0)

    def read(self, _remote: str, *, offset: int = 0) -> bytes:
        return self.log.encode()[offset:]

    def close(self) -> None:
        self.closed.set()


def connect_to(*lines: Line) -> Callable[[Host], Any]:
    def connect(host: Host) -> Line:
        line = lines[int(host.address[-1])]
        if not line.state:
            raise HostUnreachable(f"nobody answers at {host.address}")
        return line

    return connect


def all_run(_node: Rental) -> None:
    pass


def test_a_step_is_taken_on_all_at_once_and_answered_in_order():
    both_here = threading.Barrier(2, timeout=10)

    def step(node: Node) -> tuple[int, tuple[str, ...]]:
        both_here.wait()
        return node.number, node.group

    crew = Crew.dialled(pair(), connect_to(Line(), Line()))
    options = ("--coordinator", "172.31.0.0:8476", "--processes", "2", "--process")
    assert crew.each(step) == ((0, (*options, "0")), (1, (*options, "1")))


def test_a_machine_alone_is_told_of_nobody():
    alone = Crew.dialled(Rental(Path(), "run-1", machine(0)), connect_to(Line()))
    assert alone.each(lambda node: node.group) == ((),)
    with pytest.raises(CommandFailed, match=r"^no room$"):
        alone.each(lambda _: _fail("no room"))


def _fail(words: str) -> None:
    raise CommandFailed(words)


def test_the_first_failure_names_its_machine_and_breaks_off_the_other():
    lines = Line(), Line()
    crew = Crew.dialled(pair(), connect_to(*lines))

    def step(node: Node) -> None:
        if node.number == 1:
            _fail("bootstrap.sh failed")
        # An upload that only the end of its line ends.
        lines[0].closed.wait(10)

    with pytest.raises(CommandFailed, match=r"^node 1 of 2 \(i-1 at 192.0.2.1\): bootstrap.sh failed$"):
        crew.each(step)
    assert lines[0].closed.is_set()


def test_where_one_does_not_answer_the_line_to_the_other_is_hung_up():
    answering = Line()
    with pytest.raises(HostUnreachable, match="node 1 of 2"):
        Crew.dialled(pair(), connect_to(answering, Line(GONE)))
    assert answering.closed.wait(10)


def test_the_other_trainers_are_looked_at_every_few_seconds():
    clock, other = FakeClock(), Line()
    watch = Watch(pair(), connect=connect_to(Line(GONE), other), clock=clock, check=all_run)
    for _ in range(20):
        watch()
        clock.sleep(0.5)
    assert other.looks == 4
    other.state = FAILED
    clock.sleep(3)
    with pytest.raises(TrainingFailed, match=r"node 1 of 2 .*ended with status 1"):
        watch()
    watch.close()
    assert other.closed.is_set()


def test_one_that_is_done_is_well():
    Watch(pair(), connect=connect_to(Line(), Line(DONE)), clock=FakeClock(), check=all_run)()


def test_a_line_that_is_lost_is_dialled_again_for_a_while_unless_the_machine_ended():
    clock, other = FakeClock(), Line(GONE)
    watch = Watch(pair(), connect=connect_to(Line(), other), clock=clock, check=all_run)
    watch()
    other.state = TRAINING
    clock.sleep(100)
    watch()
    other.state = GONE
    watch.close()
    for _ in range(41):
        clock.sleep(3)
        watch()
    clock.sleep(3)
    with pytest.raises(HostUnreachable, match=r"node 1 of 2 .* for 120 s"):
        watch()

    def ended(_node: Rental) -> None:
        raise InstanceDied("i-1 is terminated")

    with pytest.raises(InstanceDied, match="i-1 is terminated"):
        Watch(pair(), connect=connect_to(Line(), other), clock=clock, check=ended)()


@pytest.mark.parametrize(
    ("first", "second", "ended", "named"),
    [
        (Line(FAILED, DRAGGED), Line(KILLED, ""), None, "node 1 of 2 (i-1 at 192.0.2.1): the trainer ended without"),
        (Line(FAILED, DRAGGED), Line(FAILED, "error: no memory\n"), None, "node 1 of 2 (i-1 at 192.0.2.1)"),
        (Line(FAILED, "error: loss\n"), Line(FAILED, "error: loss\n"), None, "status 1: error: loss"),
        (Line(FAILED, "error: loss\n"), Line(TRAINING), None, "node 0 of 2 (i-0 at 192.0.2.0)"),
        (Line("gone\n137\n", ""), Line(FAILED, DRAGGED), None, "status 137: its log is empty"),
        (Line(GONE), Line(FAILED, DRAGGED), "i-0", "i-0 is terminated"),
        (Line(FAILED, DRAGGED), Line(GONE), None, "nobody answers at 192.0.2.1"),
        (Line(TRAINING), Line(TRAINING), None, "as it was told"),
    ],
)
def test_the_machine_that_failed_first_is_named_with_its_last_words(
    tmp_path: Path, first: Line, second: Line, ended: str | None, named: str
):
    def check(node: Rental) -> None:
        if node.machine.instance_id == ended:
            raise InstanceDied(f"{ended} is terminated")

    with (
        pytest.raises((TrainingFailed, InstanceDied, HostUnreachable)) as failed,
        naming_the_cause(pair(tmp_path), connect=connect_to(first, second), check=check, tell=lambda _: None),
    ):
        raise TrainingFailed("as it was told")
    assert named in str(failed.value)
    brought: Mapping[str, str] = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert brought == ({"log-1.txt": second.log} if second.state else {})


def test_what_a_machine_alone_failed_by_stays_as_it_is(tmp_path: Path):
    alone = Rental(tmp_path, "run-1", machine(0))
    with (
        pytest.raises(TrainingFailed, match=r"^as it was told$"),
        naming_the_cause(alone, connect=connect_to(Line(GONE)), check=all_run, tell=lambda _: None),
    ):
        raise TrainingFailed("as it was told")


def test_a_second_line_is_broken_with_the_others_even_if_it_came_too_late():
    lines = [Line(), Line(), Line()]
    waiting = iter(lines)
    crew = Crew.dialled(Rental(Path(), "run-1", machine(0)), lambda _host: cast("Session", next(waiting)))
    crew.each(crew.another_line)
    crew.close()
    crew.each(crew.another_line)
    assert [line.closed.is_set() for line in lines] == [True, True, True]
