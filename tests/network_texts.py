"""Networks as text, and what comes of reading them."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import NetworkError
from trainer.network import (
    NetworkSpec,
    read_network,
)

ROOT = Path(__file__).parents[1]


SMALL = '"Layers": [{"N": 8, "DataSet": "gl_input"}, {"N": 4}, {"N": 8, "DataSet": "gl_output"}]'


IN: dict[str, Any] = {"Kind": "Input", "Name": "In", "N": 8, "DataSet": "gl_input"}


OUT: dict[str, Any] = {"Kind": "Output", "Name": "Out", "N": 8, "DataSet": "gl_output"}


IMAGE: dict[str, Any] = {**IN, "N": [32, 32, 3]}


def read(folder: Path, text: str, *, strict_dsstne: bool = False) -> NetworkSpec:
    path = folder / "network.json"
    path.write_text(text, encoding="utf-8")
    return read_network(path, strict_dsstne=strict_dsstne)


def network(folder: Path, *layers: dict[str, Any], strict_dsstne: bool = False, **members: Any) -> NetworkSpec:
    return read(folder, json.dumps({**members, "Layers": layers}), strict_dsstne=strict_dsstne)


def refusal(folder: Path, *layers: dict[str, Any], strict_dsstne: bool = False, **members: Any) -> str:
    with pytest.raises(NetworkError) as caught:
        network(folder, *layers, strict_dsstne=strict_dsstne, **members)
    return str(caught.value).removeprefix(f"{folder / 'network.json'}: ")


EVERYTHING = """
{
    /* keys and enumerated values in any case */
    "version": 0.7, "NAME": "all", "kind": "autoencoder", "errorfunction": "cross ENTROPY",
    "LRN": {"K": 1, "n": 3, "alpha": 0.5, "beta": 0.25}, "Maxout": {"k": 4},
    "SparsenessPenalty": {"p": 0.25, "beta": 3}, "Denoising": {"P": 0.5},
    "DataScaledMarginalCrossEntropy": {"oneTarget": 1, "zeroTarget": 0, "oneScale": 2, "zeroScale": 3},
    "DeltaBoost": {"one": 5, "zero": 0.5}, "ShuffleIndices": 0, "Slope": 0.125, "ELUAlpha": 2, "SELULambda": 1.5,
    "Decay": 0.01, "Precision": "BFloat16",
    "training": {"batchsize": 64, "Epochs": 100, "EarlyStopping": {"Metric": "recall@20", "Patience": 3,
                 "Validation": 0.2, "MinEpochs": 4, "Refit": 1}},
    "Optimizer": {"Name": "rmsprop", "LearningRate": 0.5, "WeightDecay": 0, "Momentum": 0.9, "Momentum2": 0.99,
                  "Clip": 1, "Warmup": 10, "Schedule": "cosine", "Steps": 1000},
    "Layers": [
        {"Kind": "INPUT", "Type": "FULLYCONNECTED", "Name": "In", "N": "AUTO", "DataSet": "gl_input", "Sparse": 1,
         "Normalize": true, "pDropout": 0.5},
        {"Kind": "hidden", "Name": "One", "N": [16, 2], "Source": "In", "Activation": "LRELU", "pDropout": 0.25,
         "Sparse": true, "SparsenessPenalty": {"p": 0.1, "beta": 1},
         "WeightInit": {"Scheme": "GAUSSIAN", "Scale": 0.01, "Bias": -1}, "Kernel": 1, "KernelStride": 1,
         "BatchNormalization": 1, "WeightNorm": 2.5, "DeltaNorm": 1.5},
        {"Name": "Two", "N": 32.9, "Source": ["One", "In"], "Activation": "silu", "RELUSlope": 0.5, "ELUAlpha": 1.75,
         "SELULambda": 1.25, "SparsenessPenalty": true, "Skip": "One", "LayerNormalization": true},
        {"Name": "Three", "N": 32, "SharedWeights": {"inputlayer": "Two", "SourceInputLayer": "Two",
         "SourceOutputLayer": "Four", "Transposed": 1}},
        {"Name": "Four", "N": 32, "Source": "Two", "Skip": ["One", "Two"]},
        {"Kind": "Output", "Name": "Out", "N": "auto", "DataSet": "gl_output", "Sparse": true,
         "Activation": "softmax", "WeightInit": {"Bias": "logodds"}, "ErrorFunction": {"function": "L2", "Weight": 3}}
    ]
} and what comes after is ignored
"""
