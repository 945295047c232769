"""Our side of every comparison, by the trainer's public functions."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.data import Ratings, Shape, make_ratings
from benchmarks.training import Training, in_turns
from trainer.data.batches import paired_batches
from trainer.data.generate import GenerateOptions, generate_netcdf
from trainer.data.sampling import Sampler
from trainer.deal import deals_of, with_deals
from trainer.network_types import (
    Activation,
    LayerKind,
    LayerSpec,
    Negatives,
    NetworkSpec,
    OptimizerName,
    OptimizerSpec,
    Sampling,
)
from trainer.predict import Question, Ready, recommend
from trainer.programs import TrainFiles, train_files
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh, to_mesh
from trainer.sparse import SparseDataset, round_up
from trainer.state import create_state, make_step

_TINY = """
{"Name": "tiny", "ShuffleIndices": true, "Layers": [
    {"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl", "Sparse": true},
    {"Name": "Hidden", "Kind": "Hidden", "N": 8, "Activation": "Sigmoid"},
    {"Name": "Output", "Kind": "Output", "N": "auto", "DataSet": "gl", "Activation": "Sigmoid", "Sparse": true}
], "ErrorFunction": "CrossEntropy"}
"""


def train(**arguments: Any) -> Callable[[], float]:
    """Steps of training, batches already assembled."""
    training = Training(**arguments)
    dataset = _dataset(training.ratings)
    settings = TrainSettings(batch_size=training.batch)
    mesh = make_mesh(1, jax.devices()[:1])
    spec = with_deals(
        _network(training, dataset.width), ["Input", "Output"], shards=1, is_local=training.optimizer == "SGD"
    )
    deals, sampling = deals_of(spec, 1), spec.output.sampling
    samplers = {"Output": Sampler.of(sampling, deals["Output"], dataset)} if sampling.by else {}
    step = make_step(spec, settings, mesh)
    made = list(
        paired_batches(
            {"Input": dataset},
            {"Output": dataset},
            batch_size=training.batch,
            order=np.arange(dataset.samples),
            deals=deals,
            samplers=samplers,
            seed=(1,),
        )
    )
    state = create_state(spec, settings, mesh)

    def one(batch: Any) -> None:
        nonlocal state
        state, report = step(state, *to_mesh(batch, mesh))
        jax.block_until_ready((state, report))

    return in_turns(training, made, one)


def recommendations(*, users: int, items: int, hidden: int, batch: int, k: int) -> Callable[[], float]:
    """The best `k` items of every user that the user does not have yet; counts users."""
    dataset = _dataset(make_ratings(Shape(users=users, items=items)))
    training = Training(hidden=[hidden], items=items, optimizer="SGD", learning_rate=0.1, batch=batch)
    spec, mesh = _network(training, dataset.width), make_mesh(1, jax.devices()[:1])
    state = create_state(spec, TrainSettings(batch_size=batch), mesh)
    ready = Ready(spec, state.params, mesh, state.statistics)

    def work() -> float:
        asked = Question({"Input": dataset}, exclude=dataset)
        return float(sum(len(ids) for ids, _ in recommend(ready, asked, k=k, batch_size=batch, live=items)))

    return work


def convert(*, path: str, ratings: int) -> Callable[[], float]:
    """Text or a ratings table to NetCDF and its indexes; counts ratings."""

    def work() -> float:
        with tempfile.TemporaryDirectory() as scratch:
            output, features, samples = (str(Path(scratch) / name) for name in ("gl.nc", "features", "samples"))
            generate_netcdf(GenerateOptions("gl", path, output, features, samples, create=True), lambda _: None)
        return float(ratings)

    return work


def train_file(*, path: str, memory_gib: float) -> Callable[[], float]:
    """An epoch of a tiny network over a NetCDF file of dataset `gl`, as `trainer train` does it; counts epochs."""

    def work() -> float:
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            Path("network.json").write_text(_TINY)
            files = TrainFiles(*map(Path, ("network.json", path, path, "gl.nc")), data_memory_bytes=memory_gib * 2**30)
            train_files(files, TrainSettings(batch_size=1024, epochs=1), say=lambda _: None)
        return 1.0

    return work


def read_csv(*, path: str, ratings: int) -> Callable[[], float]:
    """Polars' own read of the table."""
    import polars as pl

    def work() -> float:
        pl.read_csv(path)
        return float(ratings)

    return work


def _dataset(ratings: Ratings) -> SparseDataset:
    return SparseDataset("gl", round_up(ratings.items), ratings.indptr, ratings.indices.astype(np.uint32))


def _network(training: Training, width: int) -> NetworkSpec:
    names = ["Input", *(f"Hidden{number}" for number in range(1, 1 + len(training.hidden))), "Output"]
    layers = [LayerSpec("Input", LayerKind.INPUT, (width,), sparse=True, dataset="gl")]
    layers += [
        LayerSpec(name, LayerKind.HIDDEN, (units,), (source,))
        for name, units, source in zip(names[1:], training.hidden, names, strict=False)
    ]
    output = LayerSpec("Output", LayerKind.OUTPUT, (width,), (names[-2],), sparse=True, dataset="gl")
    if training.negatives:
        sampling = Sampling(Negatives.UNIFORM, training.negatives)
        output = replace(output, activation=Activation.SOFT_MAX, sampling=sampling)
    layers.append(output)
    optimizer = OptimizerSpec(OptimizerName[training.optimizer], training.learning_rate, 0.0, momentum=0.9)
    return NetworkSpec("benchmark", tuple(layers), optimizer=optimizer)
