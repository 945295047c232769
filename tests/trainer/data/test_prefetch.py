import threading
from collections.abc import Iterator

import pytest

from trainer.data.prefetch import prefetched


def test_items_come_in_order_and_are_made_ahead_but_not_far() -> None:
    made: list[int | None] = []

    def items() -> Iterator[int | None]:
        for number in (1, None, 3, 4, 5, 6, 7):
            made.append(number)
            yield number

    found: list[int | None] = []
    for item in prefetched(items(), depth=2):
        found.append(item)
        assert len(made) <= len(found) + 2
    assert found == made == [1, None, 3, 4, 5, 6, 7]


def test_they_are_made_by_another_thread_which_ends_with_the_iterator() -> None:
    threads: set[threading.Thread] = set()

    def items() -> Iterator[int]:
        for number in range(100):
            threads.add(threading.current_thread())
            yield number

    reader = prefetched(items())
    assert next(reader) == 0
    reader.close()
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_what_goes_wrong_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the third sample is not there")

    reader = prefetched(items())
    assert next(reader) == 1
    with pytest.raises(OSError, match="the third sample"):
        next(reader)
