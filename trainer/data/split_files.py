"""A split on disk: a folder of DSSTNE text, `features`, its feature index, and `split.json`, which says how it was made
and has the SHA-256 of every other file. What is read is what was written, or refused.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from trainer.data.features import read_index, write_index
from trainer.data.protocols import Split
from trainer.data.split import HeldOut
from trainer.data.text import Reading, convert_text, write_text
from trainer.errors import DataError
from trainer.filing import replacing
from trainer.sparse import SparseDataset

_RECORD, _FEATURES, _TRAINING = "split.json", "features", "training.txt"


class _Record(BaseModel):
    """`split.json`."""

    protocol: str
    seed: int
    options: dict[str, bool | int | float | None]
    counts: dict[str, dict[str, int]]
    files: dict[str, str]


def write_split(split: Split, folder: Path) -> None:
    """Write `split` to `folder`, made if need be; a split that is there already is replaced."""
    record = folder / _RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Last to come and first to go: a folder that has it is whole.
        record.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"no split can be written here: {error.strerror}", folder) from error
    write_index(split.features, folder / _FEATURES)
    parts = dict(_parts(split))
    for name, dataset in parts.items():
        write_text(replace(dataset, features=split.features), folder / name)
    made = _Record(
        protocol=split.protocol,
        seed=split.seed,
        options=dict(split.options),
        counts=counts(split),
        files={name: _sum(folder / name) for name in (_FEATURES, *parts)},
    )
    with replacing(record) as aside:
        aside.write_text(json.dumps(made.model_dump(), indent=2) + "\n", encoding="utf-8")


def read_split(folder: Path) -> Split:
    """The split that `write_split` left in `folder`. A file that is not as it was left raises `DataError`."""
    record = _read_record(folder / _RECORD)
    for name, left in record.files.items():
        if _sum(folder / name) != left:
            raise DataError(
                f"is not the file that {_RECORD} tells of, by its SHA-256; make the split again", folder / name
            )
    features = read_index(folder / _FEATURES)

    def part(name: str) -> SparseDataset:
        if name not in record.files:
            raise DataError(f"tells of no file {name}; make the split again", folder / _RECORD)
        reading = Reading(strict=True, hidden=False)
        return convert_text(folder / name, name="samples", features=features, reading=reading).dataset

    def held_out(which: str) -> HeldOut:
        return HeldOut(part(f"{which}-known.txt"), part(f"{which}-wanted.txt"))

    validation = held_out("validation") if "validation-known.txt" in record.files else None
    options = record.options
    return Split(record.protocol, record.seed, options, part(_TRAINING), validation, held_out("test"), features)


def counts(split: Split) -> dict[str, dict[str, int]]:
    """How much there is, by part; features are those of all parts together."""
    training = split.training
    found = {"training": {"samples": training.samples, "features": len(split.features), "interactions": training.nnz}}
    for which, one in (("validation", split.validation), ("test", split.test)):
        if one is not None:
            found[which] = {"samples": one.known.samples, "known": one.known.nnz, "wanted": one.wanted.nnz}
    return found


def _parts(split: Split) -> Iterator[tuple[str, SparseDataset]]:
    yield _TRAINING, split.training
    for which, one in (("validation", split.validation), ("test", split.test)):
        if one is not None:
            yield f"{which}-known.txt", one.known
            yield f"{which}-wanted.txt", one.wanted


def _read_record(path: Path) -> _Record:
    try:
        return _Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}; `trainer split` makes such a folder", path) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "$"
        raise DataError(f"{where}: {first['msg']}; make the split again", path) from error


def _sum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
