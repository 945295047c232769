from pathlib import Path

import pytest
from trainer_checkerboard import SAMPLES, features_of, missing, write_checkerboard, write_network

from trainer import Recommender
from trainer.errors import InputError, SettingsError


def test_the_ten_lines_retrieve_train_and_recommend_what_is_missing(tmp_path: Path):
    url = write_checkerboard(tmp_path / "samples.txt").as_uri()
    epochs: list[int] = []
    recommender = Recommender(
        write_network(tmp_path / "network.json"),
        folder=tmp_path / "files",
        tell=lambda report: epochs.append(report.epoch),
    )
    recommender.retrieve_dataset(url)
    assert recommender.generate_input_layer("in").name == "in.nc"
    assert recommender.generate_output_layer("out").name == "out.nc"
    network = recommender.train(batch_size=16, epochs=40)
    found = recommender.predict(k=2)
    assert network.exists()
    assert epochs == list(range(1, 41))
    assert len(found) == SAMPLES
    for number in range(SAMPLES):
        names = [name for name, _ in found[f"s{number}"]]
        assert names[0] == f"f{missing(number)}"
        assert not set(names) & {f"f{feature}" for feature in features_of(number)}
    assert len((tmp_path / "files" / "recs").read_text().splitlines()) == SAMPLES


def test_calls_out_of_order_say_what_is_missing(tmp_path: Path):
    recommender = Recommender(folder=tmp_path / "files")
    with pytest.raises(InputError, match="call retrieve_dataset first"):
        recommender.generate_input_layer("in")
    with pytest.raises(InputError, match="call train first"):
        recommender.predict()
    recommender.retrieve_dataset(str(write_checkerboard(tmp_path / "samples.txt")))
    recommender.generate_input_layer("in")
    with pytest.raises(InputError, match="call generate_output_layer first"):
        recommender.train()
    recommender.generate_output_layer("out")
    with pytest.raises(SettingsError, match="min_rating: only a job heeds it; retrieve_dataset takes a weighing"):
        recommender.train(min_rating=4)
    with pytest.raises(SettingsError, match="epochs"):
        recommender.train(epochs=-1)
