"""What of every batch one of several processes makes: the samples of its devices' data shards, and of layers that are
dealt the entries of its devices' parts. How large a batch's arrays are, all processes know without asking each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.data.netcdf import Dataset
from trainer.deal import Deal
from trainer.sparse import Share, SparseDataset
from trainer.stored import ENTRIES_AT_ONCE

_NO_DEALS: Mapping[str, Deal] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Slices:
    """The share of a process, and the entries that every row has in each part, by `id` of a dataset and its deal."""

    share: Share
    counts: Mapping[tuple[int, Deal], npt.NDArray[np.unsignedinteger[Any]]]
    """[rows, parts] each."""

    @classmethod
    def of(
        cls, share: Share | None, roles: Iterable[Mapping[str, Dataset]] = (), deals: Mapping[str, Deal] = _NO_DEALS
    ) -> "Slices | None":
        """Goes once through every sparse dataset of a layer that is dealt; `None` without a share."""
        if share is None:
            return None
        counts: dict[tuple[int, Deal], npt.NDArray[np.unsignedinteger[Any]]] = {}
        for role in roles:
            for name, dataset in role.items():
                deal = deals.get(name)
                if deal is not None and isinstance(dataset, SparseDataset) and (id(dataset), deal) not in counts:
                    counts[id(dataset), deal] = part_counts(dataset, deal)
        return cls(share, counts)

    def samples(self, batch: int, shards: int) -> slice:
        """Those of a batch of `shards` that the process makes."""
        of_shard = batch // shards
        return slice(self.share.first_shard * of_shard, (self.share.first_shard + self.share.shards) * of_shard)

    def fullest(self, dataset: SparseDataset, deal: Deal, rows: npt.NDArray[np.int64], of_shard: int) -> int:
        """Entries of the fullest part of any shard of a batch of stored `rows`, `of_shard` to a shard."""
        counts = self.counts[id(dataset), deal][rows].astype(np.int64)
        # [samples, parts] -> [shards that have samples, parts]
        return int(np.add.reduceat(counts, np.arange(0, len(rows), of_shard)).max())


def part_counts(dataset: SparseDataset, deal: Deal) -> npt.NDArray[np.unsignedinteger[Any]]:
    """How many entries each stored row has in each part of the units, [rows, parts]."""
    lengths = np.diff(dataset.indptr)
    counts = np.zeros((len(lengths), deal.parts), np.min_scalar_type(int(lengths.max(initial=0))))
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(dataset.indptr, dataset.indptr[first] + ENTRIES_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        features = dataset.indices[int(dataset.indptr[first]) : int(dataset.indptr[last])].astype(np.int64)
        row = np.repeat(np.arange(last - first), lengths[first:last])
        found = np.bincount(row * deal.parts + features % deal.parts, minlength=(last - first) * deal.parts)
        counts[first:last] = found.reshape(last - first, deal.parts)
        first = last
    return counts
