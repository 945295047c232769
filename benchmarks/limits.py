"""What the machine can do at best: matrix products alone, each by the fastest of NumPy's and XLA's in any order of
storage.
"""

import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np

_TRIES = 5


def products(*, shapes: Sequence[Sequence[int]], times: int, counts: float) -> Callable[[], float]:
    """`times` times all products [m, k] × [k, n] of `shapes` (m, k, n), one after the other; counts `counts`."""
    fastest = [_fastest(*shape) for shape in shapes]

    def work() -> float:
        for _ in range(times):
            for one in fastest:
                one()
        return counts

    return work


def _fastest(m: int, k: int, n: int) -> Callable[[], object]:
    return min(_candidates(m, k, n), key=_seconds)


def _candidates(m: int, k: int, n: int) -> Sequence[Callable[[], object]]:
    rng = np.random.default_rng(0)
    left, right = rng.random((m, k), np.float32), rng.random((k, n), np.float32)
    found: list[Callable[[], object]] = []
    result = np.empty((m, n), np.float32)
    for a, b in product((left, np.asfortranarray(left)), (right, np.asfortranarray(right))):
        found.append(lambda a=a, b=b: np.matmul(a, b, out=result))
    return [*found, *(_by_xla(left, right, turned) for turned in product((False, True), repeat=2))]


def _by_xla(left: Any, right: Any, turned: tuple[bool, ...]) -> Callable[[], object]:
    first = jax.device_put(left.T if turned[0] else left)
    second = jax.device_put(right.T if turned[1] else right)
    multiply = jax.jit(lambda a, b: (a.T if turned[0] else a) @ (b.T if turned[1] else b))
    return lambda: multiply(first, second).block_until_ready()


def _seconds(work: Callable[[], object]) -> float:
    work()
    taken: list[float] = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)
