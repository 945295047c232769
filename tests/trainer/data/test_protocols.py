"""Splits leak nothing, lose nothing that they do not say, and are what their protocols say."""

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.given import Source, find_split, make_split
from trainer.data.load import load_data
from trainer.data.protocols import Split
from trainer.data.split import HeldOut
from trainer.data.split_files import read_split, write_split
from trainer.errors import DataError, InputError, SettingsError
from trainer.settings import SplitSettings
from trainer.sparse import SparseDataset

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
Pairs = dict[str, list[str]]


def write_ratings(path: Path, *, users: int = 30, seed: int = 0) -> Path:
    """Users of 1 to 14 items of 20; every rating at another time, some of 1 to 5 stars."""
    rng = np.random.default_rng(seed)
    rows = [(user, item) for user in range(users) for item in rng.permutation(20)[: rng.integers(1, 15)]]
    times = rng.permutation(len(rows))
    text = (f"u{u}\ti{i}\t{rng.integers(1, 6)}\t{time}\n" for (u, i), time in zip(rows, times, strict=True))
    path.write_text("".join(text))
    return path


def pairs(dataset: SparseDataset) -> Pairs:
    assert dataset.sample_names is not None
    assert dataset.features is not None
    names = dataset.features.names()
    ends = zip(dataset.sample_names, dataset.indptr[:-1], dataset.indptr[1:], strict=True)
    return {sample: [names[int(one)] for one in dataset.indices[first:last]] for sample, first, last in ends}


def held_outs(split: Split) -> list[HeldOut]:
    return [one for one in (split.validation, split.test) if one is not None]


def split(path: Path, **options: object) -> Split:
    return make_split(Source(path), SplitSettings.of(**options))


def check_sound(made: Split) -> None:
    """What holds of every split."""
    everything = [made.training, *(part for one in held_outs(made) for part in (one.known, one.wanted))]
    for part in everything:
        assert part.features == made.features
        assert part.width == made.features.width
        assert part.sample_names is not None
        assert len(part.sample_names) == part.samples
        for items in pairs(part).values():
            assert items
            assert len(set(items)) == len(items)
    trained = pairs(made.training)
    for one in held_outs(made):
        known, wanted = pairs(one.known), pairs(one.wanted)
        assert list(known) == list(wanted)
        for sample, items in wanted.items():
            assert not set(items) & set(known[sample])
            assert not set(items) & set(trained.get(sample, ()))
    # Whoever reads the training part alone gives its features the same numbers.
    seen = list(dict.fromkeys(item for items in trained.values() for item in items))
    assert made.features.names()[: len(seen)] == seen


PROTOCOLS = {
    "strong": {"test_users": 0.2},
    "weak": {},
    "leave-one-out": {"last": True},
    "temporal": {"held_out": 0.3},
}


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("ratings") / "u.data")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(seed=st.integers(0, 2**32 - 1), part=st.sampled_from([0.0, 0.1, 0.3]), stars=st.sampled_from([None, 3.0]))
@settings(max_examples=12, deadline=None)
def test_no_split_leaks(ratings: Path, protocol: str, seed: int, part: float, stars: float | None):
    asked = {"protocol": protocol, "seed": seed, "validation_part": part, "min_rating": stars, **PROTOCOLS[protocol]}
    made = split(ratings, **asked)
    check_sound(made)
    assert (made.validation is not None) == (part > 0)
    assert made.seed == seed


def test_the_same_seed_gives_the_same_split_and_another_seed_another(ratings: Path):
    for protocol in ("strong", "weak", "leave-one-out"):
        first, again, other = (split(ratings, protocol=protocol, seed=seed) for seed in (1, 1, 2))
        assert pairs(first.test.wanted) == pairs(again.test.wanted)
        assert pairs(first.test.wanted) != pairs(other.test.wanted)


def test_strong_holds_out_whole_samples_and_what_training_lacks(ratings: Path):
    whole = pairs(load_data(ratings).dataset)
    made = split(ratings, protocol="strong", seed=3, test_users=4, validation_part=0.2, least_features=6)
    assert made.validation is not None
    groups = [pairs(made.training), pairs(made.validation.known), pairs(made.test.known)]
    enough = [sample for sample, items in whole.items() if len(items) >= 6]
    assert len(groups[2]) == 4
    assert len(groups[1]) == int(0.2 * len(enough))
    assert Counter(sample for group in groups for sample in group) == Counter(enough)
    assert groups[0] == {sample: whole[sample] for sample in groups[0]}
    trained = {item for items in groups[0].values() for item in items}
    assert set(made.features.names()) == trained
    for one in held_outs(made):
        wanted = pairs(one.wanted)
        for sample, items in pairs(one.known).items():
            left = [item for item in whole[sample] if item in trained]
            assert sorted([*items, *wanted[sample]]) == sorted(left)
            assert len(wanted[sample]) == max(int(0.2 * len(left)), 1 if len(left) >= 5 else 0)


def test_weak_parts_every_sample_and_asks_the_test_with_all_the_rest(ratings: Path):
    whole = pairs(load_data(ratings).dataset)
    made = split(ratings, protocol="weak", seed=3, held_out=0.4, validation_part=0.25)
    assert made.validation is not None
    training, asked = pairs(made.training), pairs(made.validation.wanted)
    known, wanted = pairs(made.test.known), pairs(made.test.wanted)
    assert list(training) == list(whole)
    for sample, items in whole.items():
        rest = sorted([*training[sample], *asked.get(sample, [])])
        assert sorted([*rest, *wanted.get(sample, [])]) == sorted(items)
        if sample in wanted:
            assert sorted(known[sample]) == rest
        assert len(wanted.get(sample, [])) == max(int(0.4 * len(items)), 1 if len(items) >= 5 else 0)


def times_of(path: Path) -> dict[tuple[str, str], int]:
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return {(user, item): int(time) for user, item, _, time in rows}


def test_leave_one_out_by_time_wants_the_last_and_in_validation_the_one_before(ratings: Path):
    whole, times = pairs(load_data(ratings).dataset), times_of(ratings)
    made = split(ratings, protocol="leave-one-out", last=True)
    assert made.validation is not None
    asked, wanted, training = pairs(made.validation.wanted), pairs(made.test.wanted), pairs(made.training)
    for sample, items in whole.items():
        ordered = sorted(items, key=lambda item: times[sample, item])
        assert wanted.get(sample) == (ordered[-1:] if len(items) >= 2 else None)
        assert asked.get(sample) == (ordered[-2:-1] if len(items) >= 3 else None)
        assert set(training[sample]) == set(items) - set(wanted.get(sample, [])) - set(asked.get(sample, []))


def test_leave_one_out_draws_one_of_each_sample_and_more_of_none(ratings: Path):
    whole = pairs(load_data(ratings).dataset)
    made = split(ratings, protocol="leave-one-out", validation_part=0, seed=5)
    wanted, training = pairs(made.test.wanted), pairs(made.training)
    assert made.validation is None
    for sample, items in whole.items():
        assert len(wanted.get(sample, [])) == (len(items) >= 2)
        assert sorted([*training[sample], *wanted.get(sample, [])]) == sorted(items)
    last = pairs(split(ratings, protocol="leave-one-out", validation_part=0, last=True).test.wanted)
    assert wanted != last


def test_temporal_parts_at_two_moments_and_asks_only_with_what_was_before(ratings: Path):
    whole, times = pairs(load_data(ratings).dataset), times_of(ratings)
    made = split(ratings, protocol="temporal", held_out=0.25, validation_part=0.15)
    assert made.validation is not None
    n = len(times)
    first, second = int(0.6 * n), int(0.75 * n)
    early = {sample: [item for item in items if times[sample, item] < first] for sample, items in whole.items()}
    trained = {item for items in early.values() for item in items}
    assert pairs(made.training) == {sample: items for sample, items in early.items() if items}
    for one, start, end in ((made.validation, first, second), (made.test, second, n)):
        expected = {
            sample: [item for item in items if start <= times[sample, item] < end and item in trained]
            for sample, items in whole.items()
            if early[sample]
        }
        assert pairs(one.wanted) == {sample: items for sample, items in expected.items() if items}
        for sample, items in pairs(one.known).items():
            before = [item for item in whole[sample] if times[sample, item] < start and item in trained]
            assert items == before


def test_features_at_the_moment_of_the_cut_are_all_held_out(tmp_path: Path):
    rows = [("a", "x", 1), ("a", "y", 1), ("b", "x", 1), ("b", "y", 2), ("b", "z", 2), ("c", "y", 1), ("c", "x", 2)]
    (tmp_path / "u.data").write_text("".join(f"{user}\t{item}\t5\t{time}\n" for user, item, time in rows))
    made = split(tmp_path, protocol="temporal", held_out=0.2, validation_part=0)
    assert pairs(made.training) == {"a": ["x", "y"], "b": ["x"], "c": ["y"]}
    assert pairs(made.test.wanted) == {"b": ["y"], "c": ["x"]}


def test_a_feature_that_text_repeats_is_never_known_and_wanted(tmp_path: Path):
    rows = (f"s{n}\t" + ":".join(f"f{m % 9}" for m in range(n, n + 16)) + "\n" for n in range(20))
    (tmp_path / "samples.txt").write_text("".join(rows))
    check_sound(split(tmp_path / "samples.txt", protocol="weak"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_split_is_read_as_it_was_written(ratings: Path, tmp_path: Path, protocol: str):
    made = split(ratings, protocol=protocol, seed=9, **PROTOCOLS[protocol])
    write_split(made, tmp_path / "split")
    read = read_split(tmp_path / "split")
    assert (read.protocol, read.seed, dict(read.options)) == (made.protocol, made.seed, dict(made.options))
    assert read.features == made.features
    for before, after in zip(held_outs(made), held_outs(read), strict=True):
        assert_equal(before.known, after.known)
        assert_equal(before.wanted, after.wanted)
    assert_equal(made.training, read.training)


def assert_equal(first: SparseDataset, second: SparseDataset) -> None:
    for field in fields(SparseDataset):
        left, right = getattr(first, field.name), getattr(second, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right, field.name


def test_a_split_that_was_touched_or_is_none_is_refused_by_name(ratings: Path, tmp_path: Path):
    write_split(split(ratings, protocol="weak"), tmp_path)
    with (tmp_path / "test-wanted.txt").open("a") as file:
        file.write("more\ti1\n")
    with pytest.raises(DataError, match=r"test-wanted\.txt: is not the file that split\.json tells of"):
        read_split(tmp_path)
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(DataError, match=r"split\.json: protocol: Field required"):
        read_split(tmp_path)
    (tmp_path / "split.json").unlink()
    with pytest.raises(DataError, match=r"split\.json: cannot be read"):
        read_split(tmp_path)


def test_lists_that_others_split_are_taken_as_they_are(tmp_path: Path):
    (tmp_path / "train.txt").write_text("0 10 11 12\n1 11 13\n2 14\n")
    (tmp_path / "test.txt").write_text("1 10\n0 13 99\n2\n3 10\n")
    made = split(tmp_path, protocol="given")
    assert pairs(made.training) == {"0": ["10", "11", "12"], "1": ["11", "13"], "2": ["14"]}
    assert made.validation is None
    # Sample 3 has nothing to be asked with.
    assert pairs(made.test.wanted) == {"0": ["13", "99"], "1": ["10"]}
    check_sound(made)
    part = split(tmp_path, protocol="given", validation_part=0.5)
    assert part.validation is not None
    assert pairs(part.validation.wanted).keys() == {"0", "1"}
    known = {sample: sorted(items) for sample, items in pairs(part.test.known).items()}
    assert known == {"0": ["10", "11", "12"], "1": ["11", "13"]}
    check_sound(part)


def test_a_file_for_validation_is_used_and_known_at_the_test(tmp_path: Path):
    (tmp_path / "train.txt").write_text("0 1 2\n1 2 3\n")
    (tmp_path / "valid.txt").write_text("0 3\n")
    (tmp_path / "test.txt").write_text("0 4\n1 1\n")
    made = split(tmp_path, protocol="given")
    assert made.validation is not None
    assert pairs(made.validation.wanted) == {"0": ["3"]}
    assert pairs(made.test.known) == {"0": ["1", "2", "3"], "1": ["2", "3"]}
    with pytest.raises(SettingsError, match="validation_part: there is a file for validation already"):
        split(tmp_path, protocol="given", validation_part=0.1)


def test_tables_and_text_may_be_given_by_part(tmp_path: Path):
    (tmp_path / "u1.base").write_text("a\tx\t5\t1\na\ty\t1\t1\nb\tx\t4\t1\n")
    (tmp_path / "u1.test").write_text("a\tz\t4\t1\nb\ty\t5\t1\n")
    (tmp_path / "more.txt").write_text("b\tz:x\n")
    base, test, more = (tmp_path / name for name in ("u1.base", "u1.test", "more.txt"))
    made = make_split(Source(training=base, test=test), SplitSettings.of(min_rating=4))
    assert made.protocol == "given"
    assert pairs(made.training) == {"a": ["x"], "b": ["x"]}
    assert pairs(made.test.wanted) == {"a": ["z"], "b": ["y"]}
    mixed = make_split(Source(training=base, validation=test, test=more), SplitSettings())
    assert pairs(mixed.test.wanted) == {"b": ["z"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "best"}, r"protocol: Input should be 'strong', 'weak'"),
        ({"protocol": "temporal", "last": True}, "last: protocol temporal has no use for it"),
        ({"protocol": "strong", "test_users": 2.5}, "neither a share nor a number"),
        ({"protocol": "strong", "test_users": 40}, "leave none of"),
        ({"protocol": "strong", "least_features": 100}, "leave none of 0"),
        ({"protocol": "weak", "validation_part": 2}, r"validation_part: 2 is no share"),
        ({"protocol": "temporal", "held_out": 0.95}, "leave nothing to train on"),
        ({"protocol": "given"}, r"holds no train\.txt"),
        ({"protocol": "weak", "min_rating": 9}, r"u\.data: holds no ratings of at least 9"),
    ],
)
def test_what_cannot_be_split_so_is_refused(ratings: Path, options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        split(ratings, **options)


def test_time_and_ratings_are_asked_of_tables_only(tmp_path: Path):
    (tmp_path / "samples.txt").write_text("a\tx:y:z\n")
    with pytest.raises(SettingsError, match="only a ratings table with a fourth column tells when"):
        split(tmp_path / "samples.txt", protocol="temporal")
    with pytest.raises(SettingsError, match=r"min_rating: .* is no ratings table"):
        split(tmp_path / "samples.txt", protocol="weak", min_rating=4)
    (tmp_path / "u.data").write_text("a\tx\t3\t8\nb\ty\t4\n")
    with pytest.raises(DataError, match=r"u\.data:2: a fourth cell, the time as a number, is wanted"):
        split(tmp_path / "u.data", protocol="temporal")


def test_a_word_in_a_list_is_named_by_its_line(tmp_path: Path):
    (tmp_path / "train.txt").write_text("0 1 2\n1 two\n")
    (tmp_path / "test.txt").write_text("0 3\n")
    with pytest.raises(DataError, match=r"train\.txt:2: .* numbers parted by blanks.* not 'two'"):
        split(tmp_path, protocol="given")


def test_without_a_protocol_features_keep_the_numbers_that_runs_give_them(ratings: Path):
    whole = load_data(ratings).dataset
    found = find_split(None, Source(ratings), SplitSettings.of(seed=4))
    assert found.features == whole.features
    assert found.validation is None
    with pytest.raises(SettingsError, match="split: the split is made already"):
        find_split(ratings.parent, Source(ratings), SplitSettings())


def test_timestamps_lie_beside_what_they_are_of(tmp_path: Path):
    (tmp_path / "u.data").write_text("b\tx\t3\t8\na\ty\t4\t7\nb\ty\t4\t5\nb\tx\t5\t1\n")
    loaded = load_data(tmp_path, timed=True)
    assert pairs(loaded.dataset) == {"b": ["x", "y"], "a": ["y"]}
    assert loaded.timestamps is not None
    assert loaded.timestamps.tolist() == [8, 5, 7]
    assert load_data(tmp_path).timestamps is None


@pytest.mark.skipif(not (SHARED / "ml-100k").is_dir(), reason="wants MovieLens 100K in ../shared/data")
def test_the_published_split_of_movielens_wants_ten_ratings_of_every_user():
    parts = Source(training=SHARED / "ml-100k" / "ua.base", test=SHARED / "ml-100k" / "ua.test")
    made = make_split(parts, SplitSettings())
    assert (made.training.samples, made.training.nnz) == (943, 90570)
    assert np.diff(made.test.wanted.indptr).tolist() == [10] * 943
