"""Ids of names a block at a time: a table of a single probe for what is frequent, a dictionary for the rest."""

import numpy as np
import numpy.typing as npt

from trainer.data.blocks import Words, mixed, texts

_SPREADER = np.uint64(0xD6E8FEB86659FD93)
_FEWEST_BITS = 12
_UNKNOWN = -1

Ids = npt.NDArray[np.int64]


class Lookup:
    """The ids of `names`; with `update` unknown names are given the next ones, in order of appearance."""

    def __init__(self, names: dict[str, int], *, update: bool) -> None:
        self._names, self._update = names, update
        self._clear(_FEWEST_BITS)

    def find(self, words: Words) -> Ids:
        """Id of each name, [pieces]; -1 where it is unknown."""
        first, second = words[:, 0], words[:, 1] if words.shape[1] > 1 else np.uint64(0)
        slot = self._slots(words)
        ids = self._ids[slot].copy()
        hit = (self._first[slot] == first) & (self._second[slot] == second) & self._taken[slot]
        missed = np.flatnonzero(~hit)
        if len(missed):
            ids[missed] = self._find_slowly(words[missed])
        return ids

    def _find_slowly(self, words: Words) -> Ids:
        _, where, inverse = np.unique(mixed(words), return_index=True, return_inverse=True)
        if (words[where][inverse] != words).any():
            # Two names of one number: let each speak for itself.
            return np.array([self._id_of(name) for name in texts(words)], np.int64)
        order = np.argsort(where)
        found = np.empty(len(where), np.int64)
        found[order] = [self._id_of(name) for name in texts(words[where[order]])]
        self._learn(words[where], found)
        return found[inverse]

    def _id_of(self, name: str) -> int:
        known = self._names.get(name)
        if known is None:
            if not self._update:
                return _UNKNOWN
            known = self._names[name] = len(self._names)
        return known

    def _learn(self, words: Words, ids: Ids) -> None:
        while 4 * (self._count + len(ids)) > len(self._ids):
            # What was learnt is learnt again as it comes.
            self._clear(len(self._ids).bit_length())
        slot = self._slots(words)
        free = ~self._taken[slot]
        slot, words, ids = slot[free], words[free], ids[free]
        self._first[slot], self._ids[slot], self._taken[slot] = words[:, 0], ids, True
        self._second[slot] = words[:, 1] if words.shape[1] > 1 else 0
        # Of two that came for one slot the last is there, whole.
        self._count = int(self._taken.sum())

    def _slots(self, words: Words) -> npt.NDArray[np.intp]:
        return ((mixed(words) * _SPREADER) >> self._shift).astype(np.intp)

    def _clear(self, bits: int) -> None:
        size = 1 << bits
        self._shift = np.uint64(64 - bits)
        self._first, self._second = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self._ids, self._taken = np.zeros(size, np.int64), np.zeros(size, bool)
        self._count = 0
