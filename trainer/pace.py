"""How long a training lasts and how much of the data a step sees: what a network states of itself (the extension
`Training`), what settings say over it, and the defaults.
"""

import math
import re
from dataclasses import dataclass, replace

from trainer.settings import TrainSettings

DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS = 256, 10
AUTO_BATCH = 0
_STEPS, _SMALLEST, _LARGEST = 100, 64, 1024
"""Steps an epoch should have, and the sizes between which a batch is chosen for it."""
METRICS = ("ndcg", "recall", "precision")
"""What a training can be stopped by, each followed by `@K`, as `trainer.metrics` calls them."""
_METRIC = re.compile(rf"({'|'.join(METRICS)})@[1-9][0-9]{{0,5}}")


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """A training ends when a metric on validation samples gets no better, and keeps its best epoch."""

    metric: str = "ndcg@100"
    patience: int = 5
    """Epochs in a row without a better one after which it ends."""
    validation: float = 0.1
    """Share of each sample's features that is kept from training and should be found, where no others are given."""
    min_epochs: int = 0
    """Epochs before which it does not end."""
    refit: bool = False
    """Afterwards the network is trained anew, on the validation samples too, for as many epochs as were best."""


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """How a network states that it is trained; `None` leaves it to the settings."""

    batch_size: int | None = None
    """`AUTO_BATCH` where it follows from the number of samples, and these are not known yet."""
    epochs: int | None = None
    stopping: EarlyStopping | None = None

    def over(self, samples: int) -> "TrainingSpec":
        """The same for so many samples: a batch size that is left open is the power of two that makes about a hundred
        steps an epoch, 64 to 1024.
        """
        if self.batch_size != AUTO_BATCH:
            return self
        size = 2 ** round(math.log2(max(samples, 1) / _STEPS))
        return replace(self, batch_size=min(max(size, _SMALLEST), _LARGEST))


UNSTATED = TrainingSpec()


@dataclass(frozen=True, slots=True)
class Pace:
    """How a training is done."""

    batch_size: int
    epochs: int
    """At most, where it can stop early."""
    stopping: EarlyStopping | None


def pace_of(stated: TrainingSpec, settings: TrainSettings) -> Pace:
    """What settings say counts, then what the network states, then 256 samples a step and 10 epochs."""
    return Pace(
        _first(settings.batch_size, stated.batch_size or None, DEFAULT_BATCH_SIZE),
        _first(settings.epochs, stated.epochs, DEFAULT_EPOCHS),
        stated.stopping,
    )


def metric_k(name: str) -> int | None:
    """K of a metric's name, `None` where it is no name of one."""
    return int(name.partition("@")[2]) if _METRIC.fullmatch(name) else None


def _first(asked: int | None, stated: int | None, default: int) -> int:
    return asked if asked is not None else stated if stated is not None else default
