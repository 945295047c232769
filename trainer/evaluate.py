"""How good recommendations are: recall@k, precision@k and nDCG@k on held-out features, for a network and,
beside it, for popularity.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.metrics import Mean, merge_means, ranking_means
from trainer.predict import Ready, question_of, recommend
from trainer.sparse import SparseDataset

KS = (10, 100)
_ROWS = 1024


def evaluate(
    ready: Ready, known: SparseDataset, held_out: SparseDataset, *, batch_size: int, live: int
) -> dict[str, float]:
    """`network.ndcg@100`, `popularity.ndcg@100`, …: the means over samples that have held-out features, when
    every sample is asked with its `known` features and those are not recommended again.
    """
    k = max(KS)
    answers = recommend(ready, question_of(ready, known), k=k, batch_size=batch_size, live=live)
    network = _means((ids for ids, _ in answers), held_out)
    popularity = _means(popular(known, k=k, live=live), held_out)
    return {
        f"{model}.{name}": mean.compute()
        for model, means in (("network", network), ("popularity", popularity))
        for name, mean in means.items()
    }


def popular(known: SparseDataset, *, k: int, live: int) -> Iterator[npt.NDArray[np.int32]]:
    """Ids [rows, k] of the features that most samples have and this one has not; ties by lower id."""
    counts = np.bincount(known.indices, minlength=live)[:live]
    best_first = np.argsort(-counts, kind="stable").astype(np.int32)
    place = np.empty(live, np.int64)
    place[best_first] = np.arange(live)
    for start in range(0, known.samples, _ROWS):
        rows = range(start, min(start + _ROWS, known.samples))
        yield np.stack([_unseen(best_first, place[_row(known, row)], k) for row in rows])


def _unseen(best_first: npt.NDArray[np.int32], seen: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int32]:
    reach = min(k + len(seen), len(best_first))
    kept = np.ones(reach, bool)
    kept[seen[seen < reach]] = False
    found = best_first[:reach][kept][:k]
    return np.pad(found, (0, k - len(found)), constant_values=-1)


def _means(answers: Iterator[npt.NDArray[Any]], held_out: SparseDataset) -> Mapping[str, Mean]:
    means: dict[str, Mean] = {}
    row = 0
    for ids in answers:
        wanted: Sequence[npt.NDArray[Any]] = [_row(held_out, row + place) for place in range(len(ids))]
        found = ranking_means(ids, wanted, ks=KS)
        means = merge_means(means, found) if means else dict(found)
        row += len(ids)
    return means


def _row(dataset: SparseDataset, row: int) -> npt.NDArray[np.uint32]:
    return dataset.indices[dataset.indptr[row] : dataset.indptr[row + 1]]
