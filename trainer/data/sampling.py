"""Which units of a sampled Output layer a step looks at: those the batch has, and negatives that all its samples share.
Knows no devices, only the parts that units are dealt to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trainer.deal import Deal
from trainer.network_types import Negatives, Sampling
from trainer.sparse import SampledBatch, SparseBatch, SparseDataset, round_up
from trainer.stored import blocks

_SMALLEST = 16


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws for one layer of one dataset."""

    sampling: Sampling
    deal: Deal
    dataset: SparseDataset
    counts: npt.NDArray[np.int64] | None
    """[units] stored entries of each, or `None` where all are as likely."""
    capacities: dict[str, int] = field(default_factory=dict[str, int])
    """The largest that batches before this one needed: every new one is compiled for."""

    @classmethod
    def of(cls, sampling: Sampling, deal: Deal, dataset: SparseDataset) -> "Sampler":
        """The sampler; goes through the dataset once where it must know what is popular."""
        if sampling.by in (Negatives.UNIFORM, Negatives.GRAM):
            return cls(sampling, deal, dataset, None)
        counts = np.zeros(dataset.width, np.int64)
        for entries in blocks(dataset.indices):
            counts += np.bincount(entries, minlength=dataset.width)
        return cls(sampling, deal, dataset, counts)

    def sampled(self, batch: SparseBatch, seed: Sequence[int]) -> SampledBatch:
        """A dealt batch with its candidates; the same `seed`, the same negatives."""
        own = np.unique(batch.indices[batch.indices < self.deal.stored])
        drawn = self._negatives(own, np.random.default_rng(list(seed)))
        places = self.deal.place(drawn)
        order = np.argsort(places)
        places = places[order]
        every = np.union1d(own, places).astype(np.int64)
        candidates, slot = self._by_part("candidates", every, every, self.deal.stored)
        of_negatives = slot[np.searchsorted(every, places)].astype(np.int64)
        negatives, column = self._by_part("negatives", places, of_negatives, candidates.size)
        weights = np.zeros(negatives.size, np.float32)
        weights[column] = 1.0 / self._chance(drawn[order], len(batch.sample_mask))
        is_real = batch.indices < self.deal.stored
        entries = batch._replace(indices=_found(every, slot, batch.indices, is_real, candidates.size))
        is_negative = is_real & np.isin(batch.indices, places, kind="sort")
        hits = _found(places, column, batch.indices, is_negative, negatives.size)
        return SampledBatch(entries, hits, candidates, negatives, weights.reshape(negatives.shape))

    def _by_part(
        self, name: str, places: npt.NDArray[np.int64], values: npt.NDArray[np.int64], padding: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Values of ascending places as [parts, capacity], and where in that each has come to."""
        part = places // self.deal.size
        sizes = np.bincount(part, minlength=self.deal.parts)
        capacity = self.capacities.get(name, _SMALLEST)
        if (most := int(sizes.max())) > capacity:
            # Three deviations more, for what is still to come.
            most += int(3 * math.sqrt(most))
            capacity = self.capacities[name] = round_up(most, 1 << max((most - 1).bit_length() - 3, 0))
        slot = part * capacity + np.arange(len(places)) - (np.cumsum(sizes) - sizes)[part]
        whole = np.full(self.deal.parts * capacity, padding, np.int32)
        whole[slot] = values
        return whole.reshape(self.deal.parts, capacity), slot

    def _negatives(self, own: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Different units, ascending."""
        if self.sampling.by is Negatives.IN_BATCH:
            return np.sort(self.deal.unit(own).astype(np.int64))
        if self.counts is None or not self.dataset.nnz:
            drawn = rng.integers(0, self.deal.units, self.sampling.count)
        else:
            drawn = self.dataset.indices[np.sort(rng.integers(0, self.dataset.nnz, self.sampling.count))]
        return np.unique(drawn.astype(np.int64))

    def _chance(self, units: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.float64]:
        """How likely each unit is to be among the negatives of a step."""
        if self.counts is None:
            share, draws = np.full(len(units), 1.0 / self.deal.units), self.sampling.count
        elif self.sampling.by is Negatives.IN_BATCH:
            share, draws = self.counts[units] / max(self.dataset.samples, 1), batch
        else:
            share, draws = self.counts[units] / max(self.dataset.nnz, 1), self.sampling.count
        # That not every draw is another's.
        return np.maximum(-np.expm1(draws * np.log1p(-np.minimum(share, 1.0 - 1e-9))), 1e-12)


def _found(
    known: npt.NDArray[np.int64],
    where: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int32],
    is_known: npt.NDArray[np.bool_],
    none: int,
) -> npt.NDArray[np.int32]:
    """`where` the wanted ones among the `known`, ascending, are; `none` for those that are none."""
    found = np.full(wanted.shape, none, np.int32)
    found[is_known] = where[np.searchsorted(known, wanted[is_known])]
    return found
