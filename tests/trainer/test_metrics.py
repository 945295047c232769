import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import measured, ranking_values
from trainer.sparse import SparseDataset

LIVE = 12


def dataset(rows: list[list[int]], width: int = 128) -> SparseDataset:
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return SparseDataset("d", width, indptr, np.array([feature for row in rows for feature in row], np.uint32))


def naive(ids: list[int], wanted: set[int], owners: dict[int, int], samples: int, k: int) -> dict[str, float]:
    """Every metric of one sample, a rank at a time."""
    listed = [item for item in ids[:k] if item >= 0]
    found = precise = gained = 0.0
    first = 0.0
    for rank, item in enumerate(listed, 1):
        if item in wanted:
            found += 1
            precise += found / rank
            gained += 1 / math.log2(rank + 1)
            first = first or 1 / rank
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    number = max(len(listed), 1)
    return {
        "recall": found / len(wanted),
        "capped_recall": found / min(k, len(wanted)),
        "precision": found / k,
        "ndcg": gained / best,
        "mrr": first,
        "map": precise / min(k, len(wanted)),
        "popularity": sum(owners.get(item, 0) / samples for item in listed) / number,
        "novelty": sum(math.log2(samples / max(owners.get(item, 0), 1)) for item in listed) / number,
    }


LISTS = st.lists(
    st.tuples(
        st.permutations(range(LIVE)), st.integers(0, LIVE), st.sets(st.integers(0, LIVE - 1), min_size=1, max_size=LIVE)
    ),
    min_size=1,
    max_size=6,
)
ROWS = st.lists(st.sets(st.integers(0, LIVE - 1)).map(sorted), min_size=1, max_size=5)


@given(LISTS, ROWS, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_every_metric_agrees_with_a_count_by_hand(
    lists: list[tuple[list[int], int, set[int]]], training: list[list[int]], block: int
):
    ids = np.array([[*order[:length], *[-1] * (LIVE - length)] for order, length, _ in lists], np.int32)
    wanted = [sorted(want) for _, _, want in lists]
    ks = (1, 3, LIVE, 20)
    blocks = (ids[start : start + block] for start in range(0, len(ids), block))
    found = measured(blocks, dataset(wanted), dataset(training), live=LIVE, ks=ks)
    owners = {item: sum(item in row for row in training) for item in range(LIVE)}
    for k in ks:
        for row, (line, want) in enumerate(zip(ids.tolist(), wanted, strict=True)):
            for name, value in naive(line, set(want), owners, len(training), k).items():
                assert found.values[f"{name}@{k}"][row] == pytest.approx(value), f"{name}@{k}"
        covered = {item for line in ids.tolist() for item in line[:k] if item >= 0}
        assert found.coverage[f"coverage@{k}"] == pytest.approx(len(covered) / LIVE)


def test_a_case_worked_out_by_hand():
    # Hits at ranks 2 and 4 of five, three features wanted.
    values = ranking_values(np.array([[False, True, False, True, False]]), np.array([3]), ks=(4,))
    found = {name: float(value[0]) for name, value in values.items()}
    assert found == pytest.approx(
        {
            "recall@4": 2 / 3,
            "capped_recall@4": 2 / 3,
            "precision@4": 1 / 2,
            "ndcg@4": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2),
            "mrr@4": 1 / 2,
            "map@4": (1 / 2 + 2 / 4) / 3,
        }
    )


def test_capped_recall_is_full_where_more_are_wanted_than_listed():
    values = ranking_values(np.array([[True, True]]), np.array([10]), ks=(2,))
    assert values["capped_recall@2"].tolist() == [1.0]
    assert values["recall@2"].tolist() == [0.2]


def test_lists_for_too_few_samples_are_a_mistake():
    with pytest.raises(ValueError, match="1 samples of 2"):
        measured([np.array([[0]], np.int32)], dataset([[0], [1]]), dataset([[0]]), live=2, ks=(1,))
