"""Recommendations: the best features of every sample that it does not have yet, and the file `recs` that
lists them by name in DSSTNE's format. Knows nothing of training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.content import layer_datasets
from trainer.data.batches import input_batches, single_batches
from trainer.data.netcdf import Dataset
from trainer.data.prefetch import prefetched
from trainer.data.slices import Slices
from trainer.filing import replacing
from trainer.hosts import gathered
from trainer.network_types import NetworkSpec
from trainer.sharding import share_of, shares_to_mesh, to_mesh
from trainer.sparse import SparseDataset
from trainer.topk import make_outputs, make_recommend

Answer = TypeVar("Answer")
SCORE_FORMAT = "4.3f"
"""DSSTNE's own."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A network ready to be asked."""

    spec: NetworkSpec
    params: Any
    """As in `TrainState`."""
    mesh: Mesh
    statistics: Any = field(default_factory=dict[str, Any])
    """As in `TrainState`."""
    layer: str = ""
    """The Output layer that is asked; `""`: the network's only one, or the one called `Output`."""
    attributes: SparseDataset | None = None
    """Items × attributes, where Input layers want profiles."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, row by row: `inputs` by Input layer, the others in output features."""

    inputs: Mapping[str, Dataset]
    exclude: SparseDataset | None = None
    """Features that are not to be recommended."""
    multiply: SparseDataset | None = None
    """Features whose score is multiplied by the value: DSSTNE's filter."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return next(iter(self.inputs.values())).samples


def question_of(ready: Ready, known: SparseDataset) -> Question:
    """What is to be recommended to who has `known`, and not again."""
    found = layer_datasets(ready.spec.inputs, known, ready.attributes)
    return Question({layer.name: found[layer.dataset] for layer in ready.spec.inputs}, exclude=known)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The recommendations of one sample, best first."""

    sample: str
    items: tuple[tuple[str, float], ...]


def recommend(
    ready: Ready, question: Question, *, k: int, batch_size: int, live: int
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
    """Ids [batch, k] and scores [batch, k] of the samples in row order, batch by batch; only features
    below `live` are listed, id -1 stands where a sample has none left.
    """
    ask = make_recommend(ready.spec, ready.mesh, k=min(k, live), layer=ready.layer)
    slices = Slices.of(share_of(ready.mesh))
    put = to_mesh if slices is None else shares_to_mesh
    made = (put(given, ready.mesh) for given in _batches(question, batch_size, ready.mesh.shape["data"], slices))
    left = question.samples
    for answer in _one_ahead(ask((ready.params, ready.statistics), *given, live) for given in prefetched(made)):
        ids, scores = gathered(answer)
        rows = min(left, len(ids))
        left -= rows
        yield ids[:rows], scores[:rows]


def _batches(
    question: Question, batch_size: int, shards: int, slices: Slices | None = None
) -> Iterator[tuple[Any, Any, Any]]:
    """Inputs, exclude and multiply; what is excluded is often an input, and is then the same batch."""
    same = next((name for name, dataset in question.inputs.items() if dataset is question.exclude), None)

    def others(dataset: SparseDataset | None) -> Iterator[Any]:
        if dataset is None:
            return repeat(None)
        return single_batches(dataset, batch_size=batch_size, shards=shards, slices=slices)

    exclude, multiply = others(question.exclude if same is None else None), others(question.multiply)
    for inputs in input_batches(question.inputs, batch_size=batch_size, shards=shards, slices=slices):
        yield inputs, next(exclude) if same is None else inputs[same], next(multiply)


def _one_ahead(answers: Iterator[Answer]) -> Iterator[Answer]:
    """Each answer when the next question has been put, so that the devices need not wait for the host."""
    before = list(islice(answers, 1))
    for answer in answers:
        yield before.pop()
        before.append(answer)
    yield from before


def layer_outputs(ready: Ready, inputs: Mapping[str, Dataset], *, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
    """What layer `ready.layer` puts out for the samples in row order, [batch, units], batch by batch."""
    ask = make_outputs(ready.spec, ready.mesh, layer=ready.layer)
    left = next(iter(inputs.values())).samples
    for batch in input_batches(inputs, batch_size=batch_size, shards=ready.mesh.shape["data"]):
        outputs = gathered(ask((ready.params, ready.statistics), to_mesh(batch, ready.mesh)))
        rows = min(left, len(outputs))
        left -= rows
        yield outputs[:rows]


def ranked(
    ready: Ready,
    question: Question,
    *,
    k: int,
    batch_size: int,
    feature_names: Sequence[str],
    sample_names: Sequence[str],
) -> Iterator[Ranked]:
    """The recommendations of every sample by name."""
    names = iter(sample_names)
    for ids, scores in recommend(ready, question, k=k, batch_size=batch_size, live=len(feature_names)):
        for row, score_row in zip(ids, scores, strict=True):
            listed = zip(row.tolist(), score_row.tolist(), strict=True)
            items = tuple((feature_names[int(feature)], float(score)) for feature, score in listed if feature >= 0)
            yield Ranked(next(names), items)


def write_recommendations(path: Path, samples: Iterator[Ranked], *, score_format: str = SCORE_FORMAT) -> int:
    """Write `sample TAB feature,score:feature,score:` lines aside and rename; returns how many."""
    count = 0
    with replacing(path) as aside, aside.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for sample in samples:
            items = "".join(f"{name},{number_text(score, score_format)}:" for name, score in sample.items)
            file.write(f"{sample.sample}\t{items}\n")
            count += 1
    return count


def number_text(score: float, score_format: str) -> str:
    """`score` in a format of printf that has no percent sign; `ValueError` or `TypeError` if it is none."""
    return f"%{score_format}" % score
