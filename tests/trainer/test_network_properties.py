"""What holds for any network, whatever stands in its file."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_texts import EVERYTHING, read

from trainer.errors import NetworkError
from trainer.jsontree import read_json
from trainer.network import (
    AUTO,
    NetworkSpec,
    parameter_count,
    read_network,
    resolve_shapes,
)
from trainer.network_names import (
    ACTIVATIONS,
    ERROR_FUNCTIONS,
    LAYER_KEYS,
    LAYER_KINDS,
    LAYER_TYPES,
    NETWORK_KEYS,
)

# Beside plain values, words that mean something somewhere in the language.
WORDS = [*ACTIVATIONS, *ERROR_FUNCTIONS, *LAYER_KINDS, *LAYER_TYPES, "auto", "LogOdds", "Max", "Input0", "Hidden1"]


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(WORDS)
)


ANYTHING = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from([*NETWORK_KEYS, *LAYER_KEYS]), inner, max_size=4)
    ),
    max_leaves=12,
)


ENUMERATED = {"kind", "type", "activation", "scheme", "function", "errorfunction", "n", "bias", "schedule", "precision"}


NAMES = "ABCDEF"


UNITS = st.sampled_from([4, [2, 2], [2, 2, 1], 1, "auto"])


LINKS = {key: st.sampled_from(NAMES[:3]) for key in ("SourceInputLayer", "SourceOutputLayer")}


HIDDEN = st.fixed_dictionaries(
    {"N": st.sampled_from([4, 4, [2, 2], 1])},
    optional={
        "pDropout": st.floats(0, 1),
        "Kernel": st.lists(st.integers(1, 3), min_size=1, max_size=3),
        "KernelStride": st.integers(1, 2),
        "Activation": st.sampled_from([*ACTIVATIONS]),
        "BatchNormalization": st.booleans(),
    },
)


POOLING = st.fixed_dictionaries(
    {"Type": st.just("Pooling"), "Function": st.sampled_from(["Max", "Average", "LRN", "Cosine", "Maxout"])},
    optional={"Kernel": st.lists(st.integers(1, 3), min_size=1, max_size=3), "Activation": st.just("Relu")},
)


@st.composite
def likely_networks(draw: st.DrawFn) -> dict[str, Any]:
    """Networks of every structure, many of them legal."""
    count = draw(st.integers(2, len(NAMES)))
    layers: list[dict[str, Any]] = [{"Name": "A", "Kind": "Input", "N": draw(UNITS)}]
    for number in range(1, count):
        before, later = st.sampled_from(NAMES[:number]), st.sampled_from(NAMES[:count])
        layer: dict[str, Any] = {"Name": NAMES[number], **draw(HIDDEN | HIDDEN | POOLING)}
        layer["Source"] = draw(st.lists(before, min_size=1, max_size=2, unique=True) | before | before)
        layers.append(layer)
        roll = draw(st.integers(0, 9)) if "N" in layer else 9
        if roll == 0:
            layer["Source"] = draw(later)
        elif roll == 1:
            layer["Skip"] = draw(before | later)
        elif roll == 2:
            shared = {"InputLayer": draw(before), "Transposed": draw(st.booleans())}
            layer["SharedWeights"] = {**shared, **draw(st.fixed_dictionaries(LINKS))}
        elif roll in (3, 4):
            layer |= {"Type": "Convolutional", "N": draw(st.integers(1, 3))}
    layers[-1].pop("BatchNormalization", None)
    return {"Layers": layers, "ErrorFunction": draw(st.sampled_from(["L2", "L1", *ERROR_FUNCTIONS]))}


NETWORKS = likely_networks()


def test_json_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="nested too deeply"):
        read(tmp_path, "[" * 100_000)


@given(tree=ANYTHING | NETWORKS)
def test_any_json_gives_a_network_or_an_error_of_the_network(folder: Path, tree: Any) -> None:
    spec = _outcome(folder, tree)
    assert spec is None or (spec.inputs and spec.outputs)


@given(tree=NETWORKS, sides=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_any_network_is_resolved_to_the_last_layer_or_refused(folder: Path, tree: Any, sides: list[int]) -> None:
    spec = _outcome(folder, tree)
    if spec is None:
        return
    try:
        resolved = resolve_shapes(spec, {"": tuple(sides)})
    except NetworkError:
        return
    assert AUTO not in [layer.shape for layer in resolved.layers]
    assert parameter_count(resolved) >= len(resolved.connections)
    assert resolve_shapes(resolved, {"": tuple(sides)}) == resolved


@given(chance=st.randoms(use_true_random=False), tree=NETWORKS)
def test_case_of_keys_and_words_and_order_of_members_change_nothing(
    folder: Path, chance: random.Random, tree: Any
) -> None:
    assert _outcome(folder, _scrambled(tree, chance)) == _outcome(folder, tree)


@settings(max_examples=20)
@given(chance=st.randoms(use_true_random=False))
def test_not_even_in_a_network_of_every_key(folder: Path, chance: random.Random) -> None:
    (folder / "everything.json").write_text(EVERYTHING, encoding="utf-8")
    tree = read_json(folder / "everything.json").value
    assert _outcome(folder, _scrambled(tree, chance)) == read_network(folder / "everything.json")


def _outcome(folder: Path, tree: Any) -> NetworkSpec | None:
    try:
        return read(folder, json.dumps(tree))
    except NetworkError:
        return None


def _scrambled(tree: Any, chance: random.Random, key: str = "") -> Any:
    if isinstance(tree, dict):
        keys: list[str] = [*tree]
        chance.shuffle(keys)
        return {_any_case(key, chance): _scrambled(tree[key], chance, key) for key in keys}
    if isinstance(tree, list):
        return [_scrambled(value, chance) for value in tree]
    return _any_case(tree, chance) if isinstance(tree, str) and key.lower() in ENUMERATED else tree


def _any_case(word: str, chance: random.Random) -> str:
    return "".join(chance.choice((letter.lower(), letter.upper())) for letter in word)
