"""Scenarios are parsed strictly, and what is wrong with one is the user's to put right."""

from pathlib import Path

import pytest

from orchestrator.dryrun.scenario import Scenario, read_scenario
from orchestrator.errors import UsageError


def test_without_a_scenario_nothing_goes_wrong():
    assert read_scenario(None) == Scenario()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"hostkey": "wrong"}', "hostkey: "),
        ('{"host_key": "odd"}', "host_key: "),
        ('{"fail": [{"action": "RunInstances", "nth": 0}]}', "fail.0.nth: "),
        ('{"pending_seconds": -1}', "pending_seconds: "),
        ("[]", "scenario: "),
        ("{", "cannot be read as a scenario"),
        (None, "cannot be read as a scenario"),
    ],
)
def test_a_bad_scenario_is_named_with_its_file_and_place(tmp_path: Path, text: str | None, expected: str):
    path = tmp_path / "trouble.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_scenario(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
