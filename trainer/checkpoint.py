"""The checkpoints of a training on disk, arrays written by orbax: each is written aside, synced, renamed, and only
then may an older one go, so that the last good one survives a kill or a full disk at any moment. Every byte is
accounted for by an index, so that a damaged checkpoint is passed over. Knows nothing of what the tree means.
"""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from trainer.errors import InputError, TrainerError
from trainer.hosts import first_alone, from_first, gathered, is_first, placed, told

_INDEX = "index.json"
_TREE = "tree"
_CHUNK_BYTES = 1 << 22
_COMPLETE = re.compile(r"(\d+)(\.old)?")
_ASIDE = re.compile(r"\..+\.aside")


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete, undamaged checkpoint on disk."""

    step: int
    about: Mapping[str, Any]
    """What `save` was told, as JSON gives it back: tuples are lists, keys are text."""
    path: Path


class _Leaf(NamedTuple):
    """One array of the tree, as the index tells of it."""

    path: str
    """As `jax.tree_util.keystr` writes it; [] of the index is the array's name in orbax's tree."""
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class _File(NamedTuple):
    """One file of a checkpoint, as it must be found again."""

    name: str
    """Relative to the checkpoint, with `/`."""
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class _Index:
    step: int
    about: Mapping[str, Any]
    leaves: tuple[_Leaf, ...]
    files: tuple[_File, ...]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a checkpoint is to hold."""

    step: int
    about: Mapping[str, Any]
    leaves: tuple[_Leaf, ...]
    arrays: Mapping[str, Any]
    """By name in orbax's tree."""


def save(folder: Path, step: int, tree: Any, *, about: Mapping[str, Any], keep: int = 2) -> None:
    """Writes `folder/<step>` and returns when it is on the disk; then removes all but the last `keep` up to this step.
    A checkpoint of the same step is replaced, those of later steps are left alone. Leaves: `jax.Array` of any sharding
    (typed random keys too), NumPy arrays and scalars. `about`: whatever JSON can say. Of several processes all call
    this, and the first one writes. `TrainerError` if it cannot be written: then all is as before.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays: dict[str, Any] = {}
    for number, (_, leaf) in enumerate(paths):
        # Orbax refuses arrays without elements.
        if leaf.size:
            array = _storable(leaf)
            if is_first():
                arrays[str(number)] = array
    first_alone(lambda: _save(folder, _Contents(step, about, _leaves(paths), arrays), keep=keep))


def _save(folder: Path, contents: _Contents, *, keep: int) -> None:
    step = contents.step
    aside = folder / f".{step}.aside"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        aside.mkdir()
        _write(aside, contents)
        _publish(aside, folder / str(step))
        _prune(folder, step, keep=keep)
    # Orbax passes on what the file system refused as ValueError.
    except (OSError, ValueError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainerError(
            f"{folder}: the checkpoint of step {step} cannot be written: {_reason(error)}; "
            "earlier checkpoints are as they were"
        ) from error


def latest(folder: Path) -> Saved | None:
    """The checkpoint of the highest step of which every byte is as it was written; `None` if there is none.
    It is read once, all through; of several processes the first one looks.
    """
    found = _latest(folder) if is_first() else None
    said = json.loads(told(json.dumps(found and (found.step, found.about, found.path.name))))
    return None if said is None else Saved(said[0], said[1], folder / said[2])


def _latest(folder: Path) -> Saved | None:
    for path in _complete(folder):
        index = _read_index(path)
        if index is not None and all(_intact(path, file) for file in index.files):
            return Saved(index.step, index.about, path)
    return None


def restore(saved: Saved, like: Any) -> Any:
    """The tree that was saved, with the structure, shapes, dtypes and shardings of `like`: a tree of
    `jax.ShapeDtypeStruct` or arrays, on any mesh. What has no sharding there comes back as NumPy arrays (or scalars,
    if it is one there). Of several processes the first one reads. `InputError` if the tree does not fit.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = [leaf for _, leaf in paths]
    if jax.process_count() == 1:
        return jax.tree.unflatten(structure, _read(saved, paths, leaves))
    plain = [jax.ShapeDtypeStruct(stored.shape, stored.dtype) for stored in map(_stored, leaves)]
    # The others bring arrays to be filled.
    arrays = _read(saved, paths, plain) if is_first() else [np.zeros(leaf.shape, leaf.dtype) for leaf in plain]
    found = (_placed(from_first(array), leaf) for array, leaf in zip(arrays, leaves, strict=True))
    return jax.tree.unflatten(structure, [_as_wanted(array, leaf) for array, leaf in zip(found, leaves, strict=True)])


def _read(saved: Saved, paths: Sequence[tuple[Any, Any]], leaves: Sequence[Any]) -> list[Any]:
    """The arrays at `paths` in the form of `leaves`."""
    index = _read_index(saved.path)
    if index is None:
        raise InputError(f"{saved.path}: the checkpoint is damaged; remove it to resume from the one before")
    _check_fit(saved.path, index.leaves, _leaves(paths))
    names = {leaf.path: str(number) for number, leaf in enumerate(index.leaves)}
    wanted = {names[jax.tree_util.keystr(path)]: leaf for (path, _), leaf in zip(paths, leaves, strict=True)}
    try:
        return _read_arrays(saved.path / _TREE, wanted)
    except (OSError, ValueError) as error:
        raise InputError(f"{saved.path}: the checkpoint cannot be read: {_reason(error)}") from error


def _write(aside: Path, contents: _Contents) -> None:
    orbax = _orbax()
    with _checkpointer(orbax) as checkpointer:
        checkpointer.save(aside.resolve() / _TREE, args=orbax.args.PyTreeSave(contents.arrays))
    files = tuple(_measured(aside, path) for path in sorted(_files(aside)))
    _write_index(aside / _INDEX, _Index(contents.step, contents.about, contents.leaves, files))
    for path in (*_files(aside), *_folders(aside)):
        _sync(path)


def _publish(aside: Path, path: Path) -> None:
    """Gives the finished checkpoint its name; at no moment is there none."""
    if path.exists():
        replaced = path.with_name(f"{path.name}.old")
        if replaced.exists():
            _remove(replaced)
        path.rename(replaced)
    aside.rename(path)
    _sync(path.parent)


def _prune(folder: Path, step: int, *, keep: int) -> None:
    kept = {str(step)}
    for path in _complete(folder):
        number = _step_of(path)
        if number > step or path.name in kept:
            continue
        if number == step or len(kept) >= keep:
            _remove(path)
        else:
            kept.add(path.name)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left unfinished."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            shutil.rmtree(path)


def _remove(path: Path) -> None:
    aside = path.with_name(f".{path.name}.aside")
    path.rename(aside)
    shutil.rmtree(aside)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints that have their final names, newest first; one about to be replaced comes after its successor."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _COMPLETE.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (-_step_of(path), path.name))


def _step_of(path: Path) -> int:
    return int(path.name.removesuffix(".old"))


def _read_arrays(path: Path, wanted: Mapping[str, Any]) -> list[Any]:
    orbax = _orbax()

    def restore_args(leaf: Any) -> Any:
        stored = _stored(leaf)
        if _sharding(leaf) is None:
            return orbax.RestoreArgs(restore_type=np.ndarray)
        return orbax.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=stored.shape, dtype=stored.dtype)

    restoring = {name: restore_args(leaf) for name, leaf in wanted.items() if leaf.size}
    with _checkpointer(orbax) as checkpointer:
        tree = checkpointer.restore(path.resolve(), args=orbax.args.PyTreeRestore(restore_args=restoring))
    return [_as_wanted(tree.get(name), leaf) for name, leaf in wanted.items()]


def _storable(leaf: Any) -> Any:
    stored = jax.random.key_data(leaf) if _is_rng(leaf) else leaf
    return stored if isinstance(stored, jax.Array) and stored.is_fully_addressable else gathered(stored)


def _stored(leaf: Any) -> Any:
    """Shape and dtype of what is stored of a leaf."""
    return jax.eval_shape(jax.random.key_data, leaf) if _is_rng(leaf) else leaf


def _as_wanted(stored: Any, wanted: Any) -> Any:
    if stored is None:
        empty = np.empty(wanted.shape, wanted.dtype)
        return empty if _sharding(wanted) is None else placed(empty, wanted.sharding)
    if _is_rng(wanted):
        return jax.device_put(jax.random.wrap_key_data(stored, dtype=wanted.dtype), wanted.sharding)
    return stored[()] if isinstance(wanted, np.generic) else stored


def _placed(array: Any, leaf: Any) -> Any:
    sharding = _sharding(leaf)
    return array if sharding is None else placed(array, sharding)


def _sharding(leaf: Any) -> jax.sharding.Sharding | None:
    return getattr(leaf, "sharding", None)


def _is_rng(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaves(paths: Sequence[tuple[Any, Any]]) -> tuple[_Leaf, ...]:
    return tuple(_Leaf(jax.tree_util.keystr(path), tuple(leaf.shape), str(leaf.dtype)) for path, leaf in paths)


def _check_fit(path: Path, stored: Sequence[_Leaf], wanted: Sequence[_Leaf]) -> None:
    if list(stored) == list(wanted):
        return
    had, want = ({leaf.path: leaf for leaf in leaves} for leaves in (stored, wanted))
    for name in (*want, *had):
        if name not in had:
            complaint = f"it has no {name}"
        elif name not in want:
            complaint = f"its {name} is not wanted"
        elif had[name] != want[name]:
            complaint = f"its {name} is {had[name]}, {want[name]} is wanted"
        else:
            continue
        raise InputError(
            f"{path}: the checkpoint does not fit: {complaint}; was it saved by another network or other settings?"
        )


def _write_index(path: Path, index: _Index) -> None:
    body = json.dumps(asdict(index))
    path.write_text(f"{zlib.crc32(body.encode())}\n{body}\n", encoding="utf-8")


def _read_index(path: Path) -> _Index | None:
    """`None` where it is missing or not as it was written."""
    try:
        crc, body, _ = (path / _INDEX).read_text(encoding="utf-8").split("\n")
        if int(crc) != zlib.crc32(body.encode()):
            return None
    except (OSError, ValueError):
        return None
    told = json.loads(body)
    leaves = tuple(_Leaf(name, tuple(shape), dtype) for name, shape, dtype in told["leaves"])
    return _Index(told["step"], told["about"], leaves, tuple(_File(*file) for file in told["files"]))


def _measured(checkpoint: Path, path: Path) -> _File:
    crc, size_bytes = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc, size_bytes = zlib.crc32(chunk, crc), size_bytes + len(chunk)
    return _File(path.relative_to(checkpoint).as_posix(), size_bytes, crc)


def _intact(checkpoint: Path, file: _File) -> bool:
    path = checkpoint / file.name
    try:
        return path.stat().st_size == file.size_bytes and _measured(checkpoint, path) == file
    except OSError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _folders(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.is_dir())
    yield folder


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    told = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    # So tensorstore tells what the file system said.
    if found := re.search(r"\[os_error_code='(\d+)'", told):
        number = int(found[1])
    return os.strerror(number) if number else told


def _checkpointer(orbax: Any) -> Any:
    """Of one process only: orbax would have the others write, too, and their folders lie on other machines."""
    alone = orbax.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="first")
    handler = orbax.PyTreeCheckpointHandler(
        # Trained weights do not compress: zstd would take longer than the disk and save a twelfth.
        use_ocdbt=True,
        use_zarr3=True,
        use_compression=False,
        multiprocessing_options=alone,
    )
    return orbax.Checkpointer(handler, multiprocessing_options=alone)


def _orbax() -> Any:
    # Costs a third of a second, which a run without checkpoints need not pay.
    import orbax.checkpoint

    # It logs tracebacks from its threads before it raises the very same errors.
    logging.getLogger("absl").addFilter(_not_of_orbax)
    return orbax.checkpoint


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts
