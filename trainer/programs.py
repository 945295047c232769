"""DSSTNE's programs `train` and `predict` over its own files: what each flag names is read, used, and the
result written. `generateNetCDF` needs no network and lies in `data/generate.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.data.features import read_index
from trainer.data.netcdf import read_datasets
from trainer.data.text import convert_text, read_filter
from trainer.errors import DataError, InputError, NetworkError, SettingsError
from trainer.network import LayerSpec, read_network, resolve_widths
from trainer.network_file import read_network_file, write_network
from trainer.predict import SCORE_FORMAT, Question, Ready, ranked, union, write_recommendations
from trainer.settings import TrainSettings
from trainer.sharding import make_mesh
from trainer.sparse import FeatureIndex, SparseDataset
from trainer.state import connections_of, create_state
from trainer.train import EpochReport, TrainingData, find_devices, train

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainFiles:
    """`train -c network -i inputs -o targets -n result`."""

    network: Path
    inputs: Path
    targets: Path
    result: Path


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


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to recommend. `multiply`: the filter multiplies scores, as DSSTNE does; otherwise what it lists is
    not recommended. `keep_seen`: recommend what a sample has, too.
    """

    k: int = 100
    batch_size: int = 1024
    keep_seen: bool = False
    multiply: bool = False
    score_format: str = SCORE_FORMAT


def train_files(files: TrainFiles, settings: TrainSettings, *, say: Say) -> None:
    """Train a network on NetCDF datasets and write it; a result that exists is not replaced."""
    if files.result.exists():
        raise InputError(f"Network file already exists: {files.result}")
    network = read_network(files.network)
    found = read_datasets(files.inputs)
    targets = found if files.targets == files.inputs else read_datasets(files.targets)
    widths = {name: dataset.width for name, dataset in {**targets, **found}.items()}
    spec = resolve_widths(network, widths)
    data = TrainingData(_dataset(spec.input, found, files.inputs), _dataset(spec.output, targets, files.targets))
    if data.inputs.samples != data.targets.samples:
        raise DataError(
            f"dataset {spec.output.dataset} has {data.targets.samples} samples, "
            f"{spec.input.dataset} in {files.inputs} has {data.inputs.samples}",
            files.targets,
        )
    mesh = make_mesh(settings.data_shards, find_devices())
    state = train(spec, data, settings, mesh=mesh, tell=lambda report: say(_epoch_text(report)))
    write_network(files.result, spec, connections_of(state, spec))
    say(f"Network written to {files.result}")


def predict_files(files: PredictFiles, options: PredictOptions, *, say: Say) -> None:
    """Recommend for every sample of a text file and write DSSTNE's `recs`."""
    spec, connections = read_network_file(files.network)
    if spec.input.dataset != f"{files.dataset}_input":
        raise NetworkError(
            f"reads dataset {spec.input.dataset!r}, -d {files.dataset} names {files.dataset}_input",
            "input layer",
            files.network,
        )
    features, names = read_index(files.input_features), _names(files.output_features)
    _check_width(features, spec.input, files.input_features)
    _check_width(names, spec.output, files.output_features)
    inputs = convert_text(files.samples, name="input", features=features)
    say(f"Number of network input nodes: {spec.input.width}")
    say(f"Number of entries to generate predictions for: {inputs.dataset.samples}")
    settings = TrainSettings()
    mesh = make_mesh(1, find_devices())
    state = create_state(spec, settings, mesh, connections=connections)
    samples = ranked(
        Ready(spec, state.params, mesh),
        _question(files, options, inputs=inputs.dataset, samples=inputs.samples, names=names),
        k=options.k,
        batch_size=options.batch_size,
        feature_names=names.names(),
    )
    count = write_recommendations(files.result, samples, score_format=_checked(options.score_format))
    say(f"Recommendations for {count} samples written to {files.result}")


def _question(
    files: PredictFiles,
    options: PredictOptions,
    *,
    inputs: SparseDataset,
    samples: FeatureIndex,
    names: FeatureIndex,
) -> Question:
    listed = None
    if files.filter is not None:
        listed = read_filter(files.filter, features=names, samples=samples)
    if options.multiply:
        return Question(inputs, multiply=listed)
    if options.keep_seen:
        return Question(inputs, exclude=listed)
    # Seen features by their number in the output index, which may differ from the input's.
    seen = convert_text(files.samples, name="seen", features=names).dataset
    return Question(inputs, exclude=seen if listed is None else union(seen, listed))


def _dataset(layer: LayerSpec, found: dict[str, SparseDataset], path: Path) -> SparseDataset:
    if layer.dataset not in found:
        known = ", ".join(sorted(found)) or "none"
        raise DataError(f"holds no dataset {layer.dataset!r} for layer {layer.name}; there is {known}", path)
    return found[layer.dataset]


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
    try:
        format(0.5, score_format)
    except ValueError as error:
        raise SettingsError(f"-p {score_format}: not a number format: {error}") from error
    return score_format


def _epoch_text(report: EpochReport) -> str:
    return (
        f"NNNetwork::Train: Epoch {report.epoch}, average error {report.loss + report.regularization:f}, "
        f"average training error {report.loss:f}, average regularization error {report.regularization:f}, "
        f"elapsed time {report.seconds:f}s"
    )
