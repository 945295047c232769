"""What says how long a training lasts: settings, then the network, then the defaults."""

import numpy as np
import pytest

from trainer.metrics import ranking_values
from trainer.pace import METRICS, EarlyStopping, Pace, TrainingSpec, metric_k, pace_of
from trainer.settings import TrainSettings

STOPPING = EarlyStopping(patience=2)


@pytest.mark.parametrize(
    ("settings", "stated", "expected"),
    [
        (TrainSettings(), TrainingSpec(), Pace(256, 10, None)),
        (TrainSettings(), TrainingSpec(64, 100, STOPPING), Pace(64, 100, STOPPING)),
        (TrainSettings(epochs=3), TrainingSpec(64, 100, STOPPING), Pace(64, 3, STOPPING)),
        (TrainSettings(batch_size=8, epochs=0), TrainingSpec(64, 100), Pace(8, 0, None)),
        (TrainSettings(batch_size=8), TrainingSpec(epochs=0), Pace(8, 0, None)),
    ],
)
def test_settings_count_before_the_network_and_the_network_before_the_defaults(
    settings: TrainSettings, stated: TrainingSpec, expected: Pace
) -> None:
    assert pace_of(stated, settings) == expected


def test_every_metric_that_can_stop_a_training_is_one_that_is_measured() -> None:
    measured = ranking_values(np.array([[False, True]]), np.array([1]), ks=[7])
    assert {f"{name}@7" for name in METRICS} <= set(measured)
    assert [metric_k(name) for name in ("ndcg@7", "ndcg@0", "ndcg", "mrr@7", "ndcg@7 ")] == [7, None, None, None, None]
