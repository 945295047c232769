"""What is trained in `step` and `flops`: the one description every side reads, and our side of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from benchmarks.data import Coordinates, Ratings, Shape, batches, make_ratings


@dataclass(frozen=True, slots=True)
class Training:
    """An auto-encoder over made-up ratings: sigmoid layers, cross-entropy, no dropout."""

    hidden: Sequence[int]
    items: int
    optimizer: str
    """`RMSPROP` or `SGD`."""
    learning_rate: float
    batch: int = 256
    steps: int = 2
    """Of one turn."""
    prepared: int = 8
    """Batches that are visited again and again."""
    negatives: int = 0
    """Drawn for a step of a sampled SoftMax; 0: all items, sigmoid. Ours alone can."""

    @property
    def ratings(self) -> Ratings:
        """Enough for the prepared batches."""
        return make_ratings(Shape(users=self.batch * self.prepared, items=self.items))

    @property
    def batches(self) -> list[Coordinates]:
        """As every peer is fed."""
        return list(batches(self.ratings, self.batch))

    @property
    def widths(self) -> list[int]:
        """Units of all layers."""
        return [self.items, *self.hidden, self.items]

    def weights(self, *, deviation: float = 0.01) -> list[np.ndarray]:
        """A matrix [from, to] between each two layers."""
        rng = np.random.default_rng(1)
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return [rng.normal(0.0, deviation, pair).astype(np.float32) for pair in pairs]


def in_turns(training: Training, made: Sequence[object], step: Callable[..., object]) -> Callable[[], float]:
    """The work of a side: `step(batch)` for the next `steps` batches; counts samples. The last step's answer is
    waited for by whoever gave the step.
    """
    coming = cycle(made)

    def work() -> float:
        for batch in islice(coming, training.steps):
            step(batch)
        return float(training.steps * training.batch)

    return work
