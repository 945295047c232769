"""A made-up dataset in MovieLens' files, of any size, the same bytes for the same seed. There is structure in it:
films belong to styles, users like a few styles and what is popular, and popularity has a long tail. So a
model has something to learn that popularity does not tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.errors import SettingsError
from trainer.filing import replacing

RATINGS_PER_USER = 60.0
_FILMS_A_STYLE = 25
_STYLES_A_USER = 3
_MAINSTREAM = 0.2
"""Share of a user's ratings that goes to popular films of whatever style."""
_TAIL = 0.8
"""Popularity of the film of rank r is r to minus this."""
_FIRST_SECOND = 1_000_000_000
_LONGEST = 3.0
"""Nobody rates more than so many times the mean."""

_GENRES = (
    "Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Horror", "Musical",
    "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_ADJECTIVES = (
    "Silent", "Crimson", "Broken", "Golden", "Hidden", "Last", "Distant", "Burning", "Paper", "Hollow", "Velvet",
    "Northern", "Quiet", "Restless", "Second", "Glass", "Wild", "Forgotten", "Electric", "Long", "Perfect", "Midnight",
    "Scarlet", "Lonely", "Iron", "Salt", "Borrowed", "Invisible", "Bright", "Crooked",
)  # fmt: skip
_NOUNS = (
    "Harbour", "Orchard", "Machine", "Garden", "Station", "Winter", "Letter", "Kingdom", "River", "Witness", "Carnival",
    "Island", "Engine", "Summer", "Mirror", "Bridge", "Stranger", "Lantern", "Colony", "Waltz", "Highway", "Map",
    "Sparrow", "Alibi", "Comet", "Tide", "Detour", "Inheritance", "Signal", "Heist",
)  # fmt: skip
_PLACES = (
    "Lisbon", "Vega", "Montauk", "Kyoto", "Tulsa", "Dover", "Tangier", "Bergen", "Havana", "Oslo", "Nevada", "Trieste",
    "Cairo", "Duluth", "Saturn", "Palermo",
)  # fmt: skip
_PEOPLE = (
    "Clara", "Otis", "Marguerite", "Leo", "Ingrid", "Samir", "Beatrix", "Theo", "Noor", "Walter", "Imogen", "Rafael",
)  # fmt: skip
_PATTERNS = (
    "The {adjective} {noun}", "{noun} of {place}", "{adjective} {noun}", "{person}'s {noun}",
    "The {noun} in {place}", "A {noun} for {person}", "Beyond the {adjective} {noun}", "{person} and the {noun}",
)  # fmt: skip
_WORDS = (
    "atmospheric", "slow", "funny", "dark", "clever", "beautiful", "classic", "twist", "music", "based on a book",
    "visually striking", "overlooked",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Films:
    """Films and the styles they belong to. A style's films are `by_style[first[s]:first[s + 1]]`."""

    style: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    by_style: npt.NDArray[np.int64]
    cumulated: npt.NDArray[np.float64]
    first: npt.NDArray[np.int64]

    @property
    def styles(self) -> int:
        return len(self.first) - 1


def synthesize(
    folder: Path, *, users: int, items: int, seed: int = 1, ratings_per_user: float = RATINGS_PER_USER
) -> None:
    """Write `ratings.csv`, `movies.csv` and `tags.csv` of `users` and `items` to `folder`."""
    if users < 1 or items < 2:
        raise SettingsError(f"--users {users} --items {items}: at least 1 user and 2 items are wanted")
    if seed < 0 or not ratings_per_user > 0:
        raise SettingsError(f"seed {seed}, {ratings_per_user} ratings per user: at least 0 and more than 0 are wanted")
    rng = np.random.default_rng(seed)
    films = _films(rng, items)
    user, item, liked = _interactions(rng, films, users, min(ratings_per_user, items / 4))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "movies.csv", "movieId,title,genres", _movie_lines(rng, films, items))
    _write(folder / "ratings.csv", "userId,movieId,rating,timestamp", _rating_lines(rng, user, item, liked))
    _write(folder / "tags.csv", "userId,movieId,tag,timestamp", _tag_lines(rng, films, user, item))


def _films(rng: np.random.Generator, items: int) -> _Films:
    styles = max(2, items // _FILMS_A_STYLE)
    style = rng.integers(0, styles, items)
    weight = np.power(1.0 + rng.permutation(items), -_TAIL).astype(np.float64)
    by_style = np.argsort(style, kind="stable")
    first = np.searchsorted(style[by_style], np.arange(styles + 1))
    return _Films(style, weight, by_style, np.cumsum(weight[by_style], dtype=np.float64), first)


def _interactions(
    rng: np.random.Generator, films: _Films, users: int, mean: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Who rated what, sorted by user, and whether it is of a style that user likes."""
    wanted = np.clip(rng.gamma(1.5, mean / 1.5, users), 5, _LONGEST * mean).astype(np.int64)
    # Draws repeat themselves; twice as many leave enough once repetitions are dropped.
    drawn = 2 * wanted
    user = np.repeat(np.arange(users), drawn)
    tastes = np.stack([rng.integers(0, films.styles, users) for _ in range(_STYLES_A_USER)], axis=1)
    chosen = tastes[user, np.minimum(rng.geometric(0.5, len(user)) - 1, _STYLES_A_USER - 1)]
    empty = films.first[chosen] == films.first[chosen + 1]
    mainstream = (rng.random(len(user)) < _MAINSTREAM) | empty
    low = np.where(mainstream, 0.0, _before(films, films.first[chosen]))
    high = np.where(mainstream, films.cumulated[-1], _before(films, films.first[chosen + 1]))
    place = np.searchsorted(films.cumulated, low + rng.random(len(user)) * (high - low), side="right")
    item = films.by_style[np.minimum(place, len(films.by_style) - 1)]
    kept = _first_of_each(user, item, wanted)
    liked = (tastes[user] == films.style[item][:, None]).any(axis=1)
    return user[kept], item[kept], liked[kept]


def _before(films: _Films, place: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Weight of all films before a place in `by_style`."""
    return np.where(place > 0, films.cumulated[np.maximum(place - 1, 0)], 0.0)


def _first_of_each(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Places of each user's first `wanted` different items, in order."""
    _, first = np.unique(user * (item.max() + 1) + item, return_index=True)
    places = np.sort(first)
    owner = user[places]
    start = np.searchsorted(owner, np.arange(len(wanted)))
    return places[np.arange(len(places)) - start[owner] < wanted[owner]]


def _movie_lines(rng: np.random.Generator, films: _Films, items: int) -> list[str]:
    # Every style is at home in two genres.
    homes = rng.integers(0, len(_GENRES), (films.styles, 2))
    years = rng.integers(1931, 2025, items)
    lines: list[str] = []
    for number, title in enumerate(_titles(rng, items)):
        genres = sorted({_GENRES[home] for home in homes[films.style[number]]})
        lines.append(f"{number + 1},{title} ({years[number]}),{'|'.join(genres)}")
    return lines


def _titles(rng: np.random.Generator, items: int) -> list[str]:
    """Different titles; those that come again are numbered as sequels."""
    times: dict[str, int] = {}
    titles: list[str] = []
    words = (_PATTERNS, _ADJECTIVES, _NOUNS, _PLACES, _PEOPLE)
    drawn = np.stack([rng.integers(0, len(choice), items) for choice in words], axis=1)
    for pattern, adjective, noun, place, person in drawn.tolist():
        title = _PATTERNS[pattern].format(
            adjective=_ADJECTIVES[adjective], noun=_NOUNS[noun], place=_PLACES[place], person=_PEOPLE[person]
        )
        times[title] = times.get(title, 0) + 1
        titles.append(title if times[title] == 1 else f"{title} {times[title]}")
    return titles


def _rating_lines(
    rng: np.random.Generator,
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    liked: npt.NDArray[np.bool_],
) -> list[str]:
    stars = np.clip(np.round(2 * (rng.normal(3.2, 0.9, len(user)) + 0.7 * liked)) / 2, 0.5, 5.0)
    seconds = _FIRST_SECOND + np.cumsum(rng.integers(1, 600, len(user)))
    columns: Sequence[list[Any]] = (
        (user + 1).tolist(),
        (item + 1).tolist(),
        stars.tolist(),
        seconds.tolist(),
    )
    return [f"{who},{what},{rating},{when}" for who, what, rating, when in zip(*columns, strict=True)]


def _tag_lines(
    rng: np.random.Generator, films: _Films, user: npt.NDArray[np.int64], item: npt.NDArray[np.int64]
) -> list[str]:
    """Every fiftieth rating comes with a tag that fits the film's style."""
    tagged = np.flatnonzero(rng.random(len(user)) < 0.02)
    word = (films.style[item[tagged]] + rng.integers(0, 2, len(tagged))) % len(_WORDS)
    seconds = _FIRST_SECOND + np.cumsum(rng.integers(1, 60_000, len(tagged)))
    return [
        f"{user[place] + 1},{item[place] + 1},{_WORDS[chosen]},{when}"
        for place, chosen, when in zip(tagged.tolist(), word.tolist(), seconds.tolist(), strict=True)
    ]


def _write(path: Path, header: str, lines: Sequence[str]) -> None:
    with replacing(path) as aside:
        aside.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8", newline="\n")
