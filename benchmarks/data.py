"""Made-up ratings shaped as MovieLens 20M, of any size, and the batches every side is fed. NumPy only, since peers
run without the trainer's libraries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_USERS_AT_ONCE = 1 << 14
_FEWEST = 20
"""MovieLens leaves out users who rated less."""
_SPREAD = 1.3
_HEAD, _TAIL = 150, 1.8
"""Popularity is (rank + head)^-tail: the first item has about half of the users, the median item some thirty."""
_REPEATED = 1.1
"""More are drawn than kept: who draws an item twice has it once."""
_FIRST_TIMESTAMP = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How many ratings, and over what. The defaults are MovieLens 20M's."""

    users: int = 138_493
    items: int = 26_744
    per_user: int = 144
    seed: int = 20


@dataclass(frozen=True, slots=True)
class Ratings:
    """Who rated what, as CSR: users × items."""

    indptr: npt.NDArray[np.int64]
    """[users + 1]"""
    indices: npt.NDArray[np.int32]
    """[ratings] items, ascending inside a user, none twice."""
    items: int

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.indptr) - 1


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A batch as coordinates, both [ratings of the batch] int32."""

    indices: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    """Ascending."""
    offsets: npt.NDArray[np.int64]
    """[batch] where each row begins."""


def make_ratings(shape: Shape) -> Ratings:
    """The same ratings for the same shape."""
    rng = np.random.default_rng(shape.seed)
    popularity = (np.arange(shape.items) + _HEAD) ** -_TAIL
    cumulative = np.cumsum(popularity / popularity.sum())
    names = rng.permutation(shape.items)
    fewest = min(_FEWEST, shape.per_user // 2)
    centre = np.log(shape.per_user - fewest) - _SPREAD**2 / 2
    counts = fewest + rng.lognormal(centre, _SPREAD, shape.users)
    counts = np.minimum(counts * _REPEATED, shape.items // 2).astype(np.int64)
    lengths, indices = [], []
    for start in range(0, shape.users, _USERS_AT_ONCE):
        part = counts[start : start + _USERS_AT_ONCE]
        drawn = np.minimum(np.searchsorted(cumulative, rng.random(part.sum())), shape.items - 1)
        keys = np.unique(np.repeat(np.arange(len(part)), part) * shape.items + names[drawn])
        lengths.append(np.bincount(keys // shape.items, minlength=len(part)))
        indices.append((keys % shape.items).astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Ratings(indptr, np.concatenate(indices), shape.items)


def batches(ratings: Ratings, size: int) -> Iterator[Coordinates]:
    """The full batches of `size` users, in order."""
    for first in range(0, ratings.users - size + 1, size):
        ends = ratings.indptr[first : first + size + 1]
        rows = np.repeat(np.arange(size, dtype=np.int32), np.diff(ends))
        yield Coordinates(ratings.indices[ends[0] : ends[-1]], rows, ends[:-1] - ends[0])


def write_text(ratings: Ratings, path: Path) -> None:
    """DSSTNE text as its published benchmark has it: `user TAB item,timestamp:item,timestamp:…`."""
    names = np.array([str(item + 1) for item in range(ratings.items)], dtype=object)
    with path.open("w", encoding="utf-8") as file:
        for user in range(ratings.users):
            mine = names[ratings.indices[ratings.indptr[user] : ratings.indptr[user + 1]]]
            stamp = f",{_FIRST_TIMESTAMP + user}"
            file.write(f"{user + 1}\t{f'{stamp}:'.join(mine)}{stamp}\n")


def write_csv(ratings: Ratings, path: Path) -> None:
    """`ratings.csv` as GroupLens publishes it."""
    names = [f",{item + 1},3.5," for item in range(ratings.items)]
    with path.open("w", encoding="utf-8") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for user in range(ratings.users):
            mine = ratings.indices[ratings.indptr[user] : ratings.indptr[user + 1]].tolist()
            stamp = _FIRST_TIMESTAMP + user
            file.write("".join(f"{user + 1}{names[item]}{stamp}\n" for item in mine))
