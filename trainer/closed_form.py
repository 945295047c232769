"""The extension `ClosedForm` of a Hidden layer, as a value: a linear layer that is fitted to the data in closed form
instead of being trained.
"""

import json
from dataclasses import dataclass
from itertools import product
from typing import Any

NAMES = {"Ridge": "ridge", "ItemPower": "item_power", "UserPower": "user_power", "Scale": "scale"}
"""Keys of the JSON object, and the fields they are read into."""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """What may be tried for a layer of N units between an Input and an Output of the same features; what is best on
    validation samples is kept, the first of each where there are none. With the samples × features X, D_u and D_i the
    diagonal matrices of its row and column sums, and the N largest singular values s and right vectors V of
    D_u^-UserPower X D_i^-ItemPower, a sample x scores x D_i^-ItemPower V diag(s² / (s² + Ridge · max s²)) Vᵀ
    D_i^ItemPower, times Scale. With powers of 0 this is ridge regression of X on itself, which differs from EASE (Steck
    2019) in the diagonal alone; with powers of ½ it is near the graph filter GF-CF (Shen et al. 2021).
    """

    ridge: tuple[float, ...] = (0.03,)
    item_power: tuple[float, ...] = (0.0,)
    user_power: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    """Of what the layer contributes to the sums of the Output."""

    @property
    def powers(self) -> tuple[tuple[float, float], ...]:
        """Pairs of item power and user power."""
        return tuple(product(self.item_power, self.user_power))

    def to_text(self) -> str:
        """As JSON, for a network file."""
        return json.dumps({key: getattr(self, name) for key, name in NAMES.items()})

    @classmethod
    def of_text(cls, text: str) -> "ClosedForm":
        """What `to_text` wrote; `ValueError` for anything else."""
        told: Any = json.loads(text)
        if not isinstance(told, dict) or set(told) != set(NAMES):
            raise ValueError(f"is {text[:60]!r}; an object of {', '.join(NAMES)} is wanted")
        return cls(**{name: _numbers(told[key]) for key, name in NAMES.items()})


def _numbers(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not values:
        raise ValueError("holds no numbers where some are wanted")
    return tuple(float(value) for value in values)
