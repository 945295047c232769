"""The ten-line API: retrieve a dataset, generate input and output layer, train, predict.

recommender = Recommender()
recommender.retrieve_dataset("https://files.grouplens.org/datasets/movielens/ml-latest-small.zip")
recommender.generate_input_layer("gl_input")
recommender.generate_output_layer("gl_output")
recommender.train(batch_size=256, epochs=10)
recommendations = recommender.predict(k=10)
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.attach import resolve
from trainer.content import wants_attributes
from trainer.data.features import write_index
from trainer.data.load import LoadedData
from trainer.data.netcdf import read_datasets, write_dataset
from trainer.data.retrieve import retrieve
from trainer.data.weighing import Weighing, load_weighed
from trainer.ending import train_to_its_end
from trainer.errors import DataError, InputError, SettingsError
from trainer.meshing import mesh_for
from trainer.network import read_network
from trainer.network_file import write_network
from trainer.network_types import LayerKind, LayerSpec, NetworkSpec
from trainer.predict import Question, Ready, ranked, write_recommendations
from trainer.settings import TrainSettings
from trainer.sparse import FeatureIndex, SparseDataset, round_up
from trainer.state import weights_of
from trainer.train import EpochReport, TrainingData, find_devices

_HERE = Path(__file__).resolve().parent
_OF_JOBS = frozenset({"tune_trials", "tune_minutes", "min_rating", "analog", "half_life_days"})
"""Settings of run directories alone."""


def default_network() -> Path:
    """The network that ships as the default."""
    inside = _HERE / "files" / "networks"
    folder = inside if inside.is_dir() else _HERE.parent / "configs" / "networks"
    return folder / "movielens.json"


class Recommender:
    """A recommender that keeps its files in `folder`. Calls are made in the order of the module's example;
    one that comes too early raises `InputError` and says which is missing.
    """

    def __init__(
        self,
        network: Path | str | None = None,
        *,
        folder: Path | str = "recommender",
        tell: Callable[[EpochReport], None] = lambda _: None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._network = read_network(Path(network) if network is not None else default_network())
        if wants_attributes((*self._network.inputs, *self._network.outputs)):
            raise InputError("a network over attributes is trained with `trainer train --run-dir`")
        self._tell = tell
        self._loaded: LoadedData | None = None
        self._layers: dict[str, Path] = {}
        self._ready: Ready | None = None

    def retrieve_dataset(self, url: str, *, sha256: str | None = None, weighing: Weighing | None = None) -> Path:
        """Fetch a dataset (URL or path; zip and tar.gz are unpacked) and read it, its ratings as `weighing` says;
        returns where it lies.
        """
        path = retrieve(url, into=self.folder / "data", sha256=sha256)
        self._loaded = load_weighed(path, weighing or Weighing())
        self._layers, self._ready = {}, None
        return path

    def generate_input_layer(self, name: str) -> Path:
        """Write the dataset of the input layer, with its feature and sample index; returns its path."""
        loaded = self._need_data()
        samples = FeatureIndex({sample: row for row, sample in enumerate(loaded.dataset.sample_names or ())})
        write_index(samples, self.folder / "samples_input")
        return self._generate("input", name, loaded)

    def generate_output_layer(self, name: str) -> Path:
        """Write the dataset of the output layer, with its feature index; returns its path."""
        return self._generate("output", name, self._need_data())

    def train(self, batch_size: int | None = None, epochs: int | None = None, **settings: Any) -> Path:
        """Train on the two layers, as the network states where nothing is given; `settings` are further
        `TrainSettings`. Returns `gl.nc`.
        """
        idle = sorted(_OF_JOBS & settings.keys())
        if idle:
            raise SettingsError(
                f"{idle[0]}: only a job heeds it; retrieve_dataset takes a weighing, the verb tune tunes"
            )
        spec = self._named_network()
        asked = TrainSettings.of(batch_size=batch_size, epochs=epochs, **settings)
        # Both layers come from the one dataset, so a batch is assembled only once.
        both = self._dataset("input")
        found = {layer.dataset: both for layer in (*spec.inputs, *spec.outputs)}
        spec = resolve(spec, found, found)
        mesh, _ = mesh_for(spec, asked, both.samples, find_devices())
        data = TrainingData({one.name: both for one in spec.inputs}, {one.name: both for one in spec.outputs})
        state = train_to_its_end(spec, data, asked, mesh=mesh, tell=self._tell).state
        path = self.folder / "gl.nc"
        write_network(path, spec, weights_of(state, spec))
        self._ready = Ready(spec, state.params, mesh, state.statistics)
        return path

    def predict(self, k: int = 10, *, batch_size: int = 256) -> dict[str, tuple[tuple[str, float], ...]]:
        """The `k` best features of every sample that it does not have, best first, with their scores; also
        written to `recs`.
        """
        if self._ready is None:
            raise InputError("nothing is trained yet: call train first")
        dataset = self._need_data().dataset
        question = Question({layer.name: dataset for layer in self._ready.spec.inputs}, exclude=dataset)
        found = list(
            ranked(
                self._ready,
                question,
                k=k,
                batch_size=round_up(batch_size, self._ready.mesh.shape["data"]),
                feature_names=_features(self._need_data()).names(),
                sample_names=dataset.sample_names or (),
            )
        )
        write_recommendations(self.folder / "recs", iter(found))
        return {sample.sample: sample.items for sample in found}

    def _generate(self, role: str, name: str, loaded: LoadedData) -> Path:
        path = self.folder / f"{name}.nc"
        write_dataset(replace(loaded.dataset, name=name), path)
        write_index(_features(loaded), self.folder / f"features_{role}")
        self._layers[role] = path
        return path

    def _named_network(self) -> NetworkSpec:
        """The network with its Input and Output layers over the generated datasets."""
        for role in ("input", "output"):
            if role not in self._layers:
                raise InputError(f"there is no {role} layer yet: call generate_{role}_layer first")
        return replace(self._network, layers=tuple(self._over(layer) for layer in self._network.layers))

    def _over(self, layer: LayerSpec) -> LayerSpec:
        role = {LayerKind.INPUT: "input", LayerKind.OUTPUT: "output"}.get(layer.kind)
        return layer if role is None else replace(layer, dataset=self._layers[role].stem)

    def _dataset(self, role: str) -> SparseDataset:
        path = self._layers[role]
        found = read_datasets(path).get(path.stem)
        if not isinstance(found, SparseDataset):
            raise DataError(f"holds no sparse dataset {path.stem!r}", path)
        return found

    def _need_data(self) -> LoadedData:
        if self._loaded is None:
            raise InputError("there is no data yet: call retrieve_dataset first")
        return self._loaded


def _features(loaded: LoadedData) -> FeatureIndex:
    if loaded.dataset.features is None:
        raise ValueError("loaded data names its features")
    return loaded.dataset.features
