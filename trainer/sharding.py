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
from trainer.sparse import SampledBatch, SparseBatch

_RULES = (
    (r"(^|/)(inputs|outputs)/\d+/kernel$", P("model", None)),
    (r"(^|/)outputs/\d+/bias$", P("model")),
    (r"(^|/)inputs/\d+/bias$", P()),
    (r"(^|/)hidden/\d+/(kernel|bias)$", P()),
    (r"(^|/)(batch|layer)_norms/\d+/(scale|bias|mean|variance|count)$", P()),
    (r"(^|/)(step|rng|count|brake/(mean|left))$", P()),
    (r"(^|/)(map|inverse|products|steps)$", P()),
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
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), tree_specs(tree))


def tree_specs(tree: Any) -> Any:
    """The partition spec of every leaf of `tree`, as in `tree_shardings`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: partition_spec(_path_text(path)), tree)


def partition_spec(path: str) -> P:
    """The partition spec of the parameter at `path` (`outputs/1/kernel`)."""
    for pattern, spec in _RULES:
        if re.search(pattern, path):
            return spec
    raise KeyError(f"no partition rule knows parameter {path}")


def to_mesh(batch: Tree, mesh: Mesh) -> Tree:
    """A batch, or several, the same in every process, on the devices: samples spread over axis `data`, entries that are
    dealt over `model` too.
    """
    return placed(batch, jax.tree.map(lambda spec: NamedSharding(mesh, spec), batch_specs(batch)))


def batch_specs(batch: Tree) -> Tree:
    """The partition spec of every array of a batch, or of several."""
    return jax.tree.map(_batch_spec, batch, is_leaf=lambda one: isinstance(one, SparseBatch | SampledBatch))


def over_parts(sums: jax.Array, batch: SparseBatch) -> jax.Array:
    """Sums over the entries a device sees as sums over all of them: a device sees only its parts of a dealt batch."""
    return jax.lax.psum(sums, "model") if batch.indices.ndim > 1 else sums


def _batch_spec(batch: Any) -> Any:
    if isinstance(batch, SampledBatch):
        return SampledBatch(_batch_spec(batch.entries), P(("data", "model")), *[P("model")] * 3)
    if not isinstance(batch, SparseBatch):
        return P("data")
    entries = P(("data", "model")) if batch.indices.ndim > 1 else P("data")
    of_samples = SparseBatch(entries, entries, entries, P("data"), P("data"))
    return SparseBatch(*(None if part is None else spec for part, spec in zip(batch, of_samples, strict=True)))


def _path_text(path: tuple[Any, ...]) -> str:
    names = [jax.tree_util.keystr((part,), simple=True) for part in path]
    return "/".join(name for name in names if name != "value")
