"""Where the files that travel with the program lie: `configs/` and `infra/`. In a checkout they stand
at its root; a wheel carries them inside this package.
"""

from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def packaged(name: str) -> Path:
    """The folder `configs` or `infra`."""
    inside = _HERE / "files" / name
    return inside if inside.is_dir() else _HERE.parent / name


def trainer_package() -> Path:
    """The folder of the trainer's source, found without importing it."""
    found = find_spec("trainer")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package `trainer` is not installed beside `orchestrator`")
    return Path(found.origin).resolve().parent
