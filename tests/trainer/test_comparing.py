from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.bootstrap import paired_difference
from trainer.comparing import Result, comparison, digest, read_result, table, write_result
from trainer.data.split import HeldOut
from trainer.errors import DataError, SettingsError
from trainer.metrics import Measured
from trainer.sparse import SparseDataset


def result(model: str, ndcg: list[float], asked: str = "same") -> Result:
    return Result(model, asked, Measured({"ndcg@10": np.array(ndcg)}, {"coverage@10": 0.5}))


def test_the_interval_is_that_of_the_mean_of_pairs():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=400)
    better = hard + 0.1 + 0.2 * rng.normal(size=400)
    found = paired_difference(better, hard, seed=1)
    # By the central limit theorem, of the differences, whose spread is a fifth of that of the values.
    reach = 1.96 * (better - hard).std() / 20
    assert found.mean == pytest.approx((better - hard).mean())
    assert (found.low, found.high) == pytest.approx((found.mean - reach, found.mean + reach), abs=0.1 * reach)
    assert found.not_above == 0.0
    assert found == paired_difference(better, hard, seed=1)
    assert found != paired_difference(better, hard, seed=2)


def test_a_difference_that_is_none_is_not_above_nothing_in_every_resample():
    values = np.random.default_rng(0).random(50)
    found = paired_difference(values, values, seed=1)
    assert (found.mean, found.low, found.high, found.not_above) == (0.0, 0.0, 0.0, 1.0)


def test_what_is_drawn_does_not_depend_on_how_much_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch):
    first, second = np.random.default_rng(0).random((2, 30))
    whole = paired_difference(first, second, seed=3, resamples=100)
    monkeypatch.setattr("trainer.bootstrap._AT_ONCE", 90)
    assert paired_difference(first, second, seed=3, resamples=100) == whole


def test_a_measurement_is_read_as_it_was_written(tmp_path: Path):
    kept = result("näher", [0.25, 0.5])
    write_result(kept, tmp_path / "one.npz")
    read = read_result(tmp_path / "one.npz")
    assert (read.model, read.asked, read.measured.coverage) == (kept.model, kept.asked, kept.measured.coverage)
    assert read.measured.values["ndcg@10"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04rest", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_what_is_no_measurement_is_refused_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "one.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"one\.npz: is no measurement"):
        read_result(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"none\.npz: cannot be read"):
        read_result(tmp_path / "none.npz")


def test_an_array_that_is_no_measurement_is_refused(tmp_path: Path):
    np.savez(tmp_path / "other.npz", model=np.zeros(3))
    with pytest.raises(DataError, match="is no measurement"):
        read_result(tmp_path / "other.npz")


def test_measurements_of_other_samples_are_not_compared():
    with pytest.raises(SettingsError, match="on one split"):
        comparison(result("a", [1.0]), result("b", [0.5], asked="other"), seed=0)


def test_the_table_tells_errors_and_how_far_the_first_is_ahead():
    text = table([result("network", [0.4, 0.6]), result("popularity", [0.1, 0.3])], shown=["ndcg@10"], seed=0)
    head, network, popularity = text.splitlines()
    assert head.split() == ["ndcg@10", "network", "minus", "it,", "ndcg@10"]
    assert network.split() == ["network", "0.5000", "±", "0.1000"]
    assert popularity.split() == ["popularity", "0.2000", "±", "0.1000", "+0.3000", "(+0.3000", "to", "+0.3000)"]


def test_a_column_that_was_not_measured_is_refused_and_those_that_were_are_named():
    with pytest.raises(SettingsError, match=r"ndcg@7 was not measured; there is ndcg@10, coverage@10"):
        table([result("network", [0.4])], shown=["ndcg@7"], seed=0)


def test_questions_are_told_apart_by_what_is_known_wanted_and_whose_it_is():
    known = SparseDataset("d", 128, np.array([0, 1]), np.array([3], np.uint32), None, ["a"])
    wanted = replace(known, indices=np.array([4], np.uint32))
    others = (
        HeldOut(wanted, known),
        HeldOut(known, known),
        HeldOut(replace(known, sample_names=["b"]), wanted),
    )
    assert digest(HeldOut(known, wanted)) == digest(HeldOut(replace(known), replace(wanted)))
    assert len({digest(asked) for asked in (HeldOut(known, wanted), *others)}) == 4
