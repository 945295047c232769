"""Eight CPU devices, and a JAX that converts nothing silently, before any test makes an array."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# Half the time of these tests is LLVM polishing code that runs once.
_QUICK_TO_COMPILE = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_given = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_given or ''} {_QUICK_TO_COMPILE}"
jax.devices()
# Read once, when the devices are made: programs that tests start compile as users' do.
if _given is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = _given


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests of a module share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def working_folder(tmp_path: Path) -> Iterator[Path]:
    """The working directory of a test: DSSTNE's programs leave files where they are called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        yield tmp_path
