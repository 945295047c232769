"""DSSTNE's program `predict` over its own files, with its messages (spec 7): a trained network asked about the samples
of a text file.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np

from trainer.data.features import read_index, write_index
from trainer.data.generate import ANALOG, INDICATOR
from trainer.data.netcdf import Dataset, write_dataset
from trainer.data.split import union
from trainer.data.text import Reading, convert_text, read_filter, text_files
from trainer.errors import DataError, NetworkError, SettingsError
from trainer.filing import check_writable
from trainer.network_file import read_network_file
from trainer.network_types import LayerKind, LayerSpec, NetworkSpec
from trainer.predict import (
    SCORE_FORMAT,
    Question,
    Ranked,
    Ready,
    layer_outputs,
    ranked,
    write_recommendations,
)
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import FeatureIndex, SparseDataset
from trainer.state import create_state
from trainer.train import find_devices

Say = Callable[[str], None]

_SCORE_FORMAT = re.compile(r"[-+ #0]{0,5}\d{0,3}(\.\d{0,3})?(l|h|L)?[fFeEgG][^%]*")


@dataclass(frozen=True, slots=True)
class PredictFiles:
    """`predict -d name -n network -r samples -i features -o features [-f filter] -s result`."""

    dataset: str
    network: Path
    samples: Path
    input_features: Path
    output_features: Path
    result: Path
    filter: Path | None = None
    more: Mapping[str, tuple[Path, Path]] = field(default_factory=dict[str, tuple[Path, Path]])
    """Samples and feature index of further input layers, by dataset name."""


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to recommend. `multiply`: the filter multiplies scores, as DSSTNE does; otherwise what it lists is
    not recommended. `exclude_seen`: nor is what a sample has.
    """

    k: int = 100
    batch_size: int = 1024
    exclude_seen: bool = False
    multiply: bool = False
    score_format: str = SCORE_FORMAT
    output_layer: str = ""
    """`""`: the Output layer called `Output`, or the only one."""
    layer: str = ""
    """Write what this layer puts out instead of recommendations."""
    kind: str = ""
    """`analog` or `indicator`: whether values of samples are read; `""`: if the network was trained on values."""


def other_inputs(given: Sequence[str]) -> dict[str, tuple[Path, Path]]:
    """Samples and feature index by dataset name, of `DATASET=SAMPLES,FEATURES`."""
    found: dict[str, tuple[Path, Path]] = {}
    for text in given:
        name, _, paths = text.partition("=")
        samples, _, features = paths.rpartition(",")
        if not (name and samples and features):
            raise SettingsError(f"--also {text}: DATASET=SAMPLES,FEATURES is wanted")
        found[name] = (Path(samples), Path(features))
    return found


def predict_files(files: PredictFiles, options: PredictOptions, *, say: Say) -> None:
    """Recommend for every sample of a text file and write DSSTNE's `recs`, or what a layer puts out."""
    started = time.monotonic()
    score_format = _checked(options.score_format)
    if options.kind not in ("", INDICATOR, ANALOG):
        raise SettingsError(f"Unknown dataset type [{options.kind}]. Please select one of {{{INDICATOR},{ANALOG}}}")
    check_writable(files.result)
    spec, weights = read_network_file(files.network)
    layers = _input_layers(spec, files)
    output = _output_layer(spec, options, files.network)
    names = _names(files.output_features)
    _check_width(names, output, files.output_features)
    inputs, samples = _read_inputs(layers, files, options)
    mesh = make_mesh(1, find_devices())
    state = create_state(spec, TrainSettings(), mesh, weights=weights, steps=1)
    ready = Ready(spec, state.params, mesh, state.statistics, options.layer or output.name)
    say(f"Number of network input nodes: {spec.input.width}")
    say(f"Number of entries to generate predictions for: {len(samples)}")
    say(f"Total time for loading network and data is: {time.monotonic() - started:f}")
    if options.layer:
        rows = _layer_rows(ready, inputs, options, samples=samples, names=names)
    else:
        rows = ranked(
            ready,
            _question(files, options, inputs, samples=samples, names=names, say=say),
            k=options.k,
            batch_size=options.batch_size,
            feature_names=names.names(),
            sample_names=samples.names(),
        )
    predicted = _Predicted(rows, options.batch_size, say)
    say(f"Writing to {files.result}")
    before = time.monotonic()
    write_recommendations(files.result, iter(predicted), score_format=score_format)
    writing = time.monotonic() - before - predicted.seconds
    say(f"Time Elapsed for Filtering and selecting Top {options.k} recs: {predicted.seconds:f}")
    say(f"Time Elapsed for Writing to file: {writing:f}")
    say(f"Total time for Generating recs for {len(samples)} was {time.monotonic() - started:f}")


class _Predicted:
    """Samples as they are predicted, told of batch by batch, and the seconds that took."""

    def __init__(self, samples: Iterator[Ranked], batch_size: int, say: Say) -> None:
        self._samples, self._batch_size, self._say = samples, batch_size, say
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Ranked]:
        for position in count():
            if position % self._batch_size == 0:
                self._say(f"Predicting from position {position}")
            before = time.monotonic()
            sample = next(self._samples, None)
            self.seconds += time.monotonic() - before
            if sample is None:
                return
            yield sample


def _input_layers(spec: NetworkSpec, files: PredictFiles) -> dict[str, list[LayerSpec]]:
    """The Input layers by dataset name, if just these datasets are given."""
    layers: dict[str, list[LayerSpec]] = {}
    for layer in spec.inputs:
        layers.setdefault(layer.dataset, []).append(layer)
    given = (f"{files.dataset}_input", *files.more)
    if set(given) != set(layers):
        raise NetworkError(
            f"reads the datasets {', '.join(layers)}; given are {', '.join(given)}", "input layers", files.network
        )
    return layers


def _read_inputs(
    layers: Mapping[str, Sequence[LayerSpec]], files: PredictFiles, options: PredictOptions
) -> tuple[dict[str, Dataset], FeatureIndex]:
    """The dataset of every Input layer by its name, and the samples, numbered as they appear. The main dataset and
    its samples are left in the working directory, as DSSTNE does.
    """
    main = f"{files.dataset}_input"
    samples = FeatureIndex({})
    inputs: dict[str, Dataset] = {}
    for name, (text, index_path) in {main: (files.samples, files.input_features), **files.more}.items():
        features = read_index(index_path)
        for layer in layers[name]:
            _check_width(features, layer, index_path)
        analog = options.kind == ANALOG if options.kind else any(layer.analog for layer in layers[name])
        reading = Reading(analog=analog, update=False)
        found = convert_text(text, name=name, features=features, samples=samples, reading=reading)
        if name == main:
            samples = found.samples
            write_dataset(found.dataset, Path(f"{main}_predict.nc"))
            write_index(samples, Path(f"{main}_predict.samplesIndex"))
        rows = found.dataset if name == main else _aligned(found.dataset, samples)
        inputs |= {layer.name: rows for layer in layers[name]}
    return inputs, samples


def _aligned(dataset: SparseDataset, samples: FeatureIndex) -> SparseDataset:
    """One row for each of `samples`: the dataset's of that name, or an empty one."""
    rows = {name: row for row, name in enumerate(dataset.sample_names or ())}
    chosen = np.array([rows.get(name, -1) for name in samples.names()], np.int64)
    lengths = np.where(chosen >= 0, np.diff(dataset.indptr)[chosen], 0)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.where(chosen >= 0, dataset.indptr[:-1][chosen], 0)
    source = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
    return replace(
        dataset,
        indptr=indptr,
        indices=dataset.indices[source],
        values=None if dataset.values is None else dataset.values[source],
        sample_names=samples.names(),
    )


def _question(
    files: PredictFiles,
    options: PredictOptions,
    inputs: Mapping[str, Dataset],
    *,
    samples: FeatureIndex,
    names: FeatureIndex,
    say: Say,
) -> Question:
    listed = None
    if files.filter is not None:
        paths = text_files(files.filter)
        say(f"Loading {len(paths)} filter files")
        for path in paths:
            say(f"\tLoading filter: {path}")
        listed = read_filter(files.filter, features=names, samples=samples)
        say(f"Info:SamplesFilter {len(samples)}")
    multiply = listed if options.multiply else None
    exclude = None if options.multiply else listed
    if not options.exclude_seen:
        return Question(inputs, exclude=exclude, multiply=multiply)
    # Seen features by their number in the output index, which may differ from the input's.
    seen = convert_text(files.samples, name="seen", features=names, samples=samples).dataset
    return Question(inputs, exclude=seen if exclude is None else union(seen, exclude), multiply=multiply)


def _layer_rows(
    ready: Ready,
    inputs: Mapping[str, Dataset],
    options: PredictOptions,
    *,
    samples: FeatureIndex,
    names: FeatureIndex,
) -> Iterator[Ranked]:
    """Every unit of a layer by number, those of an Output layer by feature name, in order."""
    layer = ready.spec.layer(ready.layer)
    is_named = layer.kind is LayerKind.OUTPUT
    units = names.names() if is_named else [str(unit) for unit in range(layer.width)]
    waiting = iter(samples.names())
    for outputs in layer_outputs(ready, inputs, batch_size=options.batch_size):
        for row in outputs[:, : len(units)]:
            yield Ranked(next(waiting), tuple(zip(units, row.tolist(), strict=True)))


def _output_layer(spec: NetworkSpec, options: PredictOptions, path: Path) -> LayerSpec:
    """The Output layer that is asked."""
    named = {layer.name: layer for layer in spec.outputs}
    known = [layer.name for layer in spec.layers if layer.kind not in (LayerKind.INPUT, LayerKind.TARGET)]
    if options.layer in [layer.name for layer in spec.inputs]:
        raise NetworkError(f"{options.layer} is an Input layer, it puts out what it reads", "-l", path)
    if options.layer and options.layer not in known:
        raise NetworkError(f"no layer is called {options.layer!r}; there is {', '.join(known)}", "-l", path)
    wanted = options.output_layer or (options.layer if options.layer in named else "")
    if wanted and wanted not in named:
        raise NetworkError(f"no Output layer is called {wanted!r}; there is {', '.join(named)}", "layers", path)
    if not wanted and len(named) > 1 and "Output" not in named:
        raise NetworkError(
            f"has several Output layers: {', '.join(named)}; --output-layer names the one to ask", "layers", path
        )
    return named.get(wanted, spec.output)


def _names(path: Path) -> FeatureIndex:
    index = read_index(path)
    try:
        index.names()
    except ValueError as error:
        raise DataError(str(error), path) from error
    return index


def _check_width(index: FeatureIndex, layer: LayerSpec, path: Path) -> None:
    if len(index) > layer.width:
        raise DataError(f"lists {len(index)} features, layer {layer.name} has {layer.width} units", path)


def _checked(score_format: str) -> str:
    if not _SCORE_FORMAT.fullmatch(score_format):
        raise SettingsError(f"-p {score_format}: no format of printf for a number, as 4.3f is one")
    return score_format
