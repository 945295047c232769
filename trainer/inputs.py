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
from trainer.data.load import LoadedData, load_data
from trainer.data.split import hold_out
from trainer.errors import DataError
from trainer.network import parameter_count, read_network
from trainer.network_types import LayerKind, NetworkSpec
from trainer.pace import AUTO_BATCH, pace_of
from trainer.settings import TrainSettings
from trainer.sparse import FeatureIndex, SparseDataset


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
    """Load `data`, split it as the settings say and give the network its widths."""
    loaded = load_data(data)
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


def check(network: Path, data: Path | None) -> dict[str, Any]:
    """Counts of samples, features, interactions and parameters, if network and data fit each other; and how the network
    is trained where settings do not say. Without data what it would tell is `None`.
    """
    if data is None:
        stated = read_network(network).training
        pace = pace_of(stated, TrainSettings())
        return {
            **dict.fromkeys(("samples", "features", "nnz", "parameters")),
            "batch_size": None if stated.batch_size == AUTO_BATCH else pace.batch_size,
            "epochs": pace.epochs,
            "early_stopping": pace.stopping and asdict(pace.stopping),
        }
    inputs = prepare(read_network(network), data, TrainSettings())
    whole, pace = inputs.loaded.dataset, pace_of(inputs.spec.training, TrainSettings())
    return {
        "samples": whole.samples,
        "features": len(inputs.features),
        "nnz": whole.nnz,
        "parameters": parameter_count(inputs.spec),
        "batch_size": pace.batch_size,
        "epochs": pace.epochs,
        "early_stopping": pace.stopping and asdict(pace.stopping),
    }
