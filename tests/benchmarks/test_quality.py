import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.__main__ import main
from benchmarks.quality.figures import apart, figure, verdict
from benchmarks.quality.grounds import Ground, Outcome, Say, join_lists, open_ground
from benchmarks.quality.report import as_json, markdown
from benchmarks.quality.rows import MODELS, ROWS, Bar, Model, Row
from benchmarks.quality.running import Found, Runner, Wishes
from benchmarks.quality.small import small_rows, write_small
from benchmarks.quality.store import About, Measurement, Store
from trainer.bootstrap import paired_difference
from trainer.comparing import Result
from trainer.errors import TrainerError
from trainer.metrics import Measured
from trainer.settings import TrainSettings

NETWORK = '{"Layers": [{"Name": "In", "Kind": "Input", "N": "auto"}, {"Name": "Out", "Kind": "Output", "N": "auto"}]}'
ROW = Row("row", "A row", "data", "About.", ("net", "ease", "bpr"), Bar(("ease",), plus=0.01), seeds=(0, 1))


@dataclass
class Played:
    """A ground on which nothing is trained: it notes what was measured."""

    digest: str
    done: list[tuple[str, int]]
    broken: str = ""

    def measure(self, model: Model, settings: TrainSettings, *, say: Say) -> Outcome:
        self.done.append((model.name, settings.seed))
        if model.name == self.broken:
            raise TrainerError("no number")
        return Outcome(Result(model.name, self.digest, Measured({name: np.ones(3) for name in ROW.metrics}, {})), "")


@dataclass
class Bench:
    """Two baselines and a network of which two seeds are measured, in `folder`."""

    folder: Path
    data: str = "these"
    broken: str = ""
    done: list[tuple[str, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def run(self, wishes: Wishes | None = None) -> tuple[Found, list[tuple[str, int]]]:
        """What was found, and what was measured for it."""
        (self.folder / "data").mkdir(exist_ok=True)
        if not self.network.exists():
            self.network.write_text(NETWORK)
        self.done.clear()

        def opens(row: Row, seed: int, *, data: Path, work: Path) -> Ground:
            return Played(f"{self.data} {seed}", self.done, self.broken)

        models = {name: Model(name) for name in ROW.models} | {"net": Model("net", self.network)}
        wanted = wishes or Wishes(frozenset({"row"}))
        runner = Runner(self.folder, self.store, wanted, opens, self.said.append, models)
        (found,) = runner.found([ROW])
        return found, list(self.done)

    @property
    def network(self) -> Path:
        return self.folder / "net.json"

    @property
    def store(self) -> Store:
        return Store(self.folder / "work")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


EVERYTHING = [(name, seed) for seed in (0, 1) for name in ROW.models]


def test_a_second_call_measures_nothing_and_tells_the_same(bench: Bench):
    first, done = bench.run()
    assert done == EVERYTHING
    second, done = bench.run()
    assert done == []
    assert as_json([second]) == as_json([first])


def test_a_call_that_was_cut_short_is_gone_on_with(bench: Bench):
    bench.run(Wishes(frozenset({"row"}), models=frozenset({"ease"}), seeds=1))
    # Half-written: the file that comes last is missing.
    bench.run(Wishes(frozenset({"row"}), models=frozenset({"bpr"}), seeds=1))
    next(bench.store.folder.glob("row/seed-0/bpr.json")).unlink()
    assert bench.run()[1] == [one for one in EVERYTHING if one != ("ease", 0)]


def test_a_changed_network_alone_is_measured_again_and_its_comments_do_not_count(bench: Bench):
    bench.run()
    bench.network.write_text("// What it reached.\n" + NETWORK)
    assert bench.run()[1] == []
    bench.network.write_text(NETWORK[:-1] + ', "Training": {"Epochs": 7}}')
    # What is kept of the old one is not told meanwhile.
    found, done = bench.run(Wishes(frozenset()))
    assert (set(found.models), done) == ({"ease", "bpr"}, [])
    assert bench.run()[1] == [("net", 0), ("net", 1)]


def test_other_data_make_every_model_be_measured_again(bench: Bench):
    bench.run()
    bench.data = "others"
    assert bench.run()[1] == EVERYTHING


def test_a_forgotten_model_is_measured_again(bench: Bench):
    bench.run()
    bench.store.forget("row", "bpr")
    assert bench.run()[1] == [("bpr", 0), ("bpr", 1)]


def test_a_model_that_fails_costs_no_other_and_is_told(bench: Bench):
    bench.broken = "ease"
    found, done = bench.run()
    assert done == EVERYTHING
    assert set(found.models) == {"net", "bpr"}
    assert "Ended with an error: ease, seed 0; ease, seed 1." in markdown([found])
    assert "| ease | – | – | – | – | – | not measured | – |" in markdown([found])
    bench.broken = ""
    assert bench.run()[1] == [("ease", 0), ("ease", 1)]


def test_a_row_without_data_says_so_and_is_left_out(bench: Bench):
    runner = Runner(bench.folder, bench.store, Wishes(frozenset({"row"})), open_ground, bench.said.append)
    (found,) = runner.found([ROW])
    assert found.models == {}
    assert "no folder data" in bench.said[0]
    assert "Left out: no folder `data`" in markdown([found])


def measurement(model: str, values: Sequence[float], asked: str) -> Measurement:
    about = About(key="", described="as it is", seconds=30.0, date="2026-11-24", machine="2 cores")
    found = {name: np.array(values, np.float64) for name in ROW.metrics}
    return Measurement(Result(model, asked, Measured(found, {})), about)


def found_by_hand() -> Found:
    net = {0: measurement("net", [0.5, 0.7], "0"), 1: measurement("net", [0.1, 0.5], "1")}
    ease = {0: measurement("ease", [0.4, 0.6], "0"), 1: measurement("ease", [0.2, 0.3], "1")}
    return Found(ROW, {"net": net, "ease": ease})


def test_means_and_paired_differences_are_those_done_by_hand():
    models = found_by_hand().models
    # Seeds' means 0.6 and 0.3: their mean, and half their distance.
    mean = figure(models["net"], "ndcg@100")
    assert (mean.mean, mean.error) == pytest.approx((0.45, 0.15))
    # Users' differences 0.1, 0.1 and -0.1, 0.2; seeds' 0.1 and 0.05.
    difference = apart(models["net"], models["ease"], "ndcg@100")
    assert difference is not None
    assert (difference.figure.mean, difference.figure.error) == pytest.approx((0.075, 0.025))
    pooled = paired_difference(np.array([0.1, 0.1, -0.1, 0.2]), np.zeros(4), seed=0)
    assert (difference.low, difference.high, difference.seeds) == pytest.approx((pooled.low, pooled.high, 2))
    # One seed: users' 0.5 and 0.7.
    alone = figure({0: models["net"][0]}, "ndcg@100")
    assert (alone.mean, alone.error) == pytest.approx((0.6, 0.1))


def test_a_bar_is_for_the_seeds_that_all_have():
    found = found_by_hand()
    whole = verdict(found)
    assert whole is not None
    assert (whole.wanted, whole.reached, whole.met) == pytest.approx((0.375 + 0.01, 0.45, True))
    one = verdict(replace(found, models={**found.models, "ease": {1: found.models["ease"][1]}}))
    assert one is not None
    assert (one.wanted, one.reached, one.seeds) == pytest.approx((0.26, 0.3, 1))
    strict = replace(found, row=replace(ROW, bar=Bar(("ease",), times=2.0)))
    assert not verdict(strict).met
    assert verdict(replace(found, models={"net": found.models["net"]})) is None


def test_the_table_has_the_figures_of_each_model():
    text = markdown([found_by_hand()])
    mean = " | 0.3750 ± 0.1250" * 3
    assert f"| ease{mean} | +0.0750 ± 0.0250 | -0.0500 to +0.1750 | as it is | 60 |" in text
    assert "| net | ndcg@100 ≥ ease + 0.010 | 0.3850 | 0.4500 | yes |" in text
    assert "All 4 measurements together took 120 seconds." in text


def test_lists_that_others_split_are_joined_by_user(tmp_path: Path):
    (tmp_path / "train.txt").write_text("0 31 27\n1 5\n2\n")
    (tmp_path / "test.txt").write_text("1 6 7\n0 9\n")
    join_lists([tmp_path / "train.txt", tmp_path / "test.txt"], tmp_path / "joined.txt")
    assert (tmp_path / "joined.txt").read_text() == "0\t31:27:9\n1\t5:6:7\n"


def test_every_row_has_its_models_and_a_figure_for_each_metric():
    for row in ROWS:
        for name in (*row.models, *row.more, *row.bar.over):
            network = MODELS[name].network
            assert network is None or network.is_file()
        assert {len(values) for values in row.published.values()} <= {len(row.metrics)}


def test_every_row_measures_baselines_on_made_up_data(tmp_path: Path):
    rows = small_rows(ROWS)
    write_small(tmp_path, rows)
    wishes = Wishes(frozenset(row.name for row in rows), models=frozenset({"popularity", "ease", "content", "chance"}))
    founds = list(Runner(tmp_path, Store(tmp_path / "work"), wishes, open_ground, lambda _: None).found(rows))
    assert [found.failed for found in founds] == [[]] * len(rows)
    assert all(set(found.models) == wishes.models & set(found.row.models) for found in founds)
    assert [len(found.models["ease"]) for found in founds if "ease" in found.models] == [1, 2, 1, 1]


def test_where_there_are_no_data_the_results_of_before_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    results = tmp_path / "RESULTS.md"
    results.write_text("of before")
    assert main(["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--out", str(results)]) == 2
    assert "error: data: nothing was measured" in capsys.readouterr().err
    assert results.read_text() == "of before"


def test_results_are_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_small(tmp_path, [row for row in ROWS if row.name == "gowalla"])
    results = tmp_path / "RESULTS.md"
    asked = ["--rows", "gowalla", "--models", "popularity", "--data", str(tmp_path), "--work", str(tmp_path / "work")]
    assert main([*asked, "--out", str(results)]) == 0
    assert capsys.readouterr().out == results.read_text() + "\n"
    assert main([*asked, "--out", str(results), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["rows"]["gowalla"]
    mean = told["models"]["popularity"]["figures"]["recall@20"]["mean"]
    assert f"| popularity | {mean:.4f} ± " in results.read_text()
    assert told["verdict"] is None
    assert "| LightGCN, published | 0.1820 | 0.1547 |" in results.read_text()


def test_a_row_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--rows", "ml-20m"])
    assert ended.value.code == 2
    assert "--rows: there is no ml-20m; there are ml-1m-strong" in capsys.readouterr().err
