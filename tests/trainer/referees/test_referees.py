"""What holds for every baseline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_referees import LIVE, answers, dataset

from trainer import referees
from trainer.data.split import HeldOut
from trainer.errors import InputError, SettingsError
from trainer.referees.choosing import Choosing, ndcg
from trainer.referees.interactions import interactions
from trainer.referees.ranking import Scorer

ROWS = st.lists(st.lists(st.integers(0, LIVE - 1), max_size=LIVE), min_size=1, max_size=5)


@pytest.mark.parametrize("name", referees.NAMES)
@given(training=ROWS, known=ROWS, k=st.integers(1, LIVE + 2))
@settings(max_examples=12, deadline=None)
def test_what_is_known_never_comes_and_the_rest_in_order(name: str, training, known, k: int):
    learnt = referees.fit(name, dataset([[0, 1], *training]), live=LIVE, validation=None, seed=1)
    asked = dataset(known)
    if isinstance(learnt, Scorer):
        scores = learnt.scores(interactions(asked, live=LIVE))
    else:
        counts = interactions(dataset([[0, 1], *training]), live=LIVE).sum(axis=0)
        scores = np.tile(counts, (len(known), 1))
    for row, ids, score in zip(known, answers(learnt, asked, k), scores, strict=True):
        wanted = sorted(set(range(LIVE)) - set(row), key=lambda feature: (-score[feature], feature))[:k]
        assert ids == wanted + [-1] * (k - len(wanted))


@pytest.mark.parametrize("name", referees.NAMES)
def test_the_same_seed_learns_the_same_and_says_with_which_settings(name: str):
    training = dataset([[0, 1, 2], [1, 2, 3], [4, 5], [5, 6, 4]])
    first, second = (referees.fit(name, training, live=LIVE, validation=None, seed=2) for _ in range(2))
    assert first.described == second.described
    assert bool(first.described) == (name != "popularity")
    assert answers(first, training, 4) == answers(second, training, 4)


def test_settings_are_those_that_find_most_of_what_is_wanted():
    wanted = dataset([[3], [5]])
    recommended = {"worse": [0, 3, 5], "best": [3, 5, 0], "worst": [0, 1, 2]}
    asked: list[str] = []

    def fitted(setting: str) -> Scorer:
        asked.append(setting)
        scores = np.zeros(LIVE, np.float32)
        scores[recommended[setting]] = [3, 2, 1]
        return Scorer(setting, LIVE, lambda known: np.tile(scores, (known.shape[0], 1)))

    validation = HeldOut(dataset([[], [1]]), wanted)
    assert Choosing(validation).fitted(list(recommended), "worst", fitted).described == "best"
    assert asked == ["worse", "best", "worst", "best"]
    assert Choosing(None).fitted(list(recommended), "worst", fitted).described == "worst"


@pytest.mark.parametrize("name", ["itemknn", "ease"])
def test_a_validation_part_decides_over_the_defaults(name: str):
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(rng.random(LIVE) < 0.5).tolist() for _ in range(30)]
    validation = HeldOut(dataset([row[:-1] for row in rows]), dataset([row[-1:] for row in rows]))
    given_none, given_some = (
        referees.fit(name, dataset(rows), live=LIVE, validation=part, seed=0) for part in (None, validation)
    )
    assert ndcg(given_some, validation) >= ndcg(given_none, validation)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(SettingsError, match=r"'slim'.*popularity, itemknn, ease, ials, bpr"):
        referees.fit("slim", dataset([[0]]), live=LIVE, validation=None, seed=0)


@pytest.mark.parametrize("name", [name for name in referees.NAMES if name != "popularity"])
def test_nothing_to_learn_from_is_one_clear_error(name: str):
    with pytest.raises(InputError, match=f"baseline {name}: the training part of 'd' stores nothing"):
        referees.fit(name, dataset([[], []]), live=LIVE, validation=None, seed=0)
