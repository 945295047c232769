"""The next items made while the last is used."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterator[Item], *, depth: int = 2) -> Generator[Item]:
    """`items` in order, up to `depth` of them made ahead by a thread of their own; what goes wrong there is raised
    where the item would have come. The thread ends with the iterator.
    """
    with ThreadPoolExecutor(1) as thread:
        # `None` after the last: items may be anything, so each travels in a tuple.
        boxed = ((item,) for item in items)
        waiting = deque(thread.submit(next, boxed, None) for _ in range(depth))
        while (box := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, boxed, None))
            yield box[0]
