"""What files of a run that came home say."""

import json
from collections.abc import Mapping
from pathlib import Path


def read_metrics(path: Path) -> Mapping[str, float]:
    """The last value of each name in `metrics.jsonl`; nothing where there is no such file. A line
    that cannot be read is passed over, since a run may have ended in the middle of one.
    """
    metrics: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            report = json.loads(line)
            metrics[report["name"]] = float(report["value"])
        except (ValueError, KeyError, TypeError):
            continue
    return metrics


def last_words(log: Path) -> str:
    """The last line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
