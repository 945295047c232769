import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.events import Artifact, Event, Outcome, Progress, Stage, StageTime, TeardownReport
from orchestrator.report.outcome import outcome_json, outcome_text, teardown_text
from orchestrator.report.progress import progress, progress_text
from orchestrator.report.units import bytes_text, seconds_text

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def outcome(folder: Path, **changes: object) -> Outcome:
    (folder / "recs").write_text("7\t10,0.912:11,0.801:\n8\t12,0.700:\n", encoding="utf-8")
    (folder / "titles.json").write_text(json.dumps({"10": "The Silent Harbour (1994)"}), encoding="utf-8")
    values: dict[str, object] = {
        "run_id": "r1",
        "exit_status": 0,
        "directory": folder,
        "artifacts": tuple(Artifact(name, folder / name, 5, "ab") for name in ("recs", "titles.json")),
        "metrics": {"network.ndcg@100": 0.4, "popularity.ndcg@100": 0.3, "loss": 1.0},
        "hours": 0.1,
        "estimated_usd": Decimal("0.09"),
        "stages": (StageTime(Stage.LAUNCH, 2.0),),
        "teardown": TeardownReport(deleted=("instance i-1",)),
    }
    return Outcome(**{**values, **changes})


def test_the_closing_page_shows_titles_scores_metrics_cost_and_survivors(tmp_path: Path):
    text = outcome_text(outcome(tmp_path))
    assert "The Silent Harbour (1994)" in text
    assert "0.912" in text
    assert "0.09 USD" in text
    assert text.endswith("survivors: none")
    network, popularity = (line for line in text.splitlines() if line.startswith(("  network", "  popularity")))
    assert network.endswith("0.4000")
    assert popularity.endswith("0.3000")


def test_an_item_without_a_title_shows_its_name(tmp_path: Path):
    assert any(line.split() == ["0.700", "12", "12"] for line in outcome_text(outcome(tmp_path)).splitlines())


def test_json_has_the_promised_keys(tmp_path: Path):
    values = json.loads(json.dumps(outcome_json(outcome(tmp_path))))
    assert {
        "run_id",
        "exit_status",
        "artifacts",
        "metrics",
        "hours",
        "estimated_usd",
        "stages",
        "teardown",
    } <= set(values)
    assert set(values["teardown"]) == {"deleted", "already_gone", "survivors"}
    assert values["artifacts"]["recs"] == {"path": str(tmp_path / "recs"), "bytes": 5, "sha256": "ab"}
    assert values["stages"] == [{"name": "launch", "seconds": 2.0}]


def test_stages_that_went_on_at_once_count_once_and_say_when_they_began(tmp_path: Path):
    stages = (
        StageTime(Stage.CONNECT, 2.0, NOON),
        StageTime(Stage.PREPARE, 4.0, NOON + timedelta(seconds=3)),
        StageTime(Stage.UPLOAD, 6.0, NOON + timedelta(seconds=2)),
        StageTime(Stage.TRAIN, 10.0, NOON + timedelta(seconds=60)),
    )
    told = outcome(tmp_path, stages=stages)
    assert told.seconds == 2 + 6 + 10
    assert [(stage["name"], stage["at_seconds"]) for stage in outcome_json(told)["stages"]] == [
        ("connect", 0.0), ("upload", 2.0), ("prepare", 3.0), ("train", 60.0),
    ]  # fmt: skip


def test_survivors_are_named():
    assert teardown_text(TeardownReport(survivors=("instance i-2",))).endswith("survivors: instance i-2")


def test_lines_are_quiet_where_stderr_is_no_terminal():
    stream = io.StringIO()
    with progress(stream) as tell:
        tell(Event(NOON, Stage.TRAIN, "training"))
        for epoch in range(1, 101):
            at = NOON + timedelta(seconds=epoch / 10)
            tell(Event(at, Stage.TRAIN, "", Progress(epoch, 100, "epochs", loss=1.0)))
        tell(Event(NOON, Stage.TRAIN, "", ended=True))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "12:00:00 train     training"
    assert lines[-1].endswith("100/100 epochs, loss 1")
    assert len(lines) <= 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Progress(1_200_000, 3_400_000, "bytes"), "1.2 MB of 3.4 MB"),
        (
            Progress(3, 10, "epochs", loss=812.44, samples_per_second=1234.4, seconds_left=4),
            "3/10 epochs, loss 812.4, 1,234 samples/s, 4.0 s left",
        ),
    ],
)
def test_progress_says_how_far_how_fast_and_how_long(given: Progress, expected: str):
    assert progress_text(given) == expected


def test_units_read_well():
    assert [bytes_text(size) for size in (0, 999, 1200, 2_500_000_000)] == [
        "0 B",
        "999 B",
        "1.2 kB",
        "2.5 GB",
    ]
    assert [seconds_text(seconds) for seconds in (8.24, 200, 3900)] == ["8.2 s", "3 min 20 s", "1 h 05 min"]
