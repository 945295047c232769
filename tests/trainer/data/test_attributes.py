"""Tables of attributes become items × attributes, weighted as by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from trainer.data.attributes import attribute_tables, read_attributes
from trainer.errors import DataError
from trainer.sparse import FeatureIndex, SparseDataset

ITEMS = FeatureIndex({"10": 0, "20": 1, "30": 2})


def rows_of(attributes: SparseDataset) -> dict[str, dict[str, float]]:
    names = attributes.features.names() if attributes.features else []
    values = np.asarray(attributes.values)
    found: dict[str, dict[str, float]] = {}
    for row, item in enumerate(attributes.sample_names or ()):
        mine = slice(attributes.indptr[row], attributes.indptr[row + 1])
        found[item] = {
            names[int(n)]: float(value) for n, value in zip(attributes.indices[mine], values[mine], strict=True)
        }
    return found


def table(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_weights_are_those_of_a_hand_computation(tmp_path: Path):
    text = "item,attribute,weight\n10,Space,2\n10,dark,1\n20,space ,1\n20,dark,0.5\n30,SPACE,1\n30,alone,7\n"
    found = rows_of(read_attributes([table(tmp_path, "a.csv", text)], ITEMS))
    # Of 3 items 3 have space and 2 dark; alone is of one item only.
    space, dark = math.log(4 / 4) + 1, math.log(4 / 3) + 1
    length = math.hypot(2 * space, dark)
    assert found["10"] == pytest.approx({"space": 2 * space / length, "dark": dark / length})
    assert found["20"] == pytest.approx(
        {"space": space / math.hypot(space, dark / 2), "dark": dark / 2 / math.hypot(space, dark / 2)}
    )
    assert found["30"] == pytest.approx({"space": 1.0})
    damped = rows_of(read_attributes([tmp_path / "a.csv"], ITEMS, sublinear=True))
    assert damped["10"]["space"] / damped["10"]["dark"] == pytest.approx((1 + math.log(2)) * space / dark)
    assert damped["20"] == pytest.approx(found["20"])


def test_movielens_tags_genres_and_decades_are_attributes_and_unrated_films_follow_the_rated(tmp_path: Path):
    table(
        tmp_path,
        "movies.csv",
        'movieId,title,genres\r\n99,"Last, The (1994)",Drama|War\r\n20,B (1999),Drama\r\n10,C (2001),War\r\n'
        "30,D,(no genres listed)\r\n",
    )
    table(tmp_path, "tags.csv", "userId,movieId,tag,timestamp\n1,10,Slow: very,5\n2,30,slow  VERY,6\n")
    attributes = read_attributes(attribute_tables(tmp_path), ITEMS, at_least=1)
    found = rows_of(attributes)
    assert list(found) == ["10", "20", "30", "99"]
    assert {item: set(own) for item, own in found.items()} == {
        "10": {"war", "2000s", "slow very"},
        "20": {"drama", "1990s"},
        "30": {"slow very"},
        "99": {"drama", "war", "1990s"},
    }
    # What an index names is kept by its ids, whatever the tables have come to.
    assert attributes.features is not None
    index = FeatureIndex({"war": 0, "gone": 1})
    assert rows_of(read_attributes(attribute_tables(tmp_path), ITEMS, index=index))["99"] == {"war": 1.0}


def test_flags_of_the_older_tables_are_genres(tmp_path: Path):
    table(tmp_path, "u.genre", "unknown|0\nAction|1\nWar|2\n\n")
    table(tmp_path, "u.item", "10|A (1995)|01-Jan-1995||http|0|1|0\n20|B (1995)|||http|0|1|1\n")
    assert set(rows_of(read_attributes([tmp_path / "u.item"], ITEMS))["20"]) == {"action", "1990s"}
    table(tmp_path, "movies.dat", "10::A::B (1995)::Drama\n")
    with pytest.raises(DataError, match=r"movies.dat:1: item::title::genre"):
        read_attributes([tmp_path / "movies.dat"], ITEMS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item,attribute,weight\n10,dark,1\n\n20,dark,heavy\n", r"a.csv:4: weight 'heavy' is no number"),
        ("item,attribute,weight\n10,dark,-1\n", r"a.csv:2: weight '-1' is no number of at least 0"),
        ("item,attribute\n10\n", r"a.csv:2: item,attribute is wanted, not '10'"),
        ('item,attribute\n10,"dark\n', r"a.csv:2: is no line of CSV"),
        ("item\n10\n", r"a.csv:1: a header item,attribute"),
        ("", r"a.csv:1: a header item,attribute"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str):
    with pytest.raises(DataError, match=said):
        read_attributes([table(tmp_path, "a.csv", text)], ITEMS)
