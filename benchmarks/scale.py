"""How large the rows are: the sizes the bars are stated for, and small ones that only show that every row runs."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and how often."""

    runs: int = 7
    items: int = 26_744
    users: int = 138_493
    per_user: int = 144
    wide: int = 1024
    """Units of each of the published benchmark's three hidden layers."""
    narrow: int = 128
    """Units of the sample network's hidden layer."""
    batch: int = 256
    file_gib: float = 4.0
    """The data file that is larger than memory may be, `memory_gib`."""
    memory_gib: float = 1.0
    upload_bytes: int = 200_000_000
    """One file, of noise."""
    upload_files: int = 2_000
    """Of a project, 4.4 kB each."""
    far_files: int = 100
    """As many of them reach a machine far away by sftp, which takes its time for each."""
    data_bytes: int = 25_000_000
    """The data that travel with the project."""
    is_small: bool = False
    """Too small for the bars to mean anything."""
    peers: str = sys.executable
    """Python of the environment that has the peers."""


SMALL = Scale(
    runs=1,
    items=1500,
    users=600,
    per_user=30,
    wide=32,
    narrow=16,
    batch=64,
    file_gib=2**-6,
    memory_gib=2**-8,
    upload_bytes=1_000_000,
    upload_files=40,
    far_files=4,
    data_bytes=100_000,
    is_small=True,
)
