"""What the steps of a training are given: batches on the devices, made ahead, by each process its share."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from trainer.data.batches import paired_batches
from trainer.data.netcdf import Dataset
from trainer.data.prefetch import prefetched
from trainer.data.sampling import Sampler
from trainer.data.slices import Slices
from trainer.deal import Deal, deals_of
from trainer.network_types import NetworkSpec
from trainer.sharding import share_of, shares_to_mesh, to_mesh
from trainer.sparse import SparseDataset


@dataclass(frozen=True, slots=True)
class Feed:
    """Inputs and targets by layer name, and how batches of them are made."""

    inputs: Mapping[str, Dataset]
    targets: Mapping[str, Dataset]
    mesh: Mesh
    batch_size: int
    deals: Mapping[str, Deal]
    samplers: Mapping[str, Sampler]
    slices: Slices | None

    @classmethod
    def of(
        cls,
        spec: NetworkSpec,
        inputs: Mapping[str, Dataset],
        targets: Mapping[str, Dataset],
        mesh: Mesh,
        batch_size: int,
    ) -> "Feed":
        """Of a network whose layers are dealt; goes through the data once where something must be counted."""
        deals = deals_of(spec, mesh.shape["model"])
        samplers = _samplers(spec, deals, targets)
        # Which units a step looks at follows from all of its samples.
        slices = None if samplers else Slices.of(share_of(mesh), (inputs, targets), deals)
        return cls(inputs, targets, mesh, batch_size, deals, samplers, slices)

    def batches(self, order: npt.NDArray[np.int64], seed: Sequence[int]) -> Generator[tuple[Any, Any]]:
        """Batches of the samples in this order; `seed` of what is drawn for them."""
        made = paired_batches(
            self.inputs,
            self.targets,
            batch_size=self.batch_size,
            shards=self.mesh.shape["data"],
            order=order,
            deals=self.deals,
            samplers=self.samplers,
            seed=seed,
            slices=self.slices,
        )
        put = to_mesh if self.slices is None else shares_to_mesh
        return prefetched(put(batch, self.mesh) for batch in made)


def _samplers(spec: NetworkSpec, deals: Mapping[str, Deal], targets: Mapping[str, Dataset]) -> dict[str, Sampler]:
    found: dict[str, Sampler] = {}
    for layer in spec.outputs:
        dataset = targets[layer.name]
        if layer.sampling.by and isinstance(dataset, SparseDataset):
            found[layer.name] = Sampler.of(layer.sampling, deals[layer.name], dataset)
    return found
