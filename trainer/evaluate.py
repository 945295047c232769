"""How good recommendations are: every metric on held-out features, for a network and, beside it, for others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trainer.data.split import HeldOut, answerable, only
from trainer.metrics import measured
from trainer.predict import Ready, question_of, recommend
from trainer.recommends import Recommends
from trainer.referees import fit
from trainer.sparse import SparseDataset

_KS = (10, 100)
_METRICS = ("recall", "precision", "ndcg")


@dataclass(frozen=True, slots=True)
class NetworkRecommender:
    """A network as what `Recommends`: its first `live` output features, for samples that are its input. Features beyond
    its width, which it never met, are neither heard nor recommended.
    """

    ready: Ready
    live: int
    batch_size: int

    def best(self, known: SparseDataset, *, k: int) -> Iterator[npt.NDArray[np.int32]]:
        """As `Recommends` has it."""
        width = self.ready.spec.output.width
        if known.width > width:
            known = replace(only(known, np.asarray(known.indices) < width), width=width)
        question = question_of(self.ready, known)
        for ids, _ in recommend(self.ready, question, k=k, batch_size=self.batch_size, live=self.live):
            yield np.pad(ids, ((0, 0), (0, k - ids.shape[1])), constant_values=-1)


def evaluate(
    ready: Ready, known: SparseDataset, held_out: SparseDataset, *, batch_size: int, live: int
) -> dict[str, float]:
    """`network.ndcg@100`, `popularity.ndcg@100`, …: the means over samples that have held-out features, when
    every sample is asked with its `known` features, those it was trained on, and they are not recommended again.
    """
    asked = answerable(known, held_out)
    if asked.known.samples == 0:
        return {}
    models: dict[str, Recommends] = {
        "network": NetworkRecommender(ready, live, batch_size),
        "popularity": fit("popularity", known, live=live, validation=None, seed=0),
    }
    return {
        f"{model}.{name}": mean
        for model, recommender in models.items()
        for name, mean in _means(recommender, asked, known, live=live).items()
        if name.partition("@")[0] in _METRICS
    }


def _means(recommender: Recommends, asked: HeldOut, training: SparseDataset, *, live: int) -> dict[str, float]:
    lists = recommender.best(asked.known, k=max(_KS))
    return measured(lists, asked.wanted, training, live=live, ks=_KS).means()
