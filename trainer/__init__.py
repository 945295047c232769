"""Reads sparse data, trains a network over every device, predicts and measures.

`trainer.Recommender` is the API in ten lines; it is imported when it is first asked for, since it brings JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.recommender import Recommender

__all__ = ["Recommender"]


def __getattr__(name: str) -> Any:
    if name == "Recommender":
        from trainer.recommender import Recommender

        return Recommender
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
