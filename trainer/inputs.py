"""Network and data brought together: loaded, split, and found to fit each other, or refused. NumPy only, so
that a user's machine can check a job before anything is rented.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.attach import attached, resolve
from trainer.content import layer_datasets, wants_attributes
from trainer.data.attributes import ATTRIBUTE_FILES, attribute_tables, read_attributes
from trainer.data.load import LoadedData
from trainer.data.split import hold_out
from trainer.data.weighing import Weighing, load_weighed
from trainer.errors import DataError, NetworkError
from trainer.network import network_of, parameter_count, read_tree
from trainer.network_types import AUTO, LayerKind, NetworkSpec
from trainer.pace import AUTO_BATCH, pace_of
from trainer.ranges import closed, corners, is_open, open_values
from trainer.settings import TrainSettings
from trainer.sparse import FeatureIndex, SparseDataset

_STATED = {
    "batch_size": "$.training.batchsize",
    "epochs": "$.training.epochs",
    "learning_rate": "$.optimizer.learningrate",
}
"""Settings, and where a network may leave open what they say, in lower case."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A network with its widths, and data of those widths. `held_out` is hidden from training, row by row."""

    spec: NetworkSpec
    loaded: LoadedData
    training: SparseDataset
    held_out: SparseDataset | None
    attributes: SparseDataset | None = None
    """Items × attributes, where the network asks for them."""

    @property
    def features(self) -> FeatureIndex:
        """Names of the features, in and out."""
        return self.loaded.features


def prepare(network: NetworkSpec, data: Path, settings: TrainSettings) -> Inputs:
    """Load `data`, weigh and split it as the settings say and give the network its widths."""
    weighing = Weighing(settings.analog, settings.min_rating, settings.half_life_days)
    loaded = load_weighed(data, weighing)
    whole = loaded.dataset
    layers = (*network.inputs, *network.outputs)
    attributes = attributes_of(data, loaded.features) if wants_attributes(layers) else None
    spec = fitted(network, whole, data, attributes)
    if settings.held_out == 0:
        return Inputs(spec, loaded, whole, None, attributes)
    training, held_out = hold_out(whole, fraction=settings.held_out, seed=settings.seed)
    return Inputs(spec, loaded, training, held_out, attributes)


def attributes_of(
    data: Path, items: FeatureIndex, more: Sequence[Path] = (), *, at_least: int = 2, index: FeatureIndex | None = None
) -> SparseDataset:
    """Items × attributes by the tables in folder `data` and by `more`; `DataError` where there are none at all."""
    tables = [*attribute_tables(data), *more]
    if not tables:
        names = ", ".join(ATTRIBUTE_FILES)
        raise DataError(f"attributes are wanted, but no table tells any; it is a folder with {names} that tells", data)
    attributes = read_attributes(tables, items, at_least=at_least, index=index)
    if attributes.nnz == 0:
        raise DataError(f"no attribute is told of {at_least} items or more", tables[0])
    return attributes


def fitted(
    network: NetworkSpec, whole: SparseDataset, data: Path, attributes: SparseDataset | None = None
) -> NetworkSpec:
    """The network with its widths, if `whole`, which was found at `data`, or what is made of it where a layer wants
    attributes, can be every layer's input and target.
    """
    everywhere = layer_datasets((*network.inputs, *network.outputs), whole, attributes)
    spec = resolve(network, everywhere, everywhere)
    for kind in (LayerKind.INPUT, LayerKind.OUTPUT):
        attached(spec, everywhere, data, kind=kind)
    return spec


def read_candidates(network: Path, settings: TrainSettings) -> tuple[NetworkSpec, ...]:
    """The network of a file; where trials are wanted of what it leaves open, those with values at their ends, the first
    one with all at their first. `NetworkError` where it leaves open what it should not.
    """
    root = read_tree(network)
    if settings.tune_trials:
        opened = open_values(root)
        paths = {one.path.lower(): one.path for one in opened}
        for name, path in _STATED.items():
            if path in paths and getattr(settings, name) is not None:
                raise NetworkError(f"is left open, but the settings say {name}; one of both is wanted", paths[path])
        return tuple(network_of(closed(root, values)) for values in corners(opened))
    if is_open(root):
        path = open_values(root)[0].path
        raise NetworkError(
            "the value is left open: say how many combinations to try (tune_trials), or write one", path, str(network)
        )
    return (network_of(root),)


def read_widest(network: Path) -> NetworkSpec:
    """The network of a file; of one that leaves values open, that with the most units among its ends."""
    trials = int(is_open(read_tree(network)))
    candidates = read_candidates(network, TrainSettings(tune_trials=trials))
    return max(candidates, key=lambda one: sum(layer.width for layer in one.layers if layer.shape is not AUTO))


def without_open(network: Path, settings: TrainSettings) -> TrainSettings:
    """The settings without those that stand for what the network leaves open."""
    paths = {one.path.lower() for one in open_values(read_tree(network))}
    return settings.model_copy(update={name: None for name, path in _STATED.items() if path in paths})


def check(network: Path, data: Path | None, settings: TrainSettings | None = None) -> dict[str, Any]:
    """Counts of samples, features, interactions and parameters, if network, data and settings fit each other; and how
    the network is trained where settings do not say. Of a network with open values all ends must fit; the most
    parameters count, and else what it is with all values at their first ends. What only data
    could tell is `None` without them.
    """
    settings = settings or TrainSettings()
    first, *others = read_candidates(network, settings)
    if data is None:
        return _check_alone(first)
    inputs = prepare(first, data, settings)
    whole, pace = inputs.loaded.dataset, pace_of(inputs.spec.training, TrainSettings())
    specs = [inputs.spec, *(fitted(other, whole, data, inputs.attributes) for other in others)]
    return {
        "samples": whole.samples,
        "features": len(inputs.features),
        "nnz": whole.nnz,
        "parameters": max(map(parameter_count, specs)),
        "batch_size": pace.batch_size,
        "epochs": pace.epochs,
        "early_stopping": pace.stopping and asdict(pace.stopping),
    }


def _check_alone(spec: NetworkSpec) -> dict[str, Any]:
    stated = spec.training
    pace = pace_of(stated, TrainSettings())
    return {
        **dict.fromkeys(("samples", "features", "nnz", "parameters")),
        "batch_size": None if stated.batch_size == AUTO_BATCH else pace.batch_size,
        "epochs": pace.epochs,
        "early_stopping": pace.stopping and asdict(pace.stopping),
    }
