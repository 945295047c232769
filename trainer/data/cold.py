"""Hides whole features: what a recommender is measured with that is to recommend what nobody has yet."""

from dataclasses import replace

import numpy as np

from trainer.data.split import HeldOut
from trainer.sparse import SparseDataset


def hide_items(dataset: SparseDataset, *, fraction: float, seed: int) -> HeldOut:
    """All that samples have of a `fraction` of the features that occur, at least one of them, chosen by `seed`, is
    wanted; the rest is known. The cold features are those of `wanted`.
    """
    indices = np.asarray(dataset.indices)
    there = np.unique(indices)
    count = min(len(there), max(1, round(fraction * len(there))))
    cold = np.random.default_rng(seed).permutation(there)[:count]
    is_cold = np.isin(indices, cold)
    parts = [
        replace(
            dataset,
            indptr=np.concatenate([[0], np.cumsum(kept)])[dataset.indptr],
            indices=indices[kept],
            values=None if dataset.values is None else dataset.values[kept],
        )
        for kept in (~is_cold, is_cold)
    ]
    return HeldOut(*parts)
