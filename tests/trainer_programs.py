"""DSSTNE's programs called as a user calls them, on the checkerboard."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from trainer_checkerboard import SAMPLES, features_of
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.sparse import SparseDataset

FEATURES = 12


def trainer(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sparse(name: str, rows: Sequence[Sequence[int]], *, values: bool = False) -> SparseDataset:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    indices = np.array([feature for row in rows for feature in row], np.uint32)
    analog = np.linspace(0.5, 2.0, len(indices)).astype(np.float32) if values else None
    return SparseDataset(name, FEATURES, indptr, indices, analog)


BOARD = [features_of(n) for n in range(SAMPLES)]


def losses(result: Result) -> list[float]:
    assert result.exit_code == 0, result.output
    return [
        float(line.split("average training error ")[1].split(",")[0])
        for line in result.output.splitlines()
        if line.startswith("NNNetwork::Train: Epoch")
    ]


def train(network: object, *flags: object) -> Result:
    Path("config.json").write_text(json.dumps(network))
    return trainer("train", "-c", "config.json", "-i", "in.nc", "-o", "out.nc", "-n", "gl.nc", "-b", 16, *flags)


def text(name: str) -> Path:
    """The board as DSSTNE text with values, in reversed order of samples, without sample 3."""
    lines = [f"s{n}\t{':'.join(f'f{f},1.5' for f in BOARD[n])}\n" for n in reversed(range(SAMPLES)) if n != 3]
    Path(name).write_text("".join(lines))
    return Path(name)


def index(name: str) -> Path:
    Path(name).write_text("".join(f"f{n}\t{n}\n" for n in range(FEATURES)))
    return Path(name)
