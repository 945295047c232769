"""Eight CPU devices, and a JAX that converts nothing silently, before any test makes an array; programs that were
compiled once in this worker are not compiled again.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
import quick_xla

# A folder for each worker: JAX writes a program in place, and another worker would read half of it.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ["XDG_CACHE_HOME"]) / "compiled" / os.environ.get("PYTEST_XDIST_WORKER", "alone")),
)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
# Where in the tests an operation came from is told by Python's own traceback.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_given = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_given or ''} {quick_xla.FLAGS}"
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
