"""Ranking metrics on held-out features, as mergeable sums and counts. Knows ids, not models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean as its sum and count."""

    total: float = 0.0
    count: int = 0

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both."""
        return Mean(self.total + other.total, self.count + other.count)

    def compute(self) -> float:
        """The mean; 0 over nothing."""
        return self.total / self.count if self.count else 0.0


def ranking_means(ids: npt.NDArray[Any], held_out: Sequence[npt.NDArray[Any]], *, ks: Sequence[int]) -> dict[str, Mean]:
    """recall@k, precision@k and ndcg@k for each of `ks`, over the samples that have held-out features.

    `ids` is [batch, at least max k], best first, negative where there is none; `held_out` has one array of
    distinct ids a sample. recall@k = hits / held-out. precision@k = hits / k. ndcg@k: gain 1 for a hit at rank
    r, discount 1 / log2(r + 1), divided by the best possible with min(k, held-out) hits
    (Järvelin & Kekäläinen 2002).
    """
    counts = np.array([len(wanted) for wanted in held_out])
    counted = counts > 0
    hits = np.stack([np.isin(row, wanted) for row, wanted in zip(ids, held_out, strict=True)])
    hits = hits & (ids >= 0)
    discount = 1.0 / np.log2(np.arange(2, ids.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    means: dict[str, Mean] = {}
    for k in ks:
        found = hits[:, :k]
        gained = (found * discount[: found.shape[1]]).sum(axis=1)
        best = ideal[np.minimum(np.minimum(counts, k), len(discount))]
        values = {
            "recall": found.sum(axis=1) / np.maximum(counts, 1),
            "precision": found.sum(axis=1) / k,
            "ndcg": gained / np.where(counted, best, 1.0),
        }
        for name, value in values.items():
            means[f"{name}@{k}"] = Mean(float(value[counted].sum()), int(counted.sum()))
    return means


def merge_means(first: Mapping[str, Mean], second: Mapping[str, Mean]) -> dict[str, Mean]:
    """The means over both, name by name."""
    return {name: first.get(name, Mean()).merge(second.get(name, Mean())) for name in dict.fromkeys([*first, *second])}
