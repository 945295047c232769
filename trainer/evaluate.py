"""How good recommendations are: recall@k, precision@k and nDCG@k on held-out features, for a network and,
beside it, for popularity.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import referees
from trainer.metrics import Mean, merge_means, ranking_means
from trainer.predict import Question, Ready, recommend
from trainer.sparse import SparseDataset

KS = (10, 100)


def evaluate(
    ready: Ready, known: SparseDataset, held_out: SparseDataset, *, batch_size: int, live: int
) -> dict[str, float]:
    """`network.ndcg@100`, `popularity.ndcg@100`, …: the means over samples that have held-out features, when
    every sample is asked with its `known` features and those are not recommended again.
    """
    k = max(KS)
    question = Question({layer.name: known for layer in ready.spec.inputs}, exclude=known)
    answers = recommend(ready, question, k=k, batch_size=batch_size, live=live)
    network = _means((ids for ids, _ in answers), held_out)
    judge = referees.fit("popularity", known, live=live, validation=None, seed=0)
    popularity = _means(judge.best(known, k=k), held_out)
    return {
        f"{model}.{name}": mean.compute()
        for model, means in (("network", network), ("popularity", popularity))
        for name, mean in means.items()
    }


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
