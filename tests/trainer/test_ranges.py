"""Open values of a network: what may be chosen, and what is no range."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import NetworkError
from trainer.jsontree import Node
from trainer.network import read_tree
from trainer.ranges import closed, open_values

SHARES = np.linspace(0, 1, 2001, endpoint=False).tolist()


def tree(folder: Path, value: Any) -> Node:
    path = folder / "ranges.json"
    path.write_text(f"// open\n{json.dumps(value)}", encoding="utf-8")
    return read_tree(path)


@pytest.mark.parametrize(
    ("written", "least", "most", "different"),
    [
        ({"Choice": ["a", None, [1]]}, "a", [1], 3),
        ({"Range": [1, 4]}, 1, 4, 4),
        ({"range": [100, 1000], "step": 100}, 100, 1000, 10),
        ({"Range": [0.1, 0.7], "Step": 0.3}, 0.1, 0.7, 3),
        ({"Range": [1, 1000], "Scale": "log"}, 1, 1000, None),
        ({"Range": [1e-4, 1e-1], "Scale": "LOG"}, 1e-4, 1e-1, None),
        ({"Range": [0.0, 2.5]}, 0.0, 2.5, None),
    ],
)
def test_every_value_of_a_range_can_be_chosen_and_no_other(
    tmp_path: Path, written: Any, least: Any, most: Any, different: int | None
) -> None:
    (one,) = open_values(tree(tmp_path, {"A": [{"b": written}]}))
    assert (one.path, one.place) == ("$.A[0].b", ("A", 0, "b"))
    assert one.ends[0] == least
    assert one.ends[1] == pytest.approx(most) if isinstance(most, float) else one.ends[1] == most
    found = [one.pick(share) for share in SHARES]
    if different is None:
        assert all(least <= value <= most for value in found)
        assert len(set(found)) > 100
        assert {type(value) for value in found} == {type(least)}
    else:
        counts = np.unique([json.dumps(value) for value in found], return_counts=True)[1]
        assert len(counts) == different
        assert counts.max() - counts.min() <= 2, "each is as likely"


def test_a_log_scale_gives_every_decade_as_much_room(tmp_path: Path) -> None:
    (one,) = open_values(tree(tmp_path, {"Range": [0.001, 1.0], "Scale": "log"}))
    decades = np.floor(np.log10([one.pick(share) for share in SHARES])).astype(int)
    assert np.abs(np.bincount(decades + 3)[:3] - len(SHARES) / 3).max() <= 2


def test_closing_fills_in_values_and_leaves_the_rest(tmp_path: Path) -> None:
    root = tree(tmp_path, {"x": {"Choice": [1, 2]}, "y": [{"Range": [0, 9]}, "kept"], "z": {"w": 1}})
    filled = closed(root, {one.place: place for place, one in enumerate(open_values(root))})
    assert filled.value == {"x": 0, "y": [1, "kept"], "z": {"w": 1}}
    assert root.value["x"] == {"Choice": [1, 2]}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"Range": [1]}, "$.a.Range: an array of two numbers is wanted, as [0.001, 0.1]"),
        ({"Range": [2, 1]}, "$.a.Range: 1 is not above 2"),
        ({"Range": [0, 1], "Scale": "log"}, "$.a.Range: a log Scale needs numbers above 0"),
        ({"Range": [1, 2], "Scale": "logs"}, "$.a.Scale: unknown scale: logs; did you mean log?"),
        ({"Range": [1, "2"]}, "$.a.Range[1]: a number is wanted, not the string '2'"),
        ({"Range": [1, 2], "Scale": "log", "Step": 1}, "$.a.Step: a range with a log Scale has no Step"),
        ({"Range": [1, 2], "Step": 0}, "$.a.Step: a number above 0 is wanted"),
        ({"Choice": []}, "$.a.Choice: an array of at least one value is wanted"),
        ({"Choice": [1], "Step": 1}, "$.a: a Choice has no Range, Scale or Step"),
        ({"Choice": [1], "Steps": 1}, "$.a.Steps: unknown key; did you mean Step?"),
    ],
)
def test_what_is_no_range_is_refused_by_its_path(tmp_path: Path, written: Any, message: str) -> None:
    with pytest.raises(NetworkError) as caught:
        open_values(tree(tmp_path, {"a": written}))
    assert str(caught.value) == f"{tmp_path / 'ranges.json'}: {message}"


def test_a_network_with_nothing_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"\$: nothing is open: write"):
        open_values(tree(tmp_path, {"Name": "all closed"}))
