"""`run.json` of a run folder: what was planned, where, and how it ended. Written before anything is
rented, so that `orchestrator down` finds region and endpoint whatever happens.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import UsageError

FILE_NAME = "run.json"


class RunRecord(BaseModel):
    """One run, read leniently."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    region: str
    account_id: str
    endpoint: str | None = None
    """Address of the mocked AWS the run rents from; `None` for the real one."""
    plan: Mapping[str, Any] = {}
    outcome: Mapping[str, Any] | None = None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write or replace `run.json`, aside and renamed."""
    aside = folder / f".{FILE_NAME}"
    aside.write_text(json.dumps(record.model_dump(), indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / FILE_NAME)


def find_run(run: str, *, output: Path) -> tuple[Path, RunRecord]:
    """The folder and record of `run`, a run id below `output` or the path of a run folder."""
    for folder in (output / run, Path(run)):
        path = folder / FILE_NAME
        if path.is_file():
            try:
                return folder, RunRecord.model_validate_json(path.read_bytes())
            except ValidationError as error:
                raise UsageError(f"{path}: not a run record: {error.errors()[0]['msg']}") from error
    raise UsageError(f"no run {run!r}: neither {output / run / FILE_NAME} nor {Path(run) / FILE_NAME} exists")
