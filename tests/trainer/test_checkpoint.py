import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trainer.checkpoint import Saved, latest, restore, save
from trainer.errors import InputError, TrainerError

ROOT = Path(__file__).parents[2]
MESHES = [(1, 1), (1, 8), (2, 4)]
ABOUT = {"epoch": 3, "position": [1, 2.5], "fingerprint": "née", "best": None}

SAVE_UNTIL_KILLED = """
import sys
from pathlib import Path
import jax, numpy as np
from trainer.checkpoint import latest, save
folder = Path(sys.argv[1])
saved = latest(folder)
step = 0 if saved is None else saved.step
while True:
    step += 1
    tree = {"kernel": jax.device_put(np.full((250_000,), step, np.float32)), "rng": jax.random.key(step)}
    save(folder, step, tree, about={"epoch": step})
    print(step, flush=True)
"""

SAVE_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from trainer.checkpoint import latest, save
from trainer.errors import TrainerError
folder = Path(sys.argv[1])
save(folder, 1, {"kernel": jnp.ones(1000)}, about={})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(folder, 2, {"kernel": jnp.ones(1_000_000)}, about={}, keep=1)
except TrainerError as error:
    print(error)
print(latest(folder).step, sorted(path.name for path in folder.iterdir()))
"""


class State(NamedTuple):
    step: Any
    params: Any
    rng: Any


class Killed(BaseException):
    """Nothing runs after it, as after `kill -9`."""


def mesh_of(shape: tuple[int, int]) -> Mesh:
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    return Mesh(devices, ("data", "model"))


def state_on(shape: tuple[int, int], *, seed: int = 0) -> State:
    """Every kind of leaf, in every kind of container; bits that only a bitwise copy keeps."""
    mesh = mesh_of(shape)

    def place(array: Any, *spec: str | None) -> jax.Array:
        return jax.device_put(array, NamedSharding(mesh, P(*spec)))

    numbers = np.random.default_rng(seed)
    bits = numbers.integers(0, 2**32, (16, 24), np.uint32)
    bits[0, :3] = 0x7FC00001, 0x80000000, 1  # A NaN with a payload, minus zero, the least subnormal.
    params = {
        "by/feature": [place(bits.view(np.float32), "model"), place(numbers.normal(size=8).astype(np.float32))],
        "both": (place(bits, "data", "model"), {}),
        "narrow": place(bits[1, :8].astype(jnp.bfloat16), None),
        "empty": place(np.zeros((0, 8), np.float32), None, "model"),
        "host": numbers.normal(size=(3, 2)),
        "best": np.float64(numbers.normal()),
        "seen": np.int64(2**40 + seed),
        "none": None,
    }
    many = jax.random.split(jax.random.key(seed + 1, impl="rbg"), 8)
    rng = {"one": place(jax.random.key(seed)), "many": place(many, "model")}
    return State(place(np.int32(seed)), params, rng)


def abstract(tree: Any) -> Any:
    def shape_of(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        return leaf

    return jax.tree.map(shape_of, tree)


def bits_of(leaf: Any) -> tuple[Any, ...]:
    """Type, dtype, shape and every bit."""
    stored = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return (
        isinstance(leaf, jax.Array),
        isinstance(leaf, np.generic),
        leaf.dtype,
        leaf.shape,
        np.asarray(stored).tobytes(),
    )


def assert_same(found: Any, wanted: Any) -> None:
    """Bit for bit, in the same containers, on the same devices."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.map(bits_of, found) == jax.tree.map(bits_of, wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if isinstance(other, jax.Array):
            assert one.committed
            assert one.sharding.is_equivalent_to(other.sharding, one.ndim)


def found_in(folder: Path) -> Saved:
    saved = latest(folder)
    assert saved is not None
    return saved


def small(number: int) -> dict[str, Any]:
    return {"kernel": jax.device_put(np.full((40,), number, np.float32))}


def save_small(folder: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save(folder, step, small(step), about={"step": step}, keep=keep)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("written_on", MESHES)
@pytest.mark.parametrize("read_on", MESHES)
def test_a_state_comes_back_bit_for_bit_on_any_mesh(
    tmp_path: Path, written_on: tuple[int, int], read_on: tuple[int, int]
) -> None:
    save(tmp_path / "checkpoints", 7, state_on(written_on), about=ABOUT)
    saved = found_in(tmp_path / "checkpoints")
    assert saved == Saved(7, ABOUT, tmp_path / "checkpoints" / "7")
    wanted = state_on(read_on)
    assert_same(restore(saved, abstract(wanted)), wanted)


def test_arrays_serve_as_the_likeness_too(tmp_path: Path) -> None:
    save(tmp_path, 1, state_on((1, 8), seed=5), about={})
    assert_same(restore(found_in(tmp_path), state_on((2, 4), seed=6)), state_on((2, 4), seed=5))


def test_a_likeness_without_sharding_brings_arrays_to_the_host(tmp_path: Path) -> None:
    save(tmp_path, 1, small(3), about={})
    found = restore(found_in(tmp_path), {"kernel": jax.ShapeDtypeStruct((40,), np.float32)})
    assert type(found["kernel"]) is np.ndarray
    np.testing.assert_array_equal(found["kernel"], np.full((40,), 3, np.float32))


def test_leaves_are_told_apart_by_name_whatever_their_order(tmp_path: Path) -> None:
    class Before(NamedTuple):
        kernel: Any
        bias: Any

    class After(NamedTuple):
        bias: Any
        kernel: Any

    save(tmp_path, 1, Before(kernel=np.ones(3), bias=np.zeros(3)), about={})
    found = restore(found_in(tmp_path), After(bias=np.ones(3), kernel=np.zeros(3)))
    assert (found.kernel.tolist(), found.bias.tolist()) == ([1, 1, 1], [0, 0, 0])


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path: Path) -> None:
    assert latest(tmp_path / "never") is None
    assert latest(tmp_path) is None


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    save_small(tmp_path, 1, 2, 9, 10)
    assert names_in(tmp_path) == ["10", "9"]
    save_small(tmp_path, 11, keep=1)
    assert names_in(tmp_path) == ["11"]


def test_a_later_checkpoint_than_the_one_written_is_left_alone(tmp_path: Path) -> None:
    save_small(tmp_path, 4, 20)
    save_small(tmp_path, 5, keep=1)
    assert names_in(tmp_path) == ["20", "5"]


def test_a_step_saved_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    save_small(tmp_path, 1)
    save(tmp_path, 1, small(8), about={"again": True}, keep=1)
    saved = found_in(tmp_path)
    assert saved.about == {"again": True}
    assert_same(restore(saved, small(0)), small(8))
    assert names_in(tmp_path) == ["1"]


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_flip_a_bit, _halve, Path.unlink])
def test_damage_to_any_file_of_the_newest_falls_back_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save_small(tmp_path / "sound", 3, 4)
    files = [path.relative_to(tmp_path / "sound") for path in (tmp_path / "sound" / "4").rglob("*") if path.is_file()]
    assert len(files) > 3
    for number, name in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "sound", folder)
        if (folder / name).stat().st_size:
            damage(folder / name)
            assert found_in(folder) == Saved(3, {"step": 3}, folder / "3"), name


def test_the_last_one_damaged_leaves_none(tmp_path: Path) -> None:
    save_small(tmp_path, 3)
    (tmp_path / "3" / "index.json").unlink()
    assert latest(tmp_path) is None


def _dying(monkeypatch: pytest.MonkeyPatch, folder: Path, *, at: int) -> list[str]:
    """Lets the process die at the `at`-th change to the folder's own entries; a removal dies half done."""
    done: list[str] = []
    real_rename, real_rmtree = os.rename, shutil.rmtree

    def rename(source: Any, target: Any, **more: Any) -> None:
        if Path(source).parent == folder:
            done.append(f"{Path(source).name} → {Path(target).name}")
            if len(done) == at:
                raise Killed
        real_rename(source, target, **more)

    def rmtree(path: Any, *more: Any, **named: Any) -> None:
        if Path(path).parent == folder:
            done.append(f"{Path(path).name} removed")
            if len(done) == at:
                next(file for file in Path(path).rglob("*") if file.is_file()).unlink()
                raise Killed
        real_rmtree(path, *more, **named)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    return done


@pytest.mark.parametrize("step", [2, 1], ids=["the next step", "the same step"])
def test_death_between_any_two_changes_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    for at in range(1, 9):
        folder = tmp_path / str(at)
        save(folder, 1, small(1), about={"new": False}, keep=1)
        with monkeypatch.context() as patched:
            done = _dying(patched, folder, at=at)
            try:
                save(folder, step, small(2), about={"new": True}, keep=1)
            except Killed:
                pass
            else:
                assert at > 3, "nothing was interrupted"
                return
        saved = found_in(folder)
        assert_same(restore(saved, small(0)), small(2 if saved.about["new"] else 1))
        save(folder, 3, small(3), about={}, keep=1)
        assert names_in(folder) == ["3"], done
    pytest.fail("the changes never came to an end")


@pytest.fixture(scope="module")
def trodden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.mark.parametrize("after_seconds", [0.0, 0.04, 0.11])
def test_a_process_killed_while_saving_leaves_what_it_last_saved(trodden: Path, after_seconds: float) -> None:
    command = [sys.executable, "-c", SAVE_UNTIL_KILLED, str(trodden)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        announced = [process.stdout.readline() for _ in range(2)]
        time.sleep(after_seconds)
        process.send_signal(signal.SIGKILL)
        announced += process.stdout.readlines()
    saved = found_in(trodden)
    # Between the rename and the announcement it may be one further.
    assert saved.step - int(announced[-1]) in (0, 1)
    assert saved.about == {"epoch": saved.step}
    wanted = {"kernel": np.full((250_000,), saved.step, np.float32), "rng": jax.random.key(saved.step)}
    found = restore(saved, wanted)
    assert jax.tree.map(bits_of, found) == jax.tree.map(bits_of, wanted)


def test_a_full_disk_is_one_sentence_and_costs_nothing_saved_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_ON_A_FULL_DISK, str(tmp_path)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        f"{tmp_path}: the checkpoint of step 2 cannot be written: File too large; earlier checkpoints are as they were",
        "1 ['1']",
    ]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    save_small(tmp_path / "checkpoints", 1)
    (tmp_path / "checkpoints").chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:  # Whom no mode stops.
            os.seteuid(65534)
        with pytest.raises(
            TrainerError, match=r"checkpoints: the checkpoint of step 2 cannot be written: Permission denied; "
        ):
            save_small(tmp_path / "checkpoints", 2)
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "checkpoints").chmod(0o755)
    assert found_in(tmp_path / "checkpoints").step == 1


def test_a_file_in_the_place_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(TrainerError, match=r"checkpoints: the checkpoint of step 1 cannot be written: File exists; "):
        save_small(tmp_path / "checkpoints", 1)


@pytest.mark.parametrize(
    ("like", "complaint"),
    [
        ({"kernel": np.zeros((41,), np.float32)}, "its ['kernel'] is float32[40], float32[41] is wanted"),
        ({"kernel": np.zeros((40,), np.int32)}, "its ['kernel'] is float32[40], int32[40] is wanted"),
        ({"kernel": np.zeros((40,), np.float32), "bias": np.zeros((40,), np.float32)}, "it has no ['bias']"),
        ({}, "its ['kernel'] is not wanted"),
        ([np.zeros((40,), np.float32)], "it has no [0]"),
    ],
)
def test_a_tree_that_does_not_fit_is_told_apart_by_its_first_difference(
    tmp_path: Path, like: Any, complaint: str
) -> None:
    save_small(tmp_path, 5)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / '5'}: the checkpoint does not fit: {complaint}; ")):
        restore(found_in(tmp_path), like)


def test_random_keys_of_another_generator_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path, 1, {"rng": jax.random.key(0)}, about={})
    with pytest.raises(InputError, match=r"its \['rng'\] is key<fry>\[\], key<rbg>\[\] is wanted"):
        restore(found_in(tmp_path), {"rng": jax.random.key(0, impl="rbg")})


def test_a_checkpoint_removed_since_it_was_found_is_one_clear_error(tmp_path: Path) -> None:
    save_small(tmp_path, 1)
    saved = found_in(tmp_path)
    shutil.rmtree(saved.path / "tree")
    with pytest.raises(InputError, match=re.escape(f"{saved.path}: the checkpoint cannot be read: ")):
        restore(saved, small(0))


def test_saving_and_restoring_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1, state_on((1, 8)), about={})
    restore(found_in(tmp_path), state_on((1, 8)))
    assert capfd.readouterr() == ("", "")
