"""Which device holds what: the mesh, and the rules from a parameter's path to its partition spec. Weights
that touch features are split by feature over axis `model`; the batch is split over axis `data`.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.errors import SettingsError
from trainer.hosts import Tree, placed

_RULES = (
    (r"(^|/)(inputs|outputs)/\d+/kernel$", P("model", None)),
    (r"(^|/)outputs/\d+/bias$", P("model")),
    (r"(^|/)inputs/\d+/bias$", P()),
    (r"(^|/)hidden/\d+/(kernel|bias)$", P()),
    (r"(^|/)(batch|layer)_norms/\d+/(scale|bias|mean|variance|count)$", P()),
    (r"(^|/)(step|rng|count|brake/(mean|left))$", P()),
)
"""First match wins. Optimizer state ends in the path of the parameter it belongs to."""


def make_mesh(data_shards: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """The device grid: axis `data` of `data_shards`, axis `model` of the devices that are left, of one process where it
    has as many.
    """
    found = sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index)
    if len(found) % data_shards:
        raise SettingsError(f"data_shards: {len(found)} devices cannot be dealt to {data_shards} shards")
    grid = np.array(found, dtype=object).reshape(data_shards, -1)
    # Automatic axes: explicit ones refuse to index a sharded array by an array.
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of `tree`, by the rules; a path no rule knows raises `KeyError`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(mesh, partition_spec(_path_text(path))), tree)


def partition_spec(path: str) -> P:
    """The partition spec of the parameter at `path` (`outputs/1/kernel`)."""
    for pattern, spec in _RULES:
        if re.search(pattern, path):
            return spec
    raise KeyError(f"no partition rule knows parameter {path}")


def to_mesh(batch: Tree, mesh: Mesh) -> Tree:
    """A batch, the same in every process, on the devices; its samples are spread over axis `data`."""
    return placed(batch, NamedSharding(mesh, P("data")))


def _path_text(path: tuple[Any, ...]) -> str:
    names = [jax.tree_util.keystr((part,), simple=True) for part in path]
    return "/".join(name for name in names if name != "value")
