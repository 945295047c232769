"""How much memory training takes on a data file that is larger than what data may take, beside a small file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.pairs import Row, SideSpec, turns
from benchmarks.scale import Scale
from trainer.data.netcdf import write_dataset
from trainer.sparse import SparseDataset
from trainer.stored import Stored

_PER_SAMPLE = 1024
_PART = 64
"""The small file is so much smaller."""
_MEMORY_BAR = 2.0
_GIB = 2**30


def rows(scale: Scale) -> Iterator[Row]:
    """Peak memory of an epoch over the large file, and over the small one."""
    with tempfile.TemporaryDirectory() as scratch:
        large, small = Path(scratch) / "large.nc", Path(scratch) / "small.nc"
        samples = int(scale.file_gib * _GIB) // (4 * _PER_SAMPLE)
        _write(large, samples)
        _write(small, samples // _PART)
        sides = [
            SideSpec("trainer_side", "train_file", {"path": str(path), "memory_gib": scale.memory_gib})
            for path in (large, small)
        ]
        ((ours, peer),) = turns(sides, runs=1, warm_up=0)
    peaks = [turn.peak_bytes / _GIB for turn in (ours, peer)]
    name, ratio = "slices/peak-memory", peaks[0] / peaks[1]
    yield Row(name, peaks[0], peaks[1], "GiB", ratio, _MEMORY_BAR, ratio <= _MEMORY_BAR, 1)


def _write(path: Path, samples: int) -> None:
    """Indicators, made up while they are written."""
    width, nnz = 1024, samples * _PER_SAMPLE

    def made(first: int, last: int) -> np.ndarray:
        return (np.arange(first, last, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(12)) % np.uint64(width)

    ids = Stored((nnz,), np.dtype(np.uint32), made, lambda entries: entries.astype(np.uint32))
    write_dataset(SparseDataset("gl", width, np.arange(samples + 1) * _PER_SAMPLE, ids), path)
