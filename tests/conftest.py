"""A cache folder of its own for the whole run of the tests, workers and programs they start included; and the longest
files first, so that none of them is left over when the others are done.
"""

import gc
import os
import shutil
import tempfile

import pytest

_LONGEST = (
    "test_whole_job",
    "test_lid_closed",
    "test_train",
    "test_graph",
    "test_process",
    "test_distributed",
    "test_launch",
    "test_session",
    "test_fused",
    "test_capacity",
    "test_state",
    "test_output_losses",
    "test_programs",
    "test_sample_script",
)
"""Most of what some of these do is to wait: they go well beside those that compute."""

_MADE = None if "XDG_CACHE_HOME" in os.environ else tempfile.mkdtemp(prefix="launch-and-train-tests-")
if _MADE is not None:
    os.environ["XDG_CACHE_HOME"] = _MADE


# Imports make many objects and hardly any garbage: looking for it is a third of the time that collecting takes.
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files keep their order, and the tests inside them theirs."""
    rank = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish() -> None:
    """What is imported stays, and tracing makes many objects that soon go: JAX tests spend a tenth of their time
    looking for garbage among them.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if _MADE is not None:
        shutil.rmtree(_MADE, ignore_errors=True)
