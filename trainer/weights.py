"""What a trained network has learnt, as plain arrays on the host: the same whatever devices it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Connection(NamedTuple):
    """What leads from one layer into another."""

    kernel: Floats | None
    """[in, out]; of a convolutional layer [filters, channels, …, y, x]; `None` where the matrix is another's."""
    bias: Floats
    """[out]; of a convolutional layer [filters]"""


class Normalization(NamedTuple):
    """What a normalisation has learnt: [units]; a batch normalisation of a convolutional layer [filters]."""

    scale: Floats
    bias: Floats
    mean: Floats | None = None
    """Running mean of a batch normalisation."""
    variance: Floats | None = None
    """Running variance (unbiased) of a batch normalisation."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything learnt."""

    connections: tuple[Connection, ...]
    """In the order of `NetworkSpec.connections`."""
    batch_norms: Mapping[str, Normalization] = field(default_factory=dict[str, Normalization])
    """By layer name."""
    layer_norms: Mapping[str, Normalization] = field(default_factory=dict[str, Normalization])
    """By layer name."""
    locked: frozenset[int] = frozenset()
    """Numbers of connections that DSSTNE must not train on; kept for its network file."""
