"""What passes between hosts, as far as one process shows it; tests/trainer/test_distributed.py has two."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from trainer_networks import mesh_of

from trainer import hosts
from trainer.hosts import agreed, check_same, first_alone, from_first, gathered, is_first, placed, told


@pytest.mark.parametrize("spec", [P("model", None), P(("data", "model")), P("data", "model"), P(None, "model")])
@pytest.mark.parametrize("slab_bytes", [1, 200, 1 << 20])
def test_an_array_too_large_for_a_device_is_gathered_by_slabs(
    spec: P, slab_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_SLAB_BYTES", slab_bytes)
    whole = np.random.default_rng(1).random((40, 12), np.float32)
    sharding = NamedSharding(mesh_of((2, 4)), spec)
    array = placed(whole, sharding)
    assert isinstance(array, jax.Array)
    np.testing.assert_array_equal(hosts._gathered_by_slabs(array, sharding), whole)
    np.testing.assert_array_equal(gathered({"kernel": array})["kernel"], whole)


def test_a_process_alone_is_first_and_agrees_with_itself() -> None:
    done: list[str] = []
    first_alone(lambda: done.append("written"))
    check_same(lambda: done.append("never called") or "")
    assert done == ["written"]
    assert is_first()
    assert agreed(True)
    assert not agreed(False)
    assert told("née") == "née"
    assert told("") == ""
    array = np.array([-0.0, np.nan], np.float32)
    assert from_first(array) is array
