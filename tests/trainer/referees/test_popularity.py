from trainer_referees import answers, dataset

from trainer import referees


def popular(rows: list[list[int]], *, k: int, live: int) -> list[list[int]]:
    known = dataset(rows, live)
    return answers(referees.fit("popularity", known, live=live, validation=None, seed=0), known, k)


def test_popularity_lists_what_most_samples_have_and_this_one_has_not():
    # Feature 1 is had by three samples, 3 by two, 0 and 2 by one, 4 by none; ties by lower id.
    assert popular([[0, 1], [1, 2], [1, 3], [3]], k=2, live=5) == [[3, 2], [3, 0], [0, 2], [1, 0]]


def test_popularity_lists_each_unseen_feature_once_and_pads_when_they_run_out():
    assert popular([[0, 1, 2]], k=4, live=5) == [[3, 4, -1, -1]]


def test_padding_features_are_never_popular_though_nothing_is_stored():
    assert popular([[], []], k=4, live=3) == [[0, 1, 2, -1]] * 2
