"""Made-up data in the folders and files of the real ones, and rows cut down to them: that everything runs, not how good
anything is.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.quality.rows import Row
from trainer.data.given import Source, make_split
from trainer.data.synthesize import synthesize
from trainer.filing import replacing
from trainer.settings import SplitSettings
from trainer.sparse import SparseDataset

USERS, ITEMS = 60, 120
EPOCHS = 1
_PART = 0.2
"""Of the users, for the test and for validation, where a row says how many."""
_BASELINES = frozenset({"popularity", "itemknn", "ease", "content", "chance"})
"""Kept beside each row's first model and what it is held against; the others would only take time."""
_SEVERAL = "ml-100k"
"""The row that keeps two seeds."""


def small_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows with fewer seeds and models."""
    return [_small(row) for row in rows]


def write_small(folder: Path, rows: Sequence[Row]) -> None:
    """Make the folders of `rows` in `folder`: ratings and what is known of films, and where rows want them, lists."""
    for row in rows:
        there = folder / row.folder
        synthesize(there, users=USERS, items=ITEMS)
        if row.is_joined or row.split.get("protocol") == "given":
            split = make_split(Source(there), SplitSettings(protocol="weak", validation_part=0.0))
            _write_lists(split.training, there / "train.txt")
            _write_lists(split.test.wanted, there / "test.txt")


def _small(row: Row) -> Row:
    kept = {row.models[0], *row.bar.over, *_BASELINES}
    models = tuple(name for name in row.models if name in kept)
    split = {
        name: _PART if name in {"test_users", "validation_part"} and row.split["protocol"] == "strong" else value
        for name, value in row.split.items()
    }
    return replace(row, models=models, seeds=row.seeds[: 2 if row.name == _SEVERAL else 1], split=split)


def _write_lists(dataset: SparseDataset, path: Path) -> None:
    """Lines of `sample feature feature …`, as LightGCN has them."""
    names = [] if dataset.features is None else list(dataset.features.names())
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as file:
        for row, sample in enumerate(dataset.sample_names or ()):
            held = dataset.indices[dataset.indptr[row] : dataset.indptr[row + 1]].tolist()
            file.write(" ".join([sample, *(names[feature] for feature in held)]) + "\n")
