import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from trainer_networks import batch_of, mesh_of

from trainer.errors import SettingsError
from trainer.sharding import make_mesh, partition_spec, to_mesh, tree_shardings


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("inputs/0/kernel", P("model", None)),
        ("inputs/0/bias", P()),
        ("hidden/0/kernel", P()),
        ("hidden/11/bias", P()),
        ("outputs/3/kernel", P("model", None)),
        ("outputs/3/bias", P("model")),
        ("step", P()),
        ("opt_state/1/trace/outputs/2/kernel", P("model", None)),
        ("opt_state/0/squares/hidden/0/bias", P()),
        ("opt_state/1/0/count", P()),
        ("batch_norms/2/scale", P()),
        ("statistics/batch_norms/2/variance", P()),
        ("brake/mean", P()),
    ],
)
def test_weights_that_touch_features_are_split_by_feature_and_nothing_else(path: str, spec: P) -> None:
    assert partition_spec(path) == spec


@pytest.mark.parametrize("path", ["outputs/0/scale", "hidden/kernel", "kernel", "hidden/one/kernel"])
def test_a_parameter_no_rule_knows_is_an_error(path: str) -> None:
    with pytest.raises(KeyError, match=path):
        partition_spec(path)


def test_axis_model_takes_the_devices_axis_data_leaves() -> None:
    assert dict(make_mesh(2).shape) == {"data": 2, "model": 4}
    assert dict(make_mesh().shape) == {"data": 1, "model": 8}


def test_devices_that_cannot_be_dealt_are_refused() -> None:
    with pytest.raises(SettingsError, match="data_shards: 8 devices cannot be dealt to 3 shards"):
        make_mesh(3)


def test_a_tree_is_sharded_leaf_by_leaf() -> None:
    mesh = mesh_of((1, 8))
    shardings = tree_shardings({"inputs": {"0": {"kernel": 0}}, "hidden": {"1": {"bias": 0}}}, mesh)
    assert shardings["inputs"]["0"]["kernel"] == jax.sharding.NamedSharding(mesh, P("model", None))
    assert shardings["hidden"]["1"]["bias"] == jax.sharding.NamedSharding(mesh, P())


def test_a_batch_is_spread_over_axis_data() -> None:
    mesh = mesh_of((2, 4))
    batch = batch_of([[1], [2, 3], [4], [5]], 8, shards=2)
    placed = to_mesh(batch, mesh)
    assert placed.values is None
    part = len(batch.rows) // 2
    for shard in placed.rows.addressable_shards:
        first = 0 if shard.device in mesh.devices[0].tolist() else part
        np.testing.assert_array_equal(shard.data, batch.rows[first : first + part])
