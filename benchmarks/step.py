"""Samples per second in training, ours beside every peer: the published benchmark and the sample network."""

from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.pairs import Question, Row, SideSpec, compare
from benchmarks.scale import Scale
from benchmarks.training import Training

_PEERS = (
    ("tensorflow-xla", "tensorflow_peer", "xla", {}),
    ("tensorflow-sparse", "tensorflow_peer", "sparse", {"compiled": False}),
    ("tensorflow-sparse-xla", "tensorflow_peer", "sparse", {"compiled": True}),
    ("pytorch", "torch_peer", "embedding_bag", {"compiled": False}),
    ("pytorch-compiled", "torch_peer", "embedding_bag", {"compiled": True}),
    ("jax-plain", "jax_peer", "plain", {}),
)


def published_network(scale: Scale) -> Training:
    """Three hidden layers, RMSProp."""
    return Training([scale.wide] * 3, scale.items, "RMSPROP", 1e-4, batch=scale.batch, steps=1 if scale.is_small else 2)


def sample_network(scale: Scale) -> Training:
    """One narrow hidden layer, plain SGD."""
    return Training([scale.narrow], scale.items, "SGD", 0.025, batch=scale.batch, steps=1 if scale.is_small else 8)


def rows(scale: Scale) -> Iterator[Row]:
    """The bar against the best of the peers holds for each of them."""
    yield from _against("published", published_network(scale), scale, bars=(2.4, 1.45))
    yield from _against("sample", sample_network(scale), scale, bars=(3.2, 1.8))


def _against(name: str, training: Training, scale: Scale, *, bars: tuple[float, float]) -> Iterator[Row]:
    arguments = asdict(training)
    ours = SideSpec("trainer_side", "train", arguments)
    peer = SideSpec("tensorflow_peer", "published", arguments, scale.peers)
    question = Question(f"step/{name}/tensorflow-as-published", "samples/s", bars[0])
    yield compare(question, ours, peer, runs=scale.runs)
    for label, module, function, own in _PEERS:
        peer = SideSpec(module, function, {**arguments, **own}, "" if module == "jax_peer" else scale.peers)
        yield compare(Question(f"step/{name}/{label}", "samples/s", bars[1]), ours, peer, runs=scale.runs)
