"""A short run of what `python tests/fuzz.py` does for longer, and what it has found once."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import Fuzzer, Slice, Tally, fuzz
from fuzz_netcdf import Contents, contents_of, write
from fuzz_targets import TARGETS
from fuzz_words import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netcdf_files import small_dataset

from trainer.data.netcdf import write_dataset
from trainer.network import read_network, resolve_shapes
from trainer.network_file import write_network
from trainer.network_names import ACTIVATIONS, LAYER_KEYS, LAYER_KINDS, NETWORK_KEYS
from trainer.weights import Connection, Weights

IN_C = [name for name, target in TARGETS.items() if target.in_c]
INPUTS = {"ratings": 40, "checkpoint": 40, "parts": 40, "split": 40}
CDL = b'{"Network": "n", "Data": "d", "Command": "Train", "TrainingParameters": {"Epochs": 1}, %s}'
FOUND = {
    "an integer beyond every float": ("cdl", CDL % (b'"RandomSeed": 1' + b"0" * 400)),
    "an infinite seed": ("cdl", CDL % b'"RandomSeed": 1e999'),
    "an infinite interval": ("cdl", CDL.replace(b"}", b', "AlphaInterval": 1e999}', 1) % b'"Version": 1'),
    "a file nested too deeply": ("cdl", b'{"Data":' * 100_000),
    "a comment that never ends": ("network", b"/* " * 60_000),
    "escapes outside a text": ("network", b'\\"' * 100_000),
    "a text that never ends": ("network", b'"' + b'\\"' * 100_000),
    "a rating beyond single precision": ("ratings", b"1\t2\t1e39\n"),
}
TOY = b"""{"Layers": [
    {"Name": "Input", "Kind": "Input", "N": 6, "DataSet": "d"},
    {"Name": "Output", "Kind": "Output", "N": 3, "DataSet": "d"}
]}"""


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in IN_C])
def test_a_damaged_file_is_refused_or_read_and_nothing_else(tmp_path: Path, name: str) -> None:
    tally = fuzz(TARGETS[name], tmp_path / "work", seed=1, inputs=INPUTS.get(name, 150), keep=tmp_path / "kept")
    assert not tally.findings, report(tally)
    assert tally.inputs == tally.accepted + tally.refused


def test_a_damaged_netcdf_file_ends_no_process_and_wants_little_memory(tmp_path: Path) -> None:
    with ExitStack() as stack:
        slices = [stack.enter_context(Slice(name, seed=1, seconds=60, keep=tmp_path, inputs=150)) for name in IN_C]
        for one in slices:
            tally = one.result()
            assert not tally.findings, report(tally)
            assert tally.inputs == 150


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_once_is_refused_or_read_at_once(tmp_path: Path, what: str) -> None:
    name, data = FOUND[what]
    fuzzer = Fuzzer(TARGETS[name], tmp_path / "work", tmp_path)
    started = time.process_time()
    finding = fuzzer.tried(data)[1]
    assert finding is None, finding
    assert time.process_time() - started < 2


def test_a_variable_larger_than_its_file_could_hold_is_refused_unread(tmp_path: Path) -> None:
    write_dataset(small_dataset(analog=True), tmp_path / "small.nc")
    contents = contents_of(tmp_path / "small.nc")
    contents.dimensions = dict.fromkeys(contents.dimensions, 1 << 40)
    assert replay("datasets", contents, tmp_path) == "nothing is found\n"


def test_weights_to_be_drawn_that_no_memory_could_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_bytes(TOY)
    spec = resolve_shapes(read_network(tmp_path / "toy.json"), {"d": (3,)})
    write_network(
        tmp_path / "toy.nc", spec, Weights((Connection(np.ones((6, 3), np.float32), np.ones(3, np.float32)),))
    )
    contents = contents_of(tmp_path / "toy.nc")
    contents.dimensions = dict.fromkeys(contents.dimensions, 0)
    contents.attributes["layer0_Nx"] = np.uint32((1 << 31) - 1)
    assert replay("network_file", contents, tmp_path) == "nothing is found\n"


WORDS = [*NETWORK_KEYS, *LAYER_KEYS, *LAYER_KINDS, *ACTIVATIONS, "TrainingParameters", "Epochs", "auto"]
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
)
LAYERS = st.lists(st.dictionaries(st.sampled_from(LAYER_KEYS), TREES, max_size=6), max_size=4)


@pytest.fixture
def json_fuzzers(tmp_path: Path) -> list[Fuzzer]:
    return [Fuzzer(TARGETS[name], tmp_path / name, tmp_path) for name in ("network", "cdl")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({"Layers": LAYERS}) | TREES)
def test_a_tree_of_the_languages_words_is_refused_or_read(json_fuzzers: list[Fuzzer], tree: Any) -> None:
    for fuzzer in json_fuzzers:
        finding = fuzzer.tried(json.dumps(tree).encode())[1]
        assert finding is None, finding


def report(tally: Tally) -> str:
    return "\n\n".join(f"{one.signature}\n{one.note}\n{one.detail}" for one in tally.findings.values())


def replay(name: str, contents: Contents, folder: Path) -> str:
    """What the program says of a file of these contents."""
    write(folder / "found.nc", contents)
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--targets", name, "--replay", str(folder / "found.nc")]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
