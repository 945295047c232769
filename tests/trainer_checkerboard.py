"""A rectangular checkerboard: samples of even number have the first half of the features, the others the
second, each without one. What is to be recommended is known.
"""

from pathlib import Path

SAMPLES, FEATURES = 60, 12
HALF = FEATURES // 2


def missing(sample: int) -> int:
    return HALF * (sample % 2) + (sample // 2) % HALF


def features_of(sample: int) -> list[int]:
    half = range(HALF * (sample % 2), HALF * (sample % 2) + HALF)
    return [feature for feature in half if feature != missing(sample)]


def write_checkerboard(path: Path) -> Path:
    lines = [f"s{n}\t{':'.join(f'f{f}' for f in features_of(n))}\n" for n in range(SAMPLES)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


NETWORK = """
{
    "Name": "checkerboard", "ShuffleIndices": false,
    "Layers": [
        {"Name": "Input", "Kind": "Input", "N": "auto", "DataSet": "gl_input", "Sparse": true},
        {"Name": "Hidden", "Kind": "Hidden", "N": 8, "Activation": "Tanh"},
        {"Name": "Output", "Kind": "Output", "N": "auto", "DataSet": "gl_output", "Sparse": true}
    ],
    "Denoising": {"p": 0.3},
    "ErrorFunction": "CrossEntropy",
    "Optimizer": {"Name": "Adam", "LearningRate": 0.05}
}
"""


def write_network(path: Path) -> Path:
    path.write_text(NETWORK, encoding="utf-8")
    return path
