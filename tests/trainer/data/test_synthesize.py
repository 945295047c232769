import csv
from pathlib import Path
from typing import Any

import pytest

from trainer.data.load import load_data
from trainer.data.synthesize import synthesize
from trainer.errors import SettingsError


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_every_user_and_film_is_one_and_titles_differ(tmp_path: Path):
    synthesize(tmp_path, users=50, items=900)
    ratings, films = rows(tmp_path / "ratings.csv"), rows(tmp_path / "movies.csv")
    assert [film[0] for film in films] == [str(number) for number in range(1, 901)]
    assert len({film[1] for film in films}) == 900
    pairs = [(user, item) for user, item, *_ in ratings]
    assert len(set(pairs)) == len(pairs)
    assert {user for user, _ in pairs} == {str(number) for number in range(1, 51)}
    assert {item for _, item in pairs} <= {film[0] for film in films}
    assert all(0.5 <= float(stars) <= 5 and (2 * float(stars)).is_integer() for _, _, stars, _ in ratings)
    tags = rows(tmp_path / "tags.csv")
    assert tags
    assert {(user, item) for user, item, *_ in tags} <= set(pairs)


@pytest.mark.parametrize(("users", "items", "mean"), [(1, 2, 60.0), (1, 40, 60.0), (30, 3, 1.0), (2, 30, 1e9)])
def test_the_smallest_sizes_are_data_too(tmp_path: Path, users: int, items: int, mean: float):
    synthesize(tmp_path, users=users, items=items, ratings_per_user=mean)
    loaded = load_data(tmp_path)
    assert loaded.dataset.samples == users
    assert len(loaded.titles) == items


def test_the_mean_number_of_ratings_is_about_what_is_asked(tmp_path: Path):
    synthesize(tmp_path, users=300, items=2000, ratings_per_user=40.0)
    assert 30 <= load_data(tmp_path).dataset.nnz / 300 <= 45


@pytest.mark.parametrize(
    "sizes",
    [
        {"users": 0, "items": 5},
        {"users": 5, "items": 1},
        {"users": 5, "items": 9, "seed": -1},
        {"users": 5, "items": 9, "ratings_per_user": 0.0},
        {"users": 5, "items": 9, "ratings_per_user": float("nan")},
    ],
)
def test_sizes_that_make_no_data_are_refused_before_anything_is_written(tmp_path: Path, sizes: dict[str, Any]):
    with pytest.raises(SettingsError, match="wanted"):
        synthesize(tmp_path / "data", **sizes)
    assert not (tmp_path / "data").exists()
