"""How often XLA was asked to compile a function and how long that took, by the events that JAX itself tells."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import jax

_ASKED = "/jax/core/compile/backend_compile_duration"


@dataclass(slots=True)
class Compilations:
    """So many, together so long. One that the cache on disk had ready counts, too; it is quicker."""

    count: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"compiled {self.count} time{'' if self.count == 1 else 's'} in {self.seconds:.1f} s"


@contextmanager
def compilations_of(function: str) -> Generator[Compilations]:
    """Counts those of what `jax.jit` made of functions of this name, one for each new shape of their arguments, while
    the context lasts.
    """
    found = Compilations()

    def heard(event: str, duration_secs: float, **about: str | int) -> None:
        if event == _ASKED and about.get("fun_name") == f"jit({function})":
            found.count += 1
            found.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
