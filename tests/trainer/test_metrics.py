import math

import numpy as np
import pytest

from trainer.metrics import Mean, merge_means, ranking_means


def slow(ids: list[int], wanted: set[int], k: int) -> tuple[float, float, float]:
    hits = [item in wanted for item in ids[:k]]
    gained = sum(1 / math.log2(rank + 2) for rank, hit in enumerate(hits) if hit)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(wanted))))
    return sum(hits) / len(wanted), sum(hits) / k, gained / best


def test_metrics_agree_with_their_definitions_over_samples_that_have_held_out_features():
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(30)[:10] for _ in range(40)])
    held_out = [rng.choice(30, size, replace=False) for size in rng.integers(0, 15, 40)]
    means = ranking_means(ids, held_out, ks=[1, 3, 10])
    counted = [(row.tolist(), set(wanted.tolist())) for row, wanted in zip(ids, held_out, strict=True) if len(wanted)]
    assert len(counted) < 40
    for k in (1, 3, 10):
        expected = np.mean([slow(row, wanted, k) for row, wanted in counted], axis=0)
        found = [means[f"{name}@{k}"].compute() for name in ("recall", "precision", "ndcg")]
        assert found == pytest.approx(expected)


def test_padding_is_never_a_hit():
    means = ranking_means(np.array([[2, -1, -1]]), [np.array([2, 5])], ks=[3])
    assert means["recall@3"].compute() == 0.5


def test_means_of_parts_merge_to_the_mean_of_all():
    ids, held_out = np.array([[0, 1], [1, 0], [2, 3]]), [np.array([0]), np.array([0]), np.array([9])]
    whole = ranking_means(ids, held_out, ks=[2])
    parts = merge_means(ranking_means(ids[:1], held_out[:1], ks=[2]), ranking_means(ids[1:], held_out[1:], ks=[2]))
    assert {name: mean.compute() for name, mean in parts.items()} == {name: m.compute() for name, m in whole.items()}
    assert Mean().compute() == 0.0
