"""The verbs `offers` and `images` as they are typed, and the flags about what to rent."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.dryrun.catalog import image_id
from orchestrator.dryrun.cloud import MockedCloud


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_images_are_listed_with_what_one_chooses_by(mock: MockedCloud):
    answer = typed("images", "dlami-base", "--mock-cloud", mock.endpoint, "--json")
    assert answer.exit_code == 0
    (image,) = json.loads(answer.stdout)["images"]
    assert image["id"] == image_id("dlami-ubuntu-24.04", "us-east-1")
    assert (image["owner"], image["ssh_user"], image["misfits"]) == ("898082745236", "ubuntu", [])
    assert image["created_at"].startswith("2026-10-16")


def test_a_table_of_images_says_which_does_not_fit(mock: MockedCloud):
    answer = typed("images", "--instance-type", "g5g.xlarge", "--mock-cloud", mock.endpoint)
    first, misfit, *_ = answer.stdout.splitlines()
    assert image_id("dlami-ubuntu-24.04", "us-east-1") in first
    assert "does not fit: g5g.xlarge: it is arm64" in misfit


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gpus", "4"), "give max_usd_per_hour or max_usd"),
        (("--gpus", "4", "--max-usd-per-hour", "0"), "command line: max_usd_per_hour"),
        (("--gpus", "4", "--instance-type", "g6.xlarge"), "not both"),
        (("--fallback",), 'fallback is for market = "spot"'),
        (("--market", "barter"), "command line: market"),
        (("--wait-capacity", "-1"), "command line: wait_capacity_minutes"),
        (("--tune-trials", "3", "--nodes", "2"), "settings.tune_trials is for one machine"),
        (("--tune-trials", "3", "--tune-minutes", "0"), "command line: settings.tune_minutes"),
        (("--analog", "--min-rating", "4", "--half-life-days", "0"), "command line: settings.half_life_days"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, flags: tuple[str, ...], said: str):
    spec = tmp_path / "run.toml"
    spec.write_text('instance_types = ["g6.xlarge"]\nnetwork = "n.json"\ndata = "d"\n')
    answer = typed("plan", "--config", str(spec), *flags)
    assert answer.exit_code == 2
    assert said in answer.stderr
