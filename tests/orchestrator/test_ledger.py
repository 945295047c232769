import json
from pathlib import Path

import pytest
from clocks import FakeClock

from orchestrator.ledger import Ledger, LedgerEvent, open_entries, read_ledger
from orchestrator.resources import Kind


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", clock=FakeClock(), run_id="r-1", region="us-east-1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_was_written_is_read_back_in_order(ledger: Ledger, path: Path):
    intended = ledger.intend(Kind.INSTANCE, name="i", token="t", zone="us-east-1a")
    created = ledger.created(intended, "i-1")
    assert read_ledger(path) == (intended, created)
    assert created.detail == {"zone": "us-east-1a"}
    assert (created.token, created.resource_id, created.event) == ("t", "i-1", LedgerEvent.CREATED)


def test_open_is_what_was_asked_for_and_neither_refused_nor_deleted(ledger: Ledger, path: Path):
    group = ledger.created(ledger.intend(Kind.SECURITY_GROUP, name="g"), "sg-1")
    ledger.failed(ledger.intend(Kind.INSTANCE, name="i", token="first"), "no capacity")
    second = ledger.intend(Kind.INSTANCE, name="i", token="second")
    ledger.deleted(ledger.created(ledger.intend(Kind.KEY_PAIR, name="k"), "k"))
    assert open_entries(read_ledger(path)) == (group, second)


def test_where_there_is_no_file_there_is_no_entry(path: Path):
    assert read_ledger(path) == ()


@pytest.mark.parametrize("torn", ['{"at": "2026-', '"text"', "[]", '{"kind": "castle"}', "\x00\x00"])
def test_a_line_that_cannot_be_read_is_passed_over_and_does_not_swallow_the_next(ledger: Ledger, path: Path, torn: str):
    before = ledger.intend(Kind.KEY_PAIR, name="k")
    with path.open("a") as file:
        file.write(torn)
    after = ledger.intend(Kind.SECURITY_GROUP, name="g")
    assert read_ledger(path) == (before, after)


def test_every_line_is_one_object_with_the_run_and_the_region(ledger: Ledger, path: Path):
    ledger.failed(ledger.intend(Kind.INSTANCE, name="i", token="t"), "quota\nreached")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["intended", "failed"]
    assert {(line["run_id"], line["region"]) for line in lines} == {("r-1", "us-east-1")}
    assert lines[1]["detail"] == {"reason": "quota\nreached"}
