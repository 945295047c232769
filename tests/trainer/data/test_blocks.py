"""Text taken apart by blocks is what the reader of single lines makes of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data import blocks
from trainer.data.blocks import read_blocks, take_apart
from trainer.data.lookup import Lookup
from trainer.data.text import Converted, Reading, convert_text
from trainer.sparse import FeatureIndex

NAMES = st.one_of(
    st.integers(0, 400).map(str),
    st.sampled_from(
        ["a", "ab", "abcdefgh", "abcdefghi", "abcdefghijklmnop", "abcdefghijklmnopq", "é", "x y", "0", "00"]
    ),
)
VALUES = st.one_of(
    st.just(""),
    st.sampled_from([",1", ",0.5", ",978300760", ",123456.789", ",.5", ",5.", ",1e3", ",-2", ",3abc", ",1.2.3", ","]),
    st.floats(0, 1e6, allow_nan=False).map(lambda value: f",{value:.3f}"),
)
PIECES = st.lists(st.tuples(NAMES, VALUES).map("".join), max_size=6).map(":".join)
LINES = st.lists(st.tuples(NAMES, st.sampled_from(["\t", "\t", "\t", ""]), PIECES).map("".join), max_size=12)
TEXTS = st.tuples(LINES, st.sampled_from(["\n", "\n", "\n", "\r\n"]), st.booleans()).map(
    lambda parts: parts[1].join(parts[0]) + ("\n" if parts[2] else "")
)


def converted(path: Path, reading: Reading, known: FeatureIndex | None) -> tuple[object, ...]:
    told: list[str] = []
    reading = Reading(reading.update, reading.analog, reading.strict, reading.hidden, told.append)
    found: Converted = convert_text(path, name="x", features=known, reading=reading)
    values = found.dataset.values
    return (
        found.features.ids,
        found.samples.ids,
        found.dataset.indptr.tolist(),
        found.dataset.indices.tolist(),
        None if values is None else values.tolist(),
        [line for line in told if not line.startswith("Progress")],
    )


def answer(path: Path, reading: Reading, known: FeatureIndex | None) -> object:
    try:
        return converted(path, reading, known)
    except ValueError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever the one reader raises the other must raise
        return (type(error), str(error))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, analog=st.booleans(), fixed=st.booleans(), block=st.sampled_from([8, 40, 1 << 20]))
def test_blocks_say_what_single_lines_say(tmp_path: Path, *, text: str, analog: bool, fixed: bool, block: int) -> None:
    path = tmp_path / "samples.txt"
    path.write_bytes(text.encode())
    known = FeatureIndex({"1": 7, "abcdefghi": 2, "a": 0}) if fixed else None
    reading = Reading(analog=analog)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block)
        quick = answer(path, reading, known)
        patch.setattr(blocks, "take_apart", lambda *_, **__: None)
        assert answer(path, reading, known) == quick


def test_ratings_as_people_write_them_are_plain() -> None:
    found = take_apart(b"1\t318,978300760:2571,3.5:7\n2\t\nanna\tabcdefghijklmnop,1\n", values=True)
    assert found is not None
    assert found.samples == ["1", "2", "anna"]
    assert found.ends.tolist() == [3, 3, 4]
    assert found.values is not None
    assert found.values.tolist() == [np.float32(978300760), 3.5, 0, 1]
    assert blocks.texts(found.names) == ["318", "2571", "7", "abcdefghijklmnop"]


@pytest.mark.parametrize(
    "line",
    ["a", "", "a\tb\tc", "a\t:b", "a\tb:", "a\tb,1,2", "a\tb,", "a\t,1", "a\tb,x", "a\tb,1.2.3", "a\tb,.5", "a\tb\r",
     "a\t" + 17 * "b", "a\tb,1234567890123456", "a\tb\0"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_reader_of_lines(line: str) -> None:
    assert take_apart(f"x\ty,1\n{line}\n".encode(), values=True) is None


def test_numbers_of_any_length_are_the_nearest_floats() -> None:
    digits = "918273645546372"
    said = [digits[:length] for length in range(1, 16)] + ["0", "000000012", "99999999", "100000000", "16777217"]
    said += [f"{digits[:point]}.{digits[point:14]}" for point in range(1, 15)]
    found = take_apart(("a\t" + ":".join(f"b,{one}" for one in said) + "\n").encode(), values=True)
    assert found is not None
    assert found.values is not None
    assert found.values.tolist() == [np.float32(float(one)) for one in said]


def test_a_line_beyond_what_positions_hold_is_left_to_the_reader_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_MOST_BYTES", 8)
    assert take_apart(b"a\tb:c:d\n", values=False) is not None
    assert take_apart(b"aa\tb:c:d\n", values=False) is None


def test_lines_are_numbered_through_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 64)
    path = tmp_path / "samples.txt"
    path.write_text("".join(f"s{n}\tf{n}\n" for n in range(100)) + "last\tf")
    found = list(read_blocks(path, values=False))
    assert len(found) > 10
    assert b"".join(block.data for block in found) == path.read_bytes() + b"\n"
    lines = 0
    for block in found:
        assert block.line == lines
        lines += block.data.count(b"\n")


@settings(max_examples=50, deadline=None)
@given(rounds=st.lists(st.lists(st.integers(0, 3000), max_size=300), max_size=6), update=st.booleans())
def test_a_lookup_is_a_dictionary(*, rounds: list[list[int]], update: bool) -> None:
    start = {str(number): number for number in range(0, 3000, 7)}
    names, expected = dict(start), dict(start)
    lookup = Lookup(names, update=update)
    for numbers in rounds:
        wanted = []
        for number in numbers:
            if update:
                expected.setdefault(str(number), len(expected))
            wanted.append(expected.get(str(number), -1))
        raw = np.array([str(number) for number in numbers], "S8")
        found = lookup.find(np.frombuffer(raw.tobytes(), "<u8").astype(np.uint64).reshape(-1, 1))
        assert found.tolist() == wanted
    assert names == expected
