"""`python -m benchmarks.quality [--rows NAME …]`: measure what is missing of the table, write it to
configs/networks/RESULTS.md and print it; `--small` shows on made-up data that it runs.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.quality.grounds import open_ground
from benchmarks.quality.report import as_json, markdown
from benchmarks.quality.rows import NETWORKS, ROWS, Row
from benchmarks.quality.running import Found, Runner, Wishes
from benchmarks.quality.small import EPOCHS, small_rows, write_small
from benchmarks.quality.store import Store
from trainer.errors import SettingsError, TrainerError
from trainer.filing import check_writable, replacing

_ROOT = Path(__file__).resolve().parents[2]
_ROW_NAMES = tuple(row.name for row in ROWS)
_MODEL_NAMES = tuple(dict.fromkeys(name for row in ROWS for name in (*row.models, *row.more)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; the exit status is 1 where a measurement failed, 2 for what cannot be asked."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    for option, names, there in (
        ("--rows", asked.rows, _ROW_NAMES),
        ("--models", asked.models, _MODEL_NAMES),
        ("--also", asked.also, _MODEL_NAMES),
        ("--again", asked.again, _MODEL_NAMES),
    ):
        _check(parser, option, names, there)
    try:
        if asked.small:
            with tempfile.TemporaryDirectory() as scratch:
                return _small(asked, Path(scratch))
        check_writable(asked.out)
        return _tell(asked, _measured(asked, ROWS, asked.data, asked.work), asked.out)
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _small(asked: argparse.Namespace, scratch: Path) -> int:
    rows = small_rows(ROWS)
    write_small(scratch / "data", rows)
    asked.epochs = EPOCHS
    return _tell(asked, _measured(asked, rows, scratch / "data", scratch / "work"), None)


def _measured(asked: argparse.Namespace, rows: Sequence[Row], data: Path, work: Path) -> list[Found]:
    store = Store(work)
    wishes = Wishes(
        frozenset(asked.rows or _ROW_NAMES),
        frozenset(asked.models),
        frozenset(asked.also),
        asked.seeds,
        asked.epochs,
    )
    for row in wishes.rows:
        for model in asked.again:
            store.forget(row, model)
    runner = Runner(data, store, wishes, open_ground, lambda line: print(line, file=sys.stderr, flush=True))
    return list(runner.found(rows))


def _tell(asked: argparse.Namespace, founds: Sequence[Found], out: Path | None) -> int:
    if not any(found.models or found.failed for found in founds):
        raise SettingsError("data: nothing was measured; a folder of the rows' data is wanted, and --data says where")
    text = markdown(founds, is_small=asked.small)
    if out is not None:
        with replacing(out) as aside:
            aside.write_text(text, encoding="utf-8")
    print(json.dumps(as_json(founds)) if asked.json else text)
    return int(any(found.failed for found in founds))


def _check(parser: argparse.ArgumentParser, option: str, names: Collection[str], there: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(there))
    if unknown:
        parser.error(f"{option}: there is no {', '.join(unknown)}; there are {', '.join(there)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="How good the networks are.")
    for option, help_text in (
        ("--rows", f"of {', '.join(_ROW_NAMES)}; all by default"),
        ("--models", "of those that rows have, these alone"),
        ("--also", "besides, of those that rows leave out, as linear"),
        ("--again", "forget what was measured of these, in the rows asked for"),
    ):
        parser.add_argument(option, nargs="+", default=[], metavar="NAME", help=help_text)
    parser.add_argument("--seeds", type=_count, help="only so many of each row's")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data", help="folder of all data")
    parser.add_argument("--work", type=Path, default=_ROOT / ".quality", help="folder that keeps what is measured")
    parser.add_argument("--out", type=Path, default=NETWORKS / "RESULTS.md", help="file to write")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--small", action="store_true", help="made-up data and an epoch: that it runs; writes no file")
    parser.set_defaults(epochs=None)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
