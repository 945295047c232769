"""A network and its baselines measured on one split, told step by step to `say`. Where validation was taken from
samples that are trained on, everything is chosen by it and then learns anew from both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from trainer.comparing import Result, digest
from trainer.content import wants_attributes
from trainer.data.features import read_index
from trainer.data.protocols import Split
from trainer.ending import train_to_its_end
from trainer.errors import DataError, NetworkError, SettingsError
from trainer.evaluate import NetworkRecommender
from trainer.fitting import training_data
from trainer.inputs import attributes_of, fitted
from trainer.job import Say, epoch_text
from trainer.meshing import mesh_for
from trainer.metrics import KS, Measured, measured
from trainer.network import read_network
from trainer.network_file import read_network_file
from trainer.network_types import NetworkSpec
from trainer.pace import METRICS, metric_k, pace_of
from trainer.predict import Ready
from trainer.recommends import Recommends
from trainer.referees import NAMES, fit
from trainer.settings import TrainSettings
from trainer.sparse import SparseDataset, round_up
from trainer.state import TrainState, create_state
from trainer.train import find_devices

NETWORK = "network"
"""The name of the row that the others are held against."""
_INDEX_BESIDE = "features_output"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be measured."""

    baselines: tuple[str, ...] = ("popularity",)
    ks: tuple[int, ...] = KS
    metric: str | None = None
    """What a network that stops early is stopped and chosen by; `None`: by what it states."""
    tables: Path | None = None
    """Where tables of attributes lie, for a network that wants them."""

    @classmethod
    def of(cls, baselines: str, ks: Sequence[int], metric: str | None = None) -> "Wishes":
        """From names parted by commas, and every k there is to be. `SettingsError` for what is not known."""
        names = tuple(dict.fromkeys(name.strip() for name in baselines.split(",") if name.strip()))
        for name in names:
            if name not in NAMES:
                raise SettingsError(f"baselines: {name!r} is none; there is {', '.join(NAMES)}")
        if metric is not None and metric_k(metric) is None:
            raise SettingsError(f"metric: {metric!r} is none; {', '.join(f'{one}@K' for one in METRICS)} is wanted")
        return cls(names, tuple(sorted(set(ks))) or KS, metric)


def measure(
    network: Path, split: Split, settings: TrainSettings, wishes: Wishes | None = None, *, say: Say
) -> list[Result]:
    """The network, then each baseline, measured on the split's test. A definition (JSON) is trained on the split's
    training part first; a trained network (NetCDF) is asked as it is, and its features must be numbered as there.
    """
    wanted = wishes or Wishes()
    say(f"{split.test.known.samples:,} samples to ask, protocol {split.protocol}, seed {split.seed}")
    asked = digest(split.test)
    return [
        Result(name, asked, _measured(one, split, wanted))
        for name, one in _models(network, split, settings, wanted, say)
    ]


def _models(
    network: Path, split: Split, settings: TrainSettings, wishes: Wishes, say: Say
) -> Iterator[tuple[str, Recommends]]:
    """One at a time: none is held longer than it is asked."""
    yield NETWORK, _network(network, split, settings, wishes, say=say)
    for name in wishes.baselines:
        say(f"baseline {name}")
        live = len(split.features)
        learnt = fit(
            name,
            split.training,
            live=live,
            validation=split.validation,
            seed=settings.seed,
            again=split.rejoined(),
        )
        if learnt.described:
            say(f"baseline {name}: {learnt.described}")
        yield name, learnt


def _measured(recommender: Recommends, split: Split, wishes: Wishes) -> Measured:
    lists = recommender.best(split.test.known, k=max(wishes.ks))
    return measured(lists, split.test.wanted, split.training, live=len(split.features), ks=wishes.ks)


def _network(network: Path, split: Split, settings: TrainSettings, wishes: Wishes, *, say: Say) -> Recommends:
    devices, samples = find_devices(), split.training.samples
    if network.suffix == ".nc":
        stored, weights = read_network_file(network)
        _check_features(network, split)
        attributes = _attributes(stored, split, wishes)
        spec = fitted(stored, _as_wide(stored, split, network), network, attributes)
        mesh, _ = mesh_for(spec, settings, samples, devices)
        state = create_state(spec, settings, mesh, weights=weights, steps=1)
    else:
        stated = read_network(network)
        attributes = _attributes(stated, split, wishes)
        spec = fitted(stated, split.training, network, attributes)
        mesh, _ = mesh_for(spec, settings, samples, devices)
        state = _trained(spec, split, settings, mesh, _Means(attributes, wishes.metric, say))
    ready = Ready(spec, state.params, mesh, state.statistics, attributes=attributes)
    live = len(split.features) if spec.output.width == split.features.width else _trained_on(split)
    return NetworkRecommender(ready, live, pace_of(spec.training, settings).batch_size)


@dataclass(frozen=True, slots=True)
class _Means:
    """What a training needs besides network, split and settings."""

    attributes: SparseDataset | None
    metric: str | None
    say: Say


def _trained(spec: NetworkSpec, split: Split, settings: TrainSettings, mesh: Mesh, means: _Means) -> TrainState:
    whole, stopping = split.rejoined(), pace_of(spec.training, settings).stopping
    if stopping is not None and means.metric is not None:
        stopping = replace(stopping, metric=means.metric)
    learnt_from = split.training if stopping is not None or whole is None else whole
    trained = train_to_its_end(
        spec,
        training_data(spec, learnt_from, means.attributes),
        settings,
        mesh=mesh,
        tell=lambda report: means.say(epoch_text(report)),
        validation=split.validation,
        stopping=stopping,
        again=None if whole is None else training_data(spec, whole, means.attributes),
        attributes=means.attributes,
    )
    if trained.judged is not None or trained.fits:
        means.say(str(trained))
    return trained.state


def _attributes(network: NetworkSpec, split: Split, wishes: Wishes) -> SparseDataset | None:
    """Items × attributes, if a layer wants them."""
    if not wants_attributes((*network.inputs, *network.outputs)):
        return None
    if wishes.tables is None:
        raise SettingsError("data: the network wants attributes, which a split does not keep; measure it by --data")
    return attributes_of(wishes.tables, split.features)


def _as_wide(stored: NetworkSpec, split: Split, network: Path) -> SparseDataset:
    """The training part as wide as a trained network: as the split, or as the features that training has, which come
    first. Other networks are refused.
    """
    width, trained = stored.input.width, _trained_on(split)
    if width not in {split.features.width, round_up(trained)}:
        raise NetworkError(
            f"has {width} units, the split's {trained} features for training want {round_up(trained)}; measure a "
            "network that was trained on the split's training part, or a definition",
            "input",
            network,
        )
    return replace(split.training, width=width)


def _trained_on(split: Split) -> int:
    """How many features, the first ones, training may have."""
    return int(np.max(split.training.indices)) + 1


def _check_features(network: Path, split: Split) -> None:
    """Refuse a trained network of other features, as far as an index beside it tells."""
    beside = network.parent / _INDEX_BESIDE
    if not beside.is_file():
        return
    for name, number in read_index(beside).ids.items():
        if split.features.ids.get(name) != number:
            raise DataError(
                f"feature {name!r} is unit {number} of {network.name}, but not of the split; measure a network that "
                "was trained on the split's training part, or a definition",
                beside,
            )
