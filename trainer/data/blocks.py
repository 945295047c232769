"""Blocks of DSSTNE text taken apart all at once instead of line by line, as long as they are plain: every line has one
tab, every piece a name of at most 16 bytes and at most one value, which is written in digits. Anything else is for
the reader of single lines. What names stand for is unknown here.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.errors import DataError

_BLOCK_BYTES = 1 << 21
_MOST_BYTES = 1 << 30
"""A line may be longer than a block; positions have 4 bytes."""
_TAB, _LF, _COLON, _COMMA, _DOT = b"\t\n:,."
_WORD = 8
_LONGEST_NAME = 2 * _WORD
_LONGEST_VALUE = 15
_PARTING, _OTHER, _POINT, _UNFIT = 1, 2, 3, 4
_MIXER = np.uint64(0x9E3779B97F4A7C15)

_EVERY_FOURTH = np.uint64(0x000000FF000000FF)

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int32]
"""Within a block."""


def _classes() -> npt.NDArray[np.uint8]:
    """What each byte is: 0 a digit, else one of the numbers above."""
    table = np.full(256, _OTHER, np.uint8)
    table[list(b"0123456789")] = 0
    table[[_TAB, _LF, _COLON, _COMMA]] = _PARTING
    table[_DOT] = _POINT
    table[[0, ord("\r")]] = _UNFIT
    return table


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain block, taken apart."""

    samples: list[str]
    """Name of each line."""
    ends: npt.NDArray[np.int64]
    """[lines] number of pieces up to the end of each line."""
    names: Words
    """[pieces, 1 or 2] the bytes of each piece's name, zeros after them."""
    values: npt.NDArray[np.float32] | None
    """[pieces], 0 where there is none; `None` if they were not asked for."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file."""

    data: bytes
    line: int
    """Lines before it."""
    plain: Plain | None


def read_blocks(path: Path, *, values: bool) -> Iterator[Block]:
    """The blocks of a file in order, taken apart ahead of their use; `DataError` if it cannot be read."""
    table = _classes()
    line = 0
    with ThreadPoolExecutor(2) as threads:
        waiting: deque[tuple[bytes, Future[Plain | None]]] = deque()
        for data in _pieces(path):
            waiting.append((data, threads.submit(take_apart, data, table, values=values)))
            if len(waiting) > 2:
                first, plain = waiting.popleft()
                yield Block(first, line, plain.result())
                line += first.count(b"\n")
        while waiting:
            first, plain = waiting.popleft()
            yield Block(first, line, plain.result())
            line += first.count(b"\n")


def take_apart(data: bytes, table: npt.NDArray[np.uint8] | None = None, *, values: bool) -> Plain | None:
    """The lines of `data`, the last of which ends with LF, or `None` if they are not plain."""
    if len(data) > _MOST_BYTES:
        return None
    buffer = np.frombuffer(data, np.uint8)
    kinds = np.take(_classes() if table is None else table, buffer)
    if kinds.max(initial=0) == _UNFIT:
        return None
    place = np.flatnonzero(kinds == _PARTING).astype(np.int32)
    parting = buffer[place]
    before = np.concatenate([np.array([_LF], np.uint8), parting[:-1]])
    start = np.concatenate([np.zeros(1, np.int32), place[:-1] + np.int32(1)])
    length = place - start
    # A line is NAME TAB, then pieces NAME or NAME COMMA VALUE, parted by COLON, up to LF.
    is_sample, is_value = before == _LF, before == _COMMA
    is_empty = length == 0
    is_name = ~(is_sample | is_value | (is_empty & (before == _TAB) & (parting == _LF)))
    is_bad = (parting == _TAB) != is_sample
    is_bad |= is_value & ((parting == _COMMA) | is_empty | (length > _LONGEST_VALUE))
    is_bad |= is_name & (is_empty | (length > _LONGEST_NAME))
    pointed = _pointed(kinds, place, is_value)
    if is_bad.any() or pointed is None:
        return None
    pieces = np.cumsum(is_name)
    padded = bytes(_LONGEST_NAME) + data + bytes(_LONGEST_NAME)
    found = None
    if values:
        found = np.zeros(int(pieces[-1]) if len(pieces) else 0, np.float32)
        found[pieces[is_value] - 1] = _whole_numbers(padded, place[is_value], length[is_value])
        found[pieces[pointed] - 1] = _numbers(buffer, start[pointed], length[pointed])
    lines = np.flatnonzero(is_sample)
    return Plain(
        [data[a:b].decode("utf-8", "surrogateescape") for a, b in zip(start[lines], place[lines], strict=True)],
        pieces[parting == _LF],
        _words(padded, start[is_name], length[is_name]),
        found,
    )


def texts(words: Words) -> list[str]:
    """The names that `Plain.names` holds."""
    raw = np.ascontiguousarray(words).astype("<u8").view(f"S{_WORD * words.shape[1]}").ravel()
    return [name.decode("utf-8", "surrogateescape") for name in raw.tolist()]


def mixed(words: Words) -> Words:
    """One number for each name, [pieces]; those of one word have numbers of their own."""
    return words[:, 0] if words.shape[1] == 1 else words[:, 0] ^ (words[:, 1] * _MIXER)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines; the last line is given its LF."""
    rest = b""
    try:
        with path.open("rb") as file:
            while read := file.read(_BLOCK_BYTES):
                cut = read.rfind(b"\n") + 1
                if cut:
                    yield rest + read[:cut]
                    rest = read[cut:]
                else:
                    rest += read
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    if rest:
        yield rest + b"\n"


def _pointed(
    kinds: npt.NDArray[np.uint8], place: Positions, is_value: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp] | None:
    """Which values have a point; `None` unless every value is digits with at most one point among them, and begins
    with a digit.
    """
    others = np.searchsorted(place, np.flatnonzero(kinds == _OTHER))
    if is_value[others].any():
        return None
    points = np.flatnonzero(kinds == _POINT)
    of = np.searchsorted(place, points)
    points, of = points[is_value[of]], of[is_value[of]]
    return None if (of[1:] == of[:-1]).any() or (points == place[of - 1] + 1).any() else of


def _words(padded: bytes, start: Positions, length: Positions) -> Words:
    """Bytes of spans as little-endian words, [spans, 1 or 2]."""
    anywhere = _anywhere(padded)
    columns = 1 if not len(length) or length.max() <= _WORD else 2
    words = np.empty((len(start), columns), np.uint64)
    for column in range(columns):
        # A shift by all 64 bits is undefined: two of at most 32.
        half = _missing(length, column) * np.uint64(4)
        ones = np.uint64(0xFFFFFFFFFFFFFFFF)
        words[:, column] = anywhere[start + (_LONGEST_NAME + _WORD * column)] & ((ones >> half) >> half)
    return words


def _whole_numbers(padded: bytes, end: Positions, length: Positions) -> npt.NDArray[np.float32]:
    """The numbers of spans of digits; of those with a point, anything."""
    anywhere = _anywhere(padded)
    whole = np.zeros(len(end), np.uint64)
    columns = 1 if not len(length) or length.max() <= _WORD else 2
    for column in reversed(range(columns)):
        half = _missing(length, column) * np.uint64(4)
        digits = anywhere[end + (_LONGEST_NAME - _WORD * (column + 1))] & np.uint64(0x0F0F0F0F0F0F0F0F)
        digits = ((digits >> half) >> half << half) << half
        # The first digit is the lowest byte. Neighbours are joined: to 2 digits in a byte, then to 4, then to 8.
        digits = digits * np.uint64(10) + (digits >> np.uint64(8))
        odd, even = digits & _EVERY_FOURTH, (digits >> np.uint64(16)) & _EVERY_FOURTH
        joined = (odd * np.uint64(1000000 << 32 | 100) + even * np.uint64(10000 << 32 | 1)) >> np.uint64(32)
        whole = whole * np.uint64(10**_WORD) + joined
    # Exact in double precision, so that it is rounded once.
    return whole.astype(np.float64).astype(np.float32)


def _anywhere(padded: bytes) -> Words:
    """The word at each byte."""
    return np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))


def _missing(length: Positions, column: int) -> Words:
    """How many bytes spans lack of the word of that number."""
    return np.clip(_WORD * (column + 1) - length, 0, _WORD).astype(np.uint64)


def _numbers(buffer: npt.NDArray[np.uint8], start: Positions, length: Positions) -> npt.NDArray[np.float32]:
    """The decimal numbers of spans: digits with at most one point."""
    whole, places = np.zeros(len(start), np.int64), np.zeros(len(start), np.int64)
    seen_point = np.zeros(len(start), bool)
    for column in range(int(length.max(initial=0))):
        here = column < length
        byte = buffer[np.where(here, start + column, 0)]
        is_point = here & (byte == _DOT)
        is_digit = here & ~is_point
        whole = np.where(is_digit, whole * 10 + (byte.astype(np.int64) - ord("0")), whole)
        places += is_digit & seen_point
        seen_point |= is_point
    # Both are exact in double precision, so the quotient is the nearest double.
    return (whole / 10.0**places).astype(np.float32)
