"""Which device holds what: the mesh, and the rules from a parameter's path to its partition spec. Weights
that touch features are split by feature over axis `model`; the batch is split over axis `data`.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.errors import SettingsError
from trainer.hosts import Tree, placed, shares_placed
from trainer.sparse import SampledBatch, Share, SparseBatch

_RULES = (
    (r"(^|/)(inputs|outputs)/\d+/kernel$", P("model", None)),
    (r"(^|/)outputs/\d+/bias$", P("model")),
    (r"(^|/)inputs/\d+/bias$", P()),
    (r"(^|/)hidden/\d+/(kernel|bias)$", P()),
    (r"(^|/)(batch|layer)_norms/\d+/(scale|bias|mean|variance|count)$", P()),
    (r"(^|/)(step|rng|count|brake/(mean|left))$", P()),
    (r"(^|/)seen$", P("model")),
    (r"(^|/)(map|inverse|products|steps|passed|decays|start|made)$", P()),
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


def shares_to_mesh(batch: Tree, mesh: Mesh) -> Tree:
    """As `to_mesh`, of a batch, or several, of which every process has its own share."""
    return shares_placed(batch, jax.tree.map(lambda spec: NamedSharding(mesh, spec), batch_specs(batch)))


def share_of(mesh: Mesh) -> Share | None:
    """Which devices are this process's; `None` for a process alone, and where they are no rectangle as large as every
    other's.
    """
    owners = np.vectorize(lambda device: device.process_index, otypes=[np.int64])(mesh.devices)
    return share_by(owners, jax.process_index())


def share_by(owners: npt.NDArray[np.int64], process: int) -> Share | None:
    """As `share_of`, by the process that each device belongs to, [data, model]."""
    processes = np.unique(owners).tolist()
    boxes = {one: _box(owners == one) for one in processes}
    sides = {(len(shards), len(columns)) for shards, columns in boxes.values()}
    first = next(iter(sides))
    if len(processes) == 1 or len(sides) > 1 or first[0] * first[1] * len(processes) != owners.size:
        return None
    shards, columns = boxes[process]
    return Share(shards.start, first[0], columns.start, first[1], owners.shape[1])


def _box(chosen: npt.NDArray[np.bool_]) -> tuple[range, range]:
    """Rows and columns that hold all that is chosen."""
    rows, columns = (np.flatnonzero(chosen.any(axis=axis)).tolist() for axis in (1, 0))
    return range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)


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
