"""What lists of recommended features are worth, sample by sample: how well they find what is wanted, and how popular
and how new what they list is. Knows ids, not models.

With `hit(r)` 1 if the feature at rank r = 1, 2, … is wanted, else 0, `wanted` the number of features a sample wants,
and `share` of a feature the share of training samples that have it, for each sample:

- recall@k = Σ_{r≤k} hit(r) / wanted.
- capped_recall@k = Σ_{r≤k} hit(r) / min(k, wanted); what Liang et al. (WWW 2018) call Recall@k.
- precision@k = Σ_{r≤k} hit(r) / k.
- ndcg@k = Σ_{r≤k} hit(r) / log2(r + 1), divided by the most it can be, Σ_{r≤min(k, wanted)} 1 / log2(r + 1) (Järvelin &
  Kekäläinen 2002).
- mrr@k = 1 / the rank of the first hit, 0 if it is beyond k (Voorhees 1999).
- map@k = Σ_{r≤k} hit(r) · precision@r / min(k, wanted): average precision, cut at k.
- popularity@k: mean share of the first k (ARP, Yin et al. 2012).
- novelty@k: mean of -log2 share of the first k; a feature that no training sample has counts as if one had it (Zhou et
  al. 2010).

A list shorter than k has no hits beyond its end, and means of what it lists are over its length; of an empty list they
are 0. Of all samples together, coverage@k is the part of all features that is in the first k of any list.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.sparse import SparseDataset

KS = (10, 20, 50, 100)
_Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a recommender's lists are."""

    values: Mapping[str, _Values]
    """[samples] by metric, `ndcg@100` and the like."""
    coverage: Mapping[str, float]
    """By `coverage@k`."""

    def means(self) -> dict[str, float]:
        """Every metric's mean over the samples, coverages last."""
        return {name: float(values.mean()) for name, values in self.values.items()} | dict(self.coverage)

    def standard_error(self, name: str) -> float | None:
        """Of a metric's mean; `None` where it has none."""
        values = self.values.get(name)
        return None if values is None or len(values) < 2 else float(values.std(ddof=1) / np.sqrt(len(values)))


def measured(
    lists: Iterable[npt.NDArray[np.int32]],
    wanted: SparseDataset,
    training: SparseDataset,
    *,
    live: int,
    ks: Sequence[int] = KS,
) -> Measured:
    """Every metric of `lists`, whose blocks [rows, ranks] have the id of one of the first `live` features for each
    rank, negative where there is none, and together a row for each one of `wanted`; each of those wants something.
    """
    parts: list[dict[str, _Values]] = []
    listed = {k: np.zeros(live, bool) for k in ks}
    worths = _worths(training, live=live)
    row = 0
    for ids in lists:
        counts = np.diff(wanted.indptr[row : row + len(ids) + 1])
        found = ranking_values(hits(ids, wanted, first=row), counts, ks=ks)
        parts.append(found | listing_values(ids, worths, ks=ks))
        for k in ks:
            listed[k][ids[:, :k][ids[:, :k] >= 0]] = True
        row += len(ids)
    if row != wanted.samples:
        raise ValueError(f"there are lists for {row} samples of {wanted.samples}")
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    return Measured(values, {f"coverage@{k}": float(found.mean()) for k, found in listed.items()})


def hits(ids: npt.NDArray[np.int32], wanted: SparseDataset, *, first: int = 0) -> npt.NDArray[np.bool_]:
    """Whether each of `ids` [rows, k] is wanted by its sample; the first sample is row `first` of `wanted`."""
    ends = wanted.indptr[first : first + len(ids) + 1]
    rows = np.arange(len(ids))
    pairs = np.repeat(rows, np.diff(ends)) * wanted.width + wanted.indices[ends[0] : ends[-1]]
    return np.isin(rows[:, None] * wanted.width + ids, pairs) & (ids >= 0)


def ranking_values(
    found: npt.NDArray[np.bool_], wanted: npt.NDArray[Any], *, ks: Sequence[int] = KS
) -> dict[str, _Values]:
    """[samples] by metric: how well `found` [samples, ranks], the hits, finds as many features as are `wanted`
    [samples], at least 1 each.
    """
    ranks = np.arange(1, max(found.shape[1], *ks) + 1)
    found = np.pad(found, ((0, 0), (0, len(ranks) - found.shape[1])))
    discount = 1.0 / np.log2(ranks + 1)
    # [samples, ranks] what the ranks up to each add up to
    number, gained = found.cumsum(axis=1), (found * discount).cumsum(axis=1)
    precise = (found * number / ranks).cumsum(axis=1)
    best = discount.cumsum()
    first = np.where(found.any(axis=1), found.argmax(axis=1) + 1, np.inf)
    values: dict[str, _Values] = {}
    for k in ks:
        most = np.minimum(wanted, k)
        values |= {
            f"recall@{k}": number[:, k - 1] / wanted,
            f"capped_recall@{k}": number[:, k - 1] / most,
            f"precision@{k}": number[:, k - 1] / k,
            f"ndcg@{k}": gained[:, k - 1] / best[most - 1],
            f"mrr@{k}": np.where(first <= k, 1.0 / first, 0.0),
            f"map@{k}": precise[:, k - 1] / most,
        }
    return values


def listing_values(
    ids: npt.NDArray[np.int32], worths: Mapping[str, _Values], *, ks: Sequence[int] = KS
) -> dict[str, _Values]:
    """[samples] by metric: the mean worth of what the first k of `ids` [samples, ranks] are, for each of `worths`
    [features] by name.
    """
    values: dict[str, _Values] = {}
    for k in ks:
        there = ids[:, :k] >= 0
        number = np.maximum(there.sum(axis=1), 1)
        for name, worth in worths.items():
            values[f"{name}@{k}"] = np.where(there, worth[ids[:, :k]], 0.0).sum(axis=1) / number
    return values


def _worths(training: SparseDataset, *, live: int) -> dict[str, _Values]:
    """Share of the training samples, and surprise in bits, of each of the first `live` features."""
    counts, samples = np.bincount(training.indices, minlength=live)[:live], max(training.samples, 1)
    return {"popularity": counts / samples, "novelty": -np.log2(np.maximum(counts, 1) / samples)}
