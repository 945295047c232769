"""A cache folder of its own for the whole run of the tests, workers and programs they start included."""

import os
import shutil
import tempfile

_MADE = None if "XDG_CACHE_HOME" in os.environ else tempfile.mkdtemp(prefix="launch-and-train-tests-")
if _MADE is not None:
    os.environ["XDG_CACHE_HOME"] = _MADE


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    if _MADE is not None:
        shutil.rmtree(_MADE, ignore_errors=True)
