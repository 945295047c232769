"""Baselines a network is measured beside: each learns from the training part alone and recommends to any sample by what
is known of it, seen in training or not. NumPy and SciPy, no JAX. What is stored counts as liked, whatever its value.
"""

from collections.abc import Callable
from typing import Any

from trainer.data.split import HeldOut
from trainer.errors import InputError, SettingsError
from trainer.referees import bpr, ease, ials, itemknn, popularity
from trainer.referees.choosing import Choosing
from trainer.referees.interactions import interactions
from trainer.referees.ranking import Referee
from trainer.sparse import SparseDataset

_FITS: dict[str, Callable[[Any, Choosing, int], Referee]] = {
    "popularity": popularity.fit,
    "itemknn": itemknn.fit,
    "ease": ease.fit,
    "ials": ials.fit,
    "bpr": bpr.fit,
}
NAMES = tuple(_FITS)


def fit(
    name: str,
    training: SparseDataset,
    *,
    live: int,
    validation: HeldOut | None,
    seed: int,
    again: SparseDataset | None = None,
) -> Referee:
    """The baseline `name`, learnt from `training`, of whose columns the first `live` are features.

    Where there is a `validation`, settings are those of the module's grid with the best nDCG@100 on it, else the
    module's defaults. With `again` it learns anew from that, with the same settings.

    Raises `SettingsError` for a name not in `NAMES`, and `InputError` where nothing is stored, which
    is enough for popularity alone.
    """
    if name not in _FITS:
        raise SettingsError(f"baseline {name!r}: there is none of that name; choose among {', '.join(NAMES)}")
    matrix = interactions(training, live=live)
    if not matrix.nnz and name != "popularity":
        raise InputError(f"baseline {name}: the training part of {training.name!r} stores nothing to learn from")
    choosing = Choosing(validation)
    if again is None:
        return _FITS[name](matrix, choosing, seed)
    # Called for what it chooses; only the second one is kept.
    _FITS[name](matrix, choosing, seed)
    return _FITS[name](interactions(again, live=live), choosing, seed)
