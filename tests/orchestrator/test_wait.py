import pytest
from clocks import FakeClock

from orchestrator.errors import TimedOut
from orchestrator.wait import wait_until


def test_the_first_answer_is_returned_and_nothing_is_waited_for():
    clock = FakeClock()
    found = wait_until(lambda: "there", clock=clock, limit_seconds=5, every_seconds=1, what="it")
    assert (found, clock.slept) == ("there", [])


def test_it_is_asked_once_more_when_the_limit_is_reached():
    clock = FakeClock()
    answers = iter([None, None, None, 0])
    found = wait_until(lambda: next(answers), clock=clock, limit_seconds=5, every_seconds=2, what="it")
    assert found == 0
    assert clock.slept == [2, 2, 1]


def test_a_wait_without_answer_says_what_did_not_come_and_after_how_long():
    clock = FakeClock()
    with pytest.raises(TimedOut, match=r"gave up after 4 s of waiting for the tide"):
        wait_until(lambda: None, clock=clock, limit_seconds=4, every_seconds=3, what="the tide")
    assert sum(clock.slept) == 4


def test_even_without_patience_it_is_asked_once():
    assert wait_until(lambda: 1, clock=FakeClock(), limit_seconds=0, every_seconds=1, what="it") == 1
