"""Host arrays to the devices of all processes and back, and what these tell each other. With a single process nothing
passes. Every function but `placed`, `shares_placed` and `is_first` must be called by all of them, in the same order.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.errors import InputError

Tree = TypeVar("Tree")

_SLAB_BYTES = 1 << 26
"""What is whole on every device at a time while arrays pass between processes."""
_PATIENCE_MS = 24 * 3600 * 1000
"""A process that is lost is noticed by its heartbeat; one that works may take its time."""


def is_first() -> bool:
    """Whether this is the process that writes files; a single one is."""
    return jax.process_index() == 0


def first_alone(work: Callable[[], None]) -> None:
    """Have the first process do what takes it long, as writing files does, while the others wait."""
    if is_first():
        work()
    wait_for_all()


def wait_for_all() -> None:
    """Returns in each process when all have come here. Collectives wait less patiently for one that is late."""
    if jax.process_count() > 1:
        # Costs a third of a second, which a single process need not pay.
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key="wait_for_all", timeout_ms=_PATIENCE_MS)


def check_same(what: Callable[[], str]) -> None:
    """`InputError`, in every process, unless `what` says the same in all."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(what().encode()).digest(), np.uint8)
    wait_for_all()
    # [bytes] -> [processes, bytes]
    digests = multihost_utils.process_allgather(digest)
    others = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if others:
        names = ", ".join(map(str, others))
        raise InputError(f"network, data or settings of process {names} are not those of process 0; give all the same")


def agreed(wish: bool) -> bool:
    """What the first process wishes."""
    return bool(from_first(np.array([wish], np.uint8))[0])


def told(text: str) -> str:
    """The text of the first process."""
    said = np.frombuffer(text.encode(), np.uint8)
    length = int(from_first(np.array([len(said)]))[0])
    return from_first(np.resize(said, length)).tobytes().decode()


def from_first(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`array` as the first process has it, bit for bit; the others bring one of its shape and type."""
    if jax.process_count() == 1:
        return array
    whole = np.array(array)
    flat = whole.reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _SLAB_BYTES):
        part = slice(start, start + _SLAB_BYTES)
        flat[part] = multihost_utils.broadcast_one_to_all(flat[part])
    return whole


def placed(tree: Tree, sharding: Any) -> Tree:
    """Arrays that every process holds whole on the devices, by one sharding for all or a tree of them: each process
    hands its own devices their parts.
    """
    if all(one.is_fully_addressable for one in jax.tree.leaves(sharding)):
        return jax.device_put(tree, sharding)

    def place(array: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda array: place(array, sharding), tree)
    return jax.tree.map(place, tree, sharding)


def shares_placed(tree: Tree, shardings: Any) -> Tree:
    """Arrays of which every process holds what its devices are to have, as much as every other, on the devices."""
    return jax.tree.map(lambda array, one: jax.make_array_from_process_local_data(one, array), tree, shardings)


def gathered(tree: Any) -> Any:
    """The arrays of a tree as NumPy arrays, each whole in every process."""
    return jax.tree.map(_gathered, jax.device_get(tree) if jax.process_count() == 1 else tree)


def _gathered(array: Any) -> Any:
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    if array.nbytes <= _SLAB_BYTES or not isinstance(array.sharding, NamedSharding):
        return multihost_utils.process_allgather(array, tiled=True)
    return _gathered_by_slabs(array, array.sharding)


def _gathered_by_slabs(array: jax.Array, sharding: NamedSharding) -> npt.NDArray[Any]:
    """An array that may be too large for one device: of each shard's rows a few at a time."""
    of_shard = sharding.shard_shape(array.shape)[0]
    shards = array.shape[0] // of_shard
    rows = max(min(of_shard, _SLAB_BYTES * of_shard // array.nbytes), 1)
    take = jax.jit(
        jax.shard_map(
            lambda own, start: jax.lax.dynamic_slice_in_dim(own, start, rows),
            mesh=sharding.mesh,
            in_specs=(sharding.spec, P()),
            out_specs=sharding.spec,
        )
    )
    whole = np.empty((shards, of_shard, *array.shape[1:]), array.dtype)
    for wanted in range(0, of_shard, rows):
        # The last slab begins early enough to be a whole one.
        start = min(wanted, of_shard - rows)
        slab = multihost_utils.process_allgather(take(array, np.int32(start)), tiled=True)
        # [shards * rows, …] -> [shards, rows, …]
        whole[:, start : start + rows] = slab.reshape(shards, rows, *array.shape[1:])
    return whole.reshape(array.shape)
