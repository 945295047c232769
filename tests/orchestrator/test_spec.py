from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.resources import Market
from orchestrator.spec import read_spec

LEAST = """
instance_types = ["g6.xlarge"]
network = "nets/small.json"
data = "ratings"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_relative_paths_count_from_the_specs_folder(tmp_path: Path):
    spec = read_spec(written(tmp_path, LEAST), {})
    assert spec.network == tmp_path / "nets" / "small.json"
    assert spec.data == str(tmp_path / "ratings")


def test_a_url_is_left_as_it_is(tmp_path: Path):
    url = "https://example.org/ratings.zip"
    assert read_spec(written(tmp_path, LEAST.replace('"ratings"', f'"{url}"')), {}).data == url


def test_flags_win_over_the_file(tmp_path: Path):
    spec = read_spec(
        written(tmp_path, LEAST + "[settings]\nepochs = 3\nbatch_size = 7\n"),
        {"settings.epochs": 5, "market": "spot", "max_hours": "0.5", "region": None},
    )
    assert (spec.settings.epochs, spec.settings.batch_size) == (5, 7)
    assert (spec.market, spec.max_hours, spec.region) == (Market.SPOT, Decimal("0.5"), "us-east-1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LEAST + "epochs = 3\n", "epochs: Extra inputs are not permitted"),
        (LEAST + "[settings]\nepoch = 3\n", "settings.epoch: Extra inputs"),
        (LEAST.replace("g6.xlarge", "g6"), "instance_types.0"),
        (LEAST.replace('["g6.xlarge"]', '["g6.xlarge", "g6.xlarge"]'), "names a type twice"),
        (LEAST.replace('["g6.xlarge"]', "[]"), "instance_types"),
        ("data = 1", "instance_types: Field required"),
        (LEAST + "max_hours = 0\n", "max_hours: Input should be greater than 0 (given: 0)"),
        ("a = [", "not valid TOML"),
    ],
)
def test_a_wrong_spec_is_refused_naming_file_and_key(tmp_path: Path, text: str, expected: str):
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_spec(path, {})
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


def test_a_wrong_flag_is_not_blamed_on_the_file(tmp_path: Path):
    with pytest.raises(UsageError, match=r"^command line: settings.epochs: .*\(given: 0\)"):
        read_spec(written(tmp_path, LEAST), {"settings.epochs": 0})


def test_a_missing_spec_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read the run spec"):
        read_spec(tmp_path / "none.toml", {})
