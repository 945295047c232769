from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.record import RunRecord, find_run, write_record

RECORD = RunRecord(run_id="r1", region="us-east-1", account_id="1", endpoint="http://127.0.0.1:1")


def test_a_run_is_found_by_id_and_by_folder(tmp_path: Path):
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    write_record(folder, RECORD)
    assert find_run("r1", output=tmp_path / "runs") == (folder, RECORD)
    assert find_run(str(folder), output=tmp_path / "elsewhere") == (folder, RECORD)


def test_a_record_of_a_newer_version_is_read_leniently(tmp_path: Path):
    (tmp_path / "run.json").write_text('{"run_id": "r", "region": "x", "account_id": "1", "news": 1}')
    assert find_run(str(tmp_path), output=tmp_path)[1].run_id == "r"


def test_an_unknown_run_says_where_it_was_looked_for(tmp_path: Path):
    with pytest.raises(UsageError, match="no run 'r9'"):
        find_run("r9", output=tmp_path)
