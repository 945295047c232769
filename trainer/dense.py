"""The dense counterpart of `sparse`: every unit of every sample has a value. NumPy only."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.stored import Stored


@dataclass(frozen=True, slots=True)
class DenseDataset:
    """A named matrix, rows × units, as it is stored: bytes stay bytes until a batch is made of them."""

    name: str
    sides: tuple[int, ...]
    """Width, height, length, as far as it has dimensions."""
    values: npt.NDArray[Any] | Stored
    """[rows, units] of any numeric type; or [rows] unit of each row's single 1, where `one_hot`."""
    one_hot: bool = False
    divisor: float = 1.0
    """What stored values are divided by: 256 or 128 for bytes, which are fixed-point."""
    input_offset: float = 0.0
    """Added, as an input only, after the division."""
    weights: npt.NDArray[np.float32] | None = None
    """[samples] weight of each sample, or `None` where all weigh 1."""
    rows: npt.NDArray[np.int64] | None = None
    """[samples] row each sample uses (DSSTNE's Indexed), or `None` where sample `i` is row `i`."""

    @property
    def width(self) -> int:
        """Number of units."""
        return math.prod(self.sides)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.values) if self.rows is None else len(self.rows)


class DenseBatch(NamedTuple):
    """A batch of samples, every unit given; a pytree unawares. Dealt to shards by sample."""

    values: Any
    """float32 [batch, units]; padding samples are 0."""
    sample_mask: Any
    """float32 [batch], 1 for a real sample, 0 for padding."""
    weights: Any = None
    """float32 [batch] weight of each sample, or `None` where all weigh 1."""
