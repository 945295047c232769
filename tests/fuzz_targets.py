"""What is fuzzed: for each reader of the trainer whole files to begin with, how they are changed, and what is done
with a changed one. A reader may take it or raise a `TrainerError`; anything else is a finding.
"""

import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_mutations import mutated, mutated_json
from fuzz_netcdf import restructured
from fuzz_words import (
    ARGUMENTS,
    BROKEN_NETWORKS,
    CDLS,
    INDEXES,
    JSON_TOKENS,
    JSON_VALUES,
    NETWORKS,
    PARTS,
    RATINGS,
    RATINGS_TOKENS,
    SWITCHES,
    TEXT_TOKENS,
    TEXTS,
    TITLES_AFTER,
    VALUED,
)
from netcdf_files import by_hand, one_hot, small_dataset

from trainer.cdl import read_cdl
from trainer.comparing import Result, comparison, read_result, write_result
from trainer.data.batches import input_batches
from trainer.data.features import load_index, read_index
from trainer.data.given import Source, make_split
from trainer.data.load import load_data
from trainer.data.movielens import is_ratings, read_ratings
from trainer.data.netcdf import Dataset, read_datasets, write_dataset, write_datasets
from trainer.data.split_files import read_split, write_split
from trainer.data.text import Reading, convert_text, read_filter
from trainer.dense import DenseDataset
from trainer.flags import Names, scan
from trainer.jsontree import read_json
from trainer.metrics import Measured
from trainer.network import parameter_count, read_network, resolve_shapes
from trainer.network_file import read_network_file, write_network
from trainer.network_types import AUTO, NetworkSpec
from trainer.settings import SplitSettings
from trainer.shapes import bias_size, weight_shape
from trainer.sparse import FeatureIndex, SparseDataset
from trainer.weights import Connection, Normalization, Weights

Attempt = Callable[[], object]
Make = Callable[[Random], tuple[bytes, str]]
"""A changed file, and what was changed where that can be said."""

_TABLES = ("ratings.csv", "u.data", "ratings.dat", "table.csv", "samples.txt")
_TITLES_OF = {"u.data": "u.item", "ratings.dat": "movies.dat"}
_SIDES: Sequence[tuple[int, ...]] = ((7,), (21,), (128,), (4, 3), (5, 4, 2))
_FLAGS = Names(VALUED, SWITCHES, {name: name.strip("-") for name in (*VALUED, *SWITCHES)})


@dataclass(frozen=True, slots=True)
class Target:
    """A reader; `prepare` gets a folder that stays and answers how changed files are made."""

    name: str
    prepare: Callable[[Path], Make]
    attempts: Callable[[bytes, Path], Sequence[Attempt]]
    """What is done with a changed file, each on its own; the folder is for the file to lie in."""
    in_c: bool = False
    """A C library reads it: a damaged file may end the process, and making one smaller byte by byte is idle."""


def _of(seeds: Sequence[bytes], tokens: Sequence[bytes]) -> Callable[[Path], Make]:
    return lambda _: lambda rng: (mutated(rng, seeds, tokens), "")


def _text(data: bytes, folder: Path) -> Sequence[Attempt]:
    path, way = _written(folder / "samples.txt", data), zlib.crc32(data)
    known = FeatureIndex({"a": 0, "b": 1, "c": 5, "11": 4_000_000_000}) if way & 1 else None
    samples = FeatureIndex({"bob": 0, "alice": 1, "1": 2}) if way & 2 else None
    reading = Reading(update=bool(way & 4), analog=bool(way & 8), strict=bool(way & 16))
    dense = FeatureIndex({"a": 0, "b": 1, "11": 2, "": 3})
    return (
        lambda: convert_text(path, name="samples", features=known, samples=samples, reading=reading),
        lambda: _use(convert_text(path, name="samples", samples=samples, reading=reading).dataset),
        lambda: read_filter(path, features=dense, samples=samples or FeatureIndex({"u1": 0, "u2": 1})),
    )


def _index(data: bytes, folder: Path) -> Sequence[Attempt]:
    path = _written(folder / "index.txt", data)
    return (lambda: read_index(path), lambda: load_index(path, lambda _: None))


def _ratings(data: bytes, folder: Path) -> Sequence[Attempt]:
    table = folder / _TABLES[zlib.crc32(data) % len(_TABLES)]
    ratings, found, titles = data.partition(TITLES_AFTER)
    _written(table, ratings)
    if found:
        _written(folder / _TITLES_OF.get(table.name, "movies.csv"), titles)
    return (
        lambda: _use(load_data(table).dataset),
        lambda: _use(load_data(folder).dataset),
        lambda: is_ratings(table) and read_ratings(table, analog=True, timed=True, min_rating=3.0),
    )


def _parts(data: bytes, folder: Path) -> Sequence[Attempt]:
    training, _, test = data.partition(TITLES_AFTER)
    _written(folder / "test.txt", test)
    source, lists = Source(_written(folder / "train.txt", training)), Source(folder)

    def parted(source: Source, **options: object) -> None:
        split = make_split(source, SplitSettings.of(**options))
        for part in (split.training, split.test.known, split.test.wanted):
            _use(part)
        write_split(split, folder / "split")
        assert read_split(folder / "split").features == split.features

    return (
        lambda: parted(lists, protocol="given", validation_part=zlib.crc32(data) % 2 / 2),
        lambda: parted(source, protocol="strong", held_out=0.5, test_users=1, validation_part=0, least_features=1),
        lambda: parted(source, protocol="temporal", held_out=0.5, validation_part=0),
    )


def _split_maker(folder: Path) -> Make:
    text = _written(folder / "samples.txt", b"".join(b"s%d\ta:b:c:d:e:f\n" % n for n in range(9)))
    write_split(make_split(Source(text), SplitSettings()), folder)
    whole = (folder / "split.json").read_bytes()
    return lambda rng: (mutated(rng, [whole], JSON_TOKENS), "")


def _split(data: bytes, folder: Path) -> Sequence[Attempt]:
    shutil.copytree(folder.parent / "prepared", folder / "split")
    _written(folder / "split" / "split.json", data)
    return (lambda: read_split(folder / "split"),)


def _measurement_maker(folder: Path) -> Make:
    values = {f"ndcg@{k}": np.linspace(0, 1, 5) for k in (10, 20)}
    write_result(Result("network", "samples", Measured(values, {"coverage@10": 0.5})), folder / "network.npz")
    whole = (folder / "network.npz").read_bytes()
    return lambda rng: (mutated(rng, [whole], ()), "")


def _measurement(data: bytes, folder: Path) -> Sequence[Attempt]:
    path = _written(folder / "network.npz", data)

    def read() -> None:
        found = read_result(path)
        assert comparison(found, found, seed=1)

    return (read,)


def _json_maker(whole: Sequence[Path], more: Sequence[Path] = ()) -> Callable[[Path], Make]:
    """Files changed byte by byte, those that are `whole` as trees, too."""

    def prepare(_: Path) -> Make:
        texts = [path.read_bytes() for path in (*whole, *more)]
        trees = [read_json(path).value for path in whole]

        def make(rng: Random) -> tuple[bytes, str]:
            if rng.random() < 0.5:
                return mutated(rng, texts, JSON_TOKENS), ""
            text = mutated_json(rng, trees, JSON_VALUES)
            return (text if rng.random() < 0.8 else mutated(rng, [text], JSON_TOKENS)), ""

        return make

    return prepare


def _network(data: bytes, folder: Path) -> Sequence[Attempt]:
    path, way = _written(folder / "network.json", data), zlib.crc32(data)

    def resolved() -> None:
        spec = read_network(path)
        shapes = {one.dataset: _SIDES[way % len(_SIDES)] if one.shape is AUTO else one.sides for one in spec.layers}
        spec = resolve_shapes(spec, shapes)
        assert parameter_count(spec) >= 0
        assert len(spec.connections) == sum(len(one.sources) for one in spec.layers if one.type.name != "POOLING")

    return (lambda: read_network(path, strict_dsstne=True), resolved)


def _cdl(data: bytes, folder: Path) -> Sequence[Attempt]:
    path = _written(folder / "train.cdl", data)
    return (lambda: read_cdl(path),)


def _flags_maker(_: Path) -> Make:
    return lambda rng: ("\n".join(rng.choices(ARGUMENTS, k=rng.randrange(9))).encode("utf-8", "surrogateescape"), "")


def _flags(data: bytes, _: Path) -> Sequence[Attempt]:
    arguments = data.decode("utf-8", "surrogateescape").split("\n")
    return (lambda: scan(arguments, _FLAGS),)


def _files_maker(write: Callable[[Path], Sequence[Path]]) -> Callable[[Path], Make]:
    """Files changed byte by byte or in their structure."""

    def prepare(folder: Path) -> Make:
        files = write(folder)
        contents = [path.read_bytes() for path in files]

        ready: list[tuple[bytes, str]] = []

        def make(rng: Random) -> tuple[bytes, str]:
            if rng.random() < 0.4:
                return mutated(rng, contents, ()), ""
            while not ready:
                ready.extend(restructured(rng, files, folder))
            data, note = ready.pop()
            return (data, note) if rng.random() < 0.9 else (mutated(rng, [data], ()), f"{note}; then bytes")

        return make

    return prepare


def _dataset_files(folder: Path) -> Sequence[Path]:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    weights, rows = np.array([0.5, 1, 2], np.float32), np.array([2, 0, 1])
    plain = small_dataset()
    dense = DenseDataset("dense", (4,), values)
    stored: Sequence[Dataset] = (
        *(plain, small_dataset(analog=True), replace(plain, weights=weights), replace(plain, rows=rows)),
        *(replace(plain, sides=(8, 4, 4), ignore_zero=True, rows=rows, weights=weights), dense),
        *(replace(dense, sides=(2, 2), values=values.astype(np.float64), rows=rows), replace(dense, weights=weights)),
        *(replace(dense, values=values.astype(one)) for one in (np.int32, np.uint32, np.int64)),
        replace(dense, values=values.astype(np.uint8), divisor=256.0, input_offset=-0.5),
        replace(dense, values=values.astype(np.int8), divisor=128.0),
        replace(dense, values=np.array([0, 3, 1]), one_hot=True),
    )
    for number, dataset in enumerate(stored):
        write_dataset(dataset, folder / f"{number}.nc") if isinstance(dataset, SparseDataset) else write_datasets(
            folder / f"{number}.nc", [dataset]
        )
    write_datasets(folder / "two.nc", [plain, replace(dense, weights=weights)])
    one_hot(folder / "classes.nc", [0, 3, 1], dataWeight=weights)
    head = {"name": "old", "attributes": 3, "dataType": 0, "dimensions": 1, "width": 128}
    offsets = {
        "sparseStart": ("examplesDim", np.array([0, 2], ">u8")),
        "sparseEnd": ("examplesDim", np.array([2, 3], ">u8")),
    }
    indices = {"sparseIndex": ("sparseDataDim", np.array([1, 5, 7], ">u4"))}
    by_hand(folder / "old.nc", head, {"examplesDim": 2, "sparseDataDim": 3}, offsets | indices)
    return sorted(folder.glob("*.nc"))


def _datasets(data: bytes, folder: Path) -> Sequence[Attempt]:
    path = _written(folder / "data.nc", data)

    def read() -> None:
        for dataset in read_datasets(path).values():
            _use(dataset)

    def read_in_slices() -> None:
        for dataset in read_datasets(path, memory_bytes=0).values():
            _use(dataset)

    return (read, read_in_slices)


def _network_files(folder: Path) -> Sequence[Path]:
    for number, path in enumerate(NETWORKS):
        spec = read_network(path)
        spec = resolve_shapes(spec, {one.dataset: (21,) if one.shape is AUTO else one.sides for one in spec.layers})
        write_network(folder / f"{number}.nc", spec, _some_weights(spec))
    return sorted(folder.glob("*.nc"))


def _some_weights(spec: NetworkSpec) -> Weights:
    def some(*shape: int) -> Any:
        return np.full(shape, 0.5, np.float32)

    return Weights(
        tuple(
            Connection(
                some(*weight_shape(one.source, one.target)) if one.owner == n else None, some(bias_size(one.target))
            )
            for n, one in enumerate(spec.connections)
        ),
        {one.name: Normalization(*some(4, bias_size(one))) for one in spec.layers if one.batch_normalization},
        {one.name: Normalization(*some(2, one.width)) for one in spec.layers if one.layer_normalization},
    )


def _network_file(data: bytes, folder: Path) -> Sequence[Attempt]:
    path = _written(folder / "gl.nc", data)

    def read() -> None:
        spec, weights = read_network_file(path)
        for n, (one, its) in enumerate(zip(spec.connections, weights.connections, strict=True)):
            wanted = weight_shape(one.source, one.target) if one.owner == n else None
            assert wanted == (None if its.kernel is None else its.kernel.shape)
            assert its.bias.shape == (bias_size(one.target),)

    return (read,)


def _checkpoint_maker(folder: Path) -> Make:
    from trainer.checkpoint import save

    for step in (1, 2):
        save(folder, step, {"kernel": np.arange(6, dtype=np.float32)}, about={"epoch": step})
    index = (folder / "2" / "index.json").read_bytes()
    return lambda rng: (mutated(rng, [index], JSON_TOKENS), "")


def _checkpoint(data: bytes, folder: Path) -> Sequence[Attempt]:
    """The index of the last checkpoint or one of its files is changed: the one before is the last good one, unless
    nothing was. Beside them lie things that are called as checkpoints are.
    """
    from trainer.checkpoint import latest

    shutil.copytree(folder.parent / "prepared", folder / "saved")
    files = sorted(path for path in (folder / "saved" / "2").rglob("*") if path.is_file())
    path = files[zlib.crc32(data) % len(files)] if zlib.crc32(data) & 1024 else folder / "saved" / "2" / "index.json"
    is_as_it_was = path.read_bytes() == data
    path.write_bytes(data)
    (folder / "saved" / "3").mkdir()
    (folder / "saved" / "4").write_bytes(data)
    (folder / "saved" / "٥").mkdir()

    def read() -> None:
        found = latest(folder / "saved")
        assert found is not None
        assert found.step == (2 if is_as_it_was else 1)

    return (read,)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _use(dataset: Dataset) -> None:
    """Make batches of what was accepted."""
    if dataset.samples and dataset.width <= 1 << 16 and dataset.samples <= 1 << 16:
        for _ in islice(input_batches({"Input": dataset}, batch_size=4), 3):
            pass


TARGETS = {
    target.name: target
    for target in (
        Target("text", _of(TEXTS, TEXT_TOKENS), _text),
        Target("index", _of(INDEXES, TEXT_TOKENS), _index),
        Target("ratings", _of(RATINGS, RATINGS_TOKENS), _ratings),
        Target("network", _json_maker(NETWORKS, BROKEN_NETWORKS), _network),
        Target("cdl", _json_maker(CDLS), _cdl),
        Target("flags", _flags_maker, _flags),
        Target("datasets", _files_maker(_dataset_files), _datasets, in_c=True),
        Target("network_file", _files_maker(_network_files), _network_file, in_c=True),
        Target("parts", _of(PARTS, (*RATINGS_TOKENS, b" 7", b"3 ")), _parts),
        Target("split", _split_maker, _split),
        Target("measurement", _measurement_maker, _measurement),
        Target("checkpoint", _checkpoint_maker, _checkpoint),
    )
}
