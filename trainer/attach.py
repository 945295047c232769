"""Datasets found by name for a network's Input and Output layers (DSSTNE spec 4.2), or refused. NumPy only, so that a
user's machine can check a job before anything is rented.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from trainer.data.netcdf import Dataset
from trainer.errors import DataError, NetworkError
from trainer.network import resolve_shapes
from trainer.network_names import why_not_target
from trainer.network_types import LayerKind, LayerSpec, NetworkSpec
from trainer.sparse import SparseDataset

Found = Mapping[str, Dataset]
"""By dataset name."""


def sides_of(dataset: Dataset) -> tuple[int, ...]:
    """Width, height, length of a dataset, as far as it has dimensions."""
    return dataset.sides or (dataset.width,)


def resolve(network: NetworkSpec, inputs: Found, targets: Found) -> NetworkSpec:
    """The network with its shapes, and with what its layers learn from their datasets: an Input layer whether it is
    sparse and analog, an Output layer whether units without a target cost anything.
    """
    shapes = {name: sides_of(dataset) for name, dataset in {**targets, **inputs}.items()}
    spec = resolve_shapes(network, shapes)
    samples = next((dataset.samples for dataset in inputs.values()), 0)
    layers = tuple(_taught(layer, inputs, targets) for layer in spec.layers)
    return replace(spec, layers=layers, training=spec.training.over(samples))


def attached(
    spec: NetworkSpec, found: Found, path: Path, *, kind: LayerKind, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Dataset]:
    """The dataset of each layer of `kind`, by layer name, all of as many samples; `path` is where they were found."""
    role = kind.name.lower()
    datasets: dict[str, Dataset] = {}
    for position, layer in enumerate(spec.layers):
        if layer.kind is kind:
            datasets[layer.name] = _dataset(spec, layer, f"$.Layers[{position}]", found, path)
            tell(f"NNNetwork::LoadDataSets: Found data set {layer.dataset} for {role} layer {layer.name}")
    return datasets


def check_samples(datasets: Mapping[str, Dataset], path: Path) -> None:
    """Refuse datasets that do not have as many samples as the first."""
    (first, one), *others = datasets.items()
    for name, dataset in others:
        if dataset.samples != one.samples:
            raise DataError(
                f"dataset {dataset.name} of layer {name} has {dataset.samples} samples, "
                f"{one.name} of layer {first} has {one.samples}",
                path,
            )


def _dataset(spec: NetworkSpec, layer: LayerSpec, where: str, found: Found, path: Path) -> Dataset:
    if layer.dataset not in found:
        known = ", ".join(sorted(found)) or "none"
        raise DataError(f"holds no dataset {layer.dataset!r} for layer {layer.name}; there is {known}", path)
    dataset = found[layer.dataset]
    sparse = isinstance(dataset, SparseDataset)
    if not sparse and dataset.width != layer.width:
        raise NetworkError(
            f"layer {layer.name} has {layer.width} units, dense dataset {dataset.name} {dataset.width}", f"{where}.N"
        )
    if layer.kind is LayerKind.OUTPUT:
        problem = why_not_target(spec.loss_of(layer), sparse=sparse)
        if problem:
            raise NetworkError(f"layer {layer.name}: {problem}", "$.ErrorFunction")
        if layer.negative_weight != 1 and not sparse:
            raise NetworkError(f"layer {layer.name}: only sparse targets have negatives", f"{where}.ErrorFunction")
        if layer.sampling.by and not sparse:
            raise NetworkError(f"layer {layer.name}: only sparse targets can be sampled", f"{where}.Sampling")
    return dataset


def _taught(layer: LayerSpec, inputs: Found, targets: Found) -> LayerSpec:
    if layer.kind is LayerKind.INPUT and layer.dataset in inputs:
        dataset = inputs[layer.dataset]
        sparse = isinstance(dataset, SparseDataset)
        return replace(layer, sparse=sparse, denoised=layer.sparse, analog=sparse and dataset.values is not None)
    if layer.kind is LayerKind.OUTPUT and layer.dataset in targets:
        dataset = targets[layer.dataset]
        return replace(layer, ignore_zero=isinstance(dataset, SparseDataset) and dataset.ignore_zero)
    return layer
