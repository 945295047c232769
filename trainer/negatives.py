"""Which units of an Output layer a step looks at: `Sampling`, an extension of the network language."""

from dataclasses import dataclass
from enum import IntEnum


class Negatives(IntEnum):
    """How the negatives of an Output layer are drawn."""

    NONE = 0
    """All other units are negatives."""
    UNIFORM = 1
    POPULARITY = 2
    IN_BATCH = 3
    GRAM = 4
    """None is drawn: all other units count, by the Gram matrix of the weights."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Of an Output layer of which a step looks at some units only."""

    by: Negatives = Negatives.NONE
    count: int = 0
    """Draws a step; 0 for `IN_BATCH` and `GRAM`."""


UNSAMPLED = Sampling()
"""A step looks at all units."""
