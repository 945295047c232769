"""What the verbs do that take stock: the books of runs, what the account holds, what a run would need; and a first run
spec.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from string import Template

from orchestrator.books import Books, all_books, books_of
from orchestrator.doctor import Finding, examine
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.packaged import packaged
from orchestrator.record import find_run
from orchestrator.resources import Tagged
from orchestrator.spec import RunSpec
from orchestrator.worlds import Where, opened_world, standing_world


def ledgers(output: Path, now: datetime, run_name: str | None = None) -> tuple[Books, ...]:
    """The books of one run, or of all below `output`."""
    if run_name is None:
        return all_books(output, now)
    folder, record = find_run(run_name, output=output)
    return (books_of(folder, record, now),)


def in_cloud(region: str, where: Where) -> Mapping[str, Sequence[Tagged]]:
    """What of ours exists in a region of the account, by run."""
    found: dict[str, list[Tagged]] = {}
    for tagged in standing_world(region, where).reader.tagged():
        found.setdefault(tagged.run_id, []).append(tagged)
    return found


def examined(spec: RunSpec, where: Where) -> tuple[Finding, ...]:
    """Whether a run of `spec` could be rented."""
    try:
        with opened_world(spec.region, where) as opened:
            return examine(spec, opened.world.reader, opened.world.clock)
    except OrchestratorError as error:
        # Not even a client could be made: a profile that does not exist, say.
        return (Finding("credentials", "bad", str(error), "name a profile that exists, or log in"),)


def write_first_spec(path: Path) -> None:
    """Write a commented run spec. `UsageError` if something lies there."""
    configs = packaged("configs")
    text = Template((configs / "first-run.toml").read_text(encoding="utf-8")).substitute(
        # TOML's basic strings are JSON's.
        network=json.dumps(str((configs / "networks" / "movielens.json").resolve())),
        data=json.dumps(str((configs / "data" / "movielens-sample").resolve())),
        path=path.name,
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path}: exists already; name another path, nothing is overwritten") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
