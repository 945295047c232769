"""What a step with a sampled output costs at ten million items, beside the same at a hundred thousand."""

from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.pairs import Question, Row, SideSpec, compare
from benchmarks.scale import Scale
from benchmarks.training import Training

_BAR = 1.3
_NEGATIVES = 1024


def rows(scale: Scale) -> Iterator[Row]:
    """Ours on both sides: the ratio is that of the seconds."""
    many, few = (20 * scale.items, scale.items) if scale.is_small else (10_000_000, 100_000)
    large, small = (SideSpec("trainer_side", "train", asdict(_training(items, scale))) for items in (many, few))
    question = Question("sampled/ten-million-items", "s", _BAR, what="seconds", is_limit=True)
    yield compare(question, large, small, runs=scale.runs)


def _training(items: int, scale: Scale) -> Training:
    hidden = [scale.narrow // 2]
    return Training(hidden, items, "SGD", 0.025, batch=scale.batch, steps=8, negatives=min(_NEGATIVES, items // 4))
