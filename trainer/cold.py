"""Items that nobody has yet: recommended by what is known of them, with or without a network, and how well that goes
when some items are hidden. A network has no output rows for such items; they are guessed from attributes.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from trainer.attach import resolve
from trainer.content import Answers, Content, as_matrix, layer_datasets, listed
from trainer.data.cold import hide_items
from trainer.data.features import read_index
from trainer.data.load import load_data
from trainer.data.split import HeldOut
from trainer.ending import train_to_its_end
from trainer.errors import NetworkError, SettingsError
from trainer.filing import replacing
from trainer.fitting import training_data
from trainer.inputs import attributes_of
from trainer.meshing import mesh_for
from trainer.model import to_weights
from trainer.network import read_network
from trainer.network_file import read_network_file
from trainer.network_types import Activation, LayerType, NetworkSpec
from trainer.pace import pace_of
from trainer.predict import Ranked, Ready, layer_outputs, question_of, write_recommendations
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import SparseDataset
from trainer.state import create_state
from trainer.train import EpochReport, find_devices

_PENALTY = 10.0
"""Of the regression from attributes to output rows; chosen on items hidden from MovieLens' training part."""
_MOST = 4096
"""Attributes that the regression looks at."""


@dataclass(frozen=True, slots=True)
class ColdReport:
    """Recall among `cold` hidden items, for each sample that had one of them."""

    k: int
    cold: int
    samples: tuple[str, ...]
    recalls: Mapping[str, npt.NDArray[np.float64]]
    """[samples] hits among the first k ÷ hidden items of the sample, by recommender."""

    @property
    def chance(self) -> float:
        """What k items drawn at random would find."""
        return min(1.0, self.k / self.cold)

    def means(self) -> dict[str, float]:
        """`content.cold_recall@50`, …; popularity, which no hidden item has, and chance among them."""
        found = {name: float(values.mean()) for name, values in self.recalls.items()}
        everyone = {**found, "popularity": 0.0, "chance": self.chance}
        return {f"{name}.cold_recall@{self.k}": value for name, value in everyone.items()}


def recommend_content(data: Path, out: Path, *, k: int, tables: Sequence[Path] = (), also_cold: bool = False) -> int:
    """Write content-based recommendations for every sample of `data` in DSSTNE's format; `also_cold`: of items as well
    that only the tables know. Returns how many samples.
    """
    loaded = load_data(data)
    attributes = attributes_of(data, loaded.features, tables)
    live = attributes.samples if also_cold else len(loaded.dataset.features or ())
    answers = Content.of(attributes, live=live).scored(loaded.dataset, k=k)
    return write_recommendations(out, _named(answers, loaded.dataset, attributes))


def recommend_cold(
    network: Path, data: Path, *, out: Path, k: int, tables: Sequence[Path] = (), batch_size: int = 256
) -> int:
    """Write recommendations of items that nobody has, by a trained network (`gl.nc`), for every sample of `data`."""
    spec, weights = read_network_file(network)
    loaded = load_data(data)
    index = network.with_name("features_attributes")
    attributes = attributes_of(data, loaded.features, tables, index=read_index(index) if index.is_file() else None)
    found = layer_datasets((*spec.inputs, *spec.outputs), loaded.dataset, attributes)
    for layer in spec.inputs:
        if layer.width != found[layer.dataset].width:
            wanted = f"layer {layer.name} has {layer.width} units, the data {found[layer.dataset].width}"
            raise NetworkError(f"{wanted}; give the data and attributes it was trained on", "input", network)
    mesh = make_mesh(1, find_devices())
    state = create_state(spec, TrainSettings(), mesh, weights=weights, steps=1)
    ready = Ready(spec, state.params, mesh, state.statistics, attributes=attributes)
    candidates = np.ones(attributes.samples, bool)
    candidates[np.unique(np.asarray(loaded.dataset.indices))] = False
    if not candidates.any():
        raise SettingsError("there is no cold item: every one that the tables tell of is in the data")
    answers = cold_answers(ready, loaded.dataset, candidates, k=k, batch_size=batch_size)
    return write_recommendations(out, _named(answers, loaded.dataset, attributes))


def cold_answers(
    ready: Ready, known: SparseDataset, candidates: npt.NDArray[np.bool_], *, k: int, batch_size: int
) -> Answers:
    """The best of `candidates` [items of the attributes] for each sample of `known`, which is what the network was
    trained on, scored by their guessed output rows: as the network would have, had it known them.
    """
    spec, attributes = ready.spec, ready.attributes
    if attributes is None:
        raise ValueError("cold items are known by attributes only")
    output = spec.output
    if output.skips or output.type is not LayerType.FULLY_CONNECTED:
        raise NetworkError(f"layer {output.name}: cold items want a plain Output layer", "$.Layers")
    if any(spec.layer(name) in spec.inputs for name in output.sources):
        raise NetworkError(f"layer {output.name}: cold items want hidden layers before it", "$.Layers")
    learnt = to_weights(spec, ready.params, ready.statistics).connections
    into = [learnt[place] for place, one in enumerate(spec.connections) if one.target == output]
    kernels = [kernel for kernel, _ in into if kernel is not None]
    if len(kernels) < len(into):
        raise NetworkError(f"layer {output.name}: cold items want an Output layer with weights of its own", "$.Layers")
    # [hidden, items] of each source and [items] -> [items, all hidden + 1]
    rows = np.concatenate([*kernels, np.sum([bias for _, bias in into], axis=0)[None, :]]).T
    guessed = guess_rows(rows, known, attributes)
    first = 0
    inputs = question_of(ready, known).inputs
    sources = [layer_outputs(replace(ready, layer=name), inputs, batch_size=batch_size) for name in output.sources]
    for hidden in (np.concatenate(parts, axis=1) for parts in zip(*sources, strict=True)):
        scores = hidden @ guessed[:, :-1].T + guessed[:, -1]
        if output.activation is Activation.SIGMOID:
            scores = 1.0 / (1.0 + np.exp(-scores))
        yield listed(scores, candidates, known, first=first, k=k)
        first += len(hidden)


def guess_rows(
    rows: npt.NDArray[np.float32], known: SparseDataset, attributes: SparseDataset
) -> npt.NDArray[np.float32]:
    """Rows [items of the attributes, width] as the attributes let expect them, by a ridge regression over the items
    that samples have (Gantner et al. 2010, Learning Attribute-to-Feature Mappings for Cold-Start Recommendations).
    """
    warm = np.unique(np.asarray(known.indices))
    matrix = as_matrix(attributes)
    share = np.bincount(matrix[warm].indices, minlength=attributes.width)
    chosen = np.sort(np.argsort(-share, kind="stable")[: min(_MOST, np.count_nonzero(share))])
    # The last column is the intercept.
    ones = np.ones((attributes.samples, 1))
    every: Any = sparse.hstack([matrix[:, chosen], ones], format="csr", dtype=np.float64)
    seen = every[warm]
    normal = (seen.T @ seen).toarray() + _PENALTY * np.eye(len(chosen) + 1)
    return (every @ np.linalg.solve(normal, seen.T @ rows[warm])).astype(np.float32)


def cold_items(
    data: Path,
    network: Path | None,
    *,
    settings: TrainSettings,
    fraction: float,
    tables: Sequence[Path] = (),
    tell: Callable[[EpochReport], None] = lambda _: None,
) -> ColdReport:
    """Hide `fraction` of the items of `data` from training, by the settings' seed, and say how many of each sample's
    are among the first `settings.k` of all that are hidden: by content, and by `network` (JSON), trained on the rest.
    """
    if not 0 < fraction < 1:
        raise SettingsError(f"--fraction {fraction}: more than 0 and less than 1 is wanted")
    loaded = load_data(data)
    attributes = attributes_of(data, loaded.features, tables)
    held = hide_items(loaded.dataset, fraction=fraction, seed=settings.seed)
    cold = np.unique(np.asarray(held.wanted.indices))
    candidates = np.zeros(attributes.samples, bool)
    candidates[cold] = True
    answers = {"content": Content(attributes, candidates).scored(held.known, k=settings.k)}
    if network is not None:
        ready = _trained(read_network(network), held.known, attributes, settings, tell)
        answers["network"] = cold_answers(
            ready, held.known, candidates, k=settings.k, batch_size=_batch_size(ready, settings)
        )
    asked = np.flatnonzero(np.diff(held.wanted.indptr))
    names = loaded.dataset.sample_names or [str(row) for row in range(loaded.dataset.samples)]
    recalls = {name: _recalls(found, held)[asked] for name, found in answers.items()}
    return ColdReport(settings.k, len(cold), tuple(names[row] for row in asked.tolist()), recalls)


def write_per_sample(path: Path, report: ColdReport) -> None:
    """Write `sample` and its recall by each recommender as CSV, aside and renamed."""
    with replacing(path) as aside, aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["sample", *report.recalls])
        lines.writerows(zip(report.samples, *(values.tolist() for values in report.recalls.values()), strict=True))


def _batch_size(ready: Ready, settings: TrainSettings) -> int:
    return pace_of(ready.spec.training, settings).batch_size


def _trained(
    network: NetworkSpec,
    known: SparseDataset,
    attributes: SparseDataset,
    settings: TrainSettings,
    tell: Callable[[EpochReport], None],
) -> Ready:
    found = layer_datasets((*network.inputs, *network.outputs), known, attributes)
    spec = resolve(network, found, found)
    given = training_data(spec, known, attributes)
    mesh, _ = mesh_for(spec, settings, known.samples, find_devices())
    state = train_to_its_end(spec, given, settings, mesh=mesh, tell=tell, attributes=attributes).state
    return Ready(spec, state.params, mesh, state.statistics, attributes=attributes)


def _recalls(answers: Answers, held: HeldOut) -> npt.NDArray[np.float64]:
    """[samples] share of what is wanted that is listed; 0 where nothing is wanted."""
    ids = np.concatenate([found for found, _ in answers])
    wanted = as_matrix(replace(held.wanted, values=None))
    rows = np.repeat(np.arange(len(ids)), ids.shape[1]).reshape(ids.shape)
    hits = np.asarray(wanted[rows.ravel(), np.maximum(ids, 0).ravel()]).reshape(ids.shape) > 0
    counts = np.diff(held.wanted.indptr)
    return (hits & (ids >= 0)).sum(axis=1) / np.maximum(counts, 1)


def _named(answers: Answers, dataset: SparseDataset, attributes: SparseDataset) -> Iterator[Ranked]:
    items, samples = list(attributes.sample_names or ()), iter(dataset.sample_names or ())
    for ids, scores in answers:
        for row, score_row in zip(ids, scores, strict=True):
            pairs = zip(row.tolist(), score_row.tolist(), strict=True)
            yield Ranked(next(samples), tuple((items[int(item)], float(score)) for item, score in pairs if item >= 0))
