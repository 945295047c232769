"""What a figure was measured on."""

import os
import platform
import sys
from pathlib import Path


def described() -> str:
    """Cores and the processor's model name."""
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    names = [line.partition(":")[2] for line in listing.read_text().splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or sys.platform
