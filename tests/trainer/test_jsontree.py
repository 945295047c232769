from pathlib import Path

import pytest

from trainer.errors import NetworkError
from trainer.jsontree import Node, read_json


def read(folder: Path, text: str, *, encoding: str = "utf-8") -> Node:
    path = folder / "tree.json"
    path.write_bytes(text.encode(encoding))
    return read_json(path)


def test_comments_are_skipped_and_strings_that_look_like_them_kept(tmp_path: Path) -> None:
    text = '/* a\n"b" */ {"url": "http://x/*y*/", // c "d"\n "e": "\\"//"}'
    assert read(tmp_path, text).value == {"url": "http://x/*y*/", "e": '"//'}


def test_a_byte_order_mark_and_text_after_the_value_are_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, "[1] rest", encoding="utf-8-sig").value == [1]


def test_a_syntax_error_below_a_long_comment_names_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"tree\.json:4: not JSON: .*\(column 7\)"):
        read(tmp_path, '/* one\ntwo */\n{"a": 1,\n  "b" 2}')


def test_what_is_no_text_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="is not UTF-8 text"):
        read(tmp_path, "é", encoding="latin-1")
    with pytest.raises(NetworkError, match=r"nowhere\.json: cannot be read: No such file"):
        read_json(tmp_path / "nowhere.json")


def test_values_know_their_path(tmp_path: Path) -> None:
    root = read(tmp_path, '{"A": [{"b": "x"}]}')
    element = root.members(["a"]).nodes["a"].items()[0]
    assert element.members(["B"]).nodes["B"].path == "$.A[0].b"


def test_numbers_and_truth_values_stand_for_each_other(tmp_path: Path) -> None:
    members = read(tmp_path, '{"yes": 2, "no": 0, "one": true}').members(["yes", "no", "one"])
    assert members.flag("yes", False)
    assert not members.flag("no", True)
    assert members.number("one", 0.0) == 1.0
    assert members.flag("absent", True)


def test_of_two_spellings_of_an_object_the_members_of_both_count(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"Both": {"one": 1, "Two": 2}, "both": {"ONE": 3}, "Other": 4, "other": 5}')
    members = read_json(path).members(["Both", "Other"])
    found = members.nodes["Both"].members(["one", "two"])
    assert (found.number("one", 0), found.number("two", 0)) == (3, 2)
    assert members.number("Other", 0) == 5
