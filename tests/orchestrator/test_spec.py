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
        (LEAST.replace('["g6.xlarge"]', "[]"), "give instance_types, or gpus and gpu_memory_gib"),
        ("data = 1", "network: Field required"),
        (LEAST + "gpus = 4\n", "not both"),
        (LEAST.replace('instance_types = ["g6.xlarge"]', "gpus = 4"), "give max_usd_per_hour or max_usd"),
        (LEAST + 'market = "barter"\n', "market: Input should be 'on_demand', 'spot' or 'cheapest'"),
        (LEAST + "fallback = true\n", 'fallback is for market = "spot" only'),
        (LEAST + 'bucket = "s3://kept"\n', "bucket: s3://NAME/PREFIX is wanted"),
        (LEAST + 'bucket = "s3://kept/runs"\ninstance_profile = "p"\nnodes = 2\n', "bucket is for one machine"),
        (LEAST + "keep_alive_minutes = 9\nnodes = 2\n", "keep_alive_minutes is for one machine"),
        (
            LEAST + 'keep_alive_minutes = 9\nbucket = "s3://kept/runs"\ninstance_profile = "p"\n',
            "keep_alive_minutes or bucket, not both",
        ),
        (LEAST + "wait_capacity_minutes = -1\n", "wait_capacity_minutes: Input should be greater than or equal to 0"),
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


@pytest.mark.parametrize(
    ("market", "fallback", "expected"),
    [
        ("on_demand", False, (Market.ON_DEMAND,)),
        ("spot", False, (Market.SPOT,)),
        ("spot", True, (Market.SPOT, Market.ON_DEMAND)),
        ("cheapest", False, (Market.SPOT, Market.ON_DEMAND)),
    ],
)
def test_a_market_is_one_way_to_buy_or_both(tmp_path: Path, market: str, fallback: bool, expected: tuple[Market, ...]):
    assert read_spec(written(tmp_path, LEAST), {"market": market, "fallback": fallback}).markets == expected


def test_a_need_on_the_command_line_replaces_names_in_the_file_and_the_other_way_round(tmp_path: Path):
    capped = written(tmp_path, LEAST + "max_usd = 5\n")
    needed = read_spec(capped, {"gpus": 4, "gpu_memory_gib": 24.0})
    assert (needed.instance_types, needed.gpus, needed.gpu_memory_gib) == ((), 4, 24.0)
    by_need = written(tmp_path, LEAST.replace('instance_types = ["g6.xlarge"]', "gpus = 4\nmax_usd = 5"))
    named = read_spec(by_need, {"instance_types": ["g5.xlarge"]})
    assert (named.instance_types, named.gpus) == (("g5.xlarge",), None)


def test_an_error_says_whether_the_file_or_the_command_line_is_wrong(tmp_path: Path):
    path = tmp_path / "spec.toml"
    none_given = {"max_hours": None, "fallback": None, "nodes": None}
    for text, given, place in (
        (LEAST + "max_hours = 0\n", none_given, str(path)),
        (LEAST, {**none_given, "max_hours": 0}, "command line"),
        (LEAST + "fallback = true\n", none_given, str(path)),
        (LEAST, {**none_given, "fallback": True}, "command line"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            read_spec(path, given)
        assert str(caught.value).startswith(f"{place}: ")
