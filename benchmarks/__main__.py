"""`python -m benchmarks [--small] [NAME …]`: the rows of the named modules, or of all, as a JSON line each, then as a
table for the README.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks import convert, flops, machine, rental, sampled, slices, step, topk, transfer
from benchmarks.pairs import Row
from benchmarks.scale import SMALL, Scale

_MODULES: Mapping[str, Callable[[Scale], Iterator[Row]]] = {
    "step": step.rows,
    "flops": flops.rows,
    "sampled": sampled.rows,
    "convert": convert.rows,
    "topk": topk.rows,
    "slices": slices.rows,
    "rental": rental.rows,
    "transfer": transfer.rows,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows as they are measured; whether bars are met changes no exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures beside those of peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_MODULES)}; all by default")
    parser.add_argument("--small", action="store_true", help="tiny sizes: that every row runs, not how fast")
    parser.add_argument("--runs", type=int, default=None, help="turns of each side after the warm-up")
    parser.add_argument("--peers", default=sys.executable, help="python of the environment that has the peers")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.names) - set(_MODULES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(_MODULES)}")
    scale = replace(SMALL if asked.small else Scale(), peers=asked.peers)
    scale = replace(scale, runs=asked.runs or scale.runs)
    found: list[Row] = []
    for name in asked.names or _MODULES:
        for measured in _MODULES[name](scale):
            row = replace(measured, bar=None, met=None) if scale.is_small else measured
            print(row.json(), flush=True)
            found.append(row)
    print(table(found))


def table(rows: Sequence[Row]) -> str:
    """Markdown, with date and machine."""
    today = dt.datetime.now(dt.UTC).date()
    lines = [f"Measured {today} on {machine.described()}.", ""]
    lines += ["| figure | ours | peer | unit | ratio | bar | met |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        met = {True: "yes", False: "no", None: row.note or "–"}[row.met]
        numbers = [_cell(number) for number in (row.ours, row.peer)]
        lines.append(
            f"| {row.name} | {' | '.join(numbers)} | {row.unit} | {_cell(row.ratio)} | {_cell(row.bar)} | {met} |"
        )
    return "\n".join(lines)


def _cell(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    main()
