"""Network and data brought together: loaded, split, and found to fit each other, or refused. NumPy only, so
that a user's machine can check a job before anything is rented.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.attach import attached, resolve
from trainer.data.load import LoadedData, load_data
from trainer.data.split import hold_out
from trainer.network import parameter_count, read_network
from trainer.network_types import LayerKind, NetworkSpec
from trainer.pace import pace_of
from trainer.settings import TrainSettings
from trainer.sparse import FeatureIndex, SparseDataset


@dataclass(frozen=True, slots=True)
class Inputs:
    """A network with its widths, and data of those widths. `held_out` is hidden from training, row by row."""

    spec: NetworkSpec
    loaded: LoadedData
    training: SparseDataset
    held_out: SparseDataset | None

    @property
    def features(self) -> FeatureIndex:
        """Names of the features, in and out."""
        if self.loaded.dataset.features is None:
            raise ValueError("loaded data names its features")
        return self.loaded.dataset.features


def prepare(network: NetworkSpec, data: Path, settings: TrainSettings) -> Inputs:
    """Load `data`, split it as the settings say and give the network its widths."""
    loaded = load_data(data)
    whole = loaded.dataset
    spec = fitted(network, whole, data)
    if settings.held_out == 0:
        return Inputs(spec, loaded, whole, None)
    training, held_out = hold_out(whole, fraction=settings.held_out, seed=settings.seed)
    return Inputs(spec, loaded, training, held_out)


def fitted(network: NetworkSpec, whole: SparseDataset, data: Path) -> NetworkSpec:
    """The network with its widths, if `whole`, which was found at `data`, can be every layer's input and target."""
    everywhere = {layer.dataset: whole for layer in (*network.inputs, *network.outputs)}
    spec = resolve(network, everywhere, everywhere)
    for kind in (LayerKind.INPUT, LayerKind.OUTPUT):
        attached(spec, everywhere, data, kind=kind)
    return spec


def check(network: Path, data: Path) -> dict[str, Any]:
    """Counts of samples, features, interactions and parameters, if network and data fit each other; and how the network
    is trained where settings do not say.
    """
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
