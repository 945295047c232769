"""PyTorch with sparse input: `embedding_bag` in, targets gathered from the logits; eager or compiled."""

from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]  # of the peers' own environment
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks.training import Training, in_turns


def embedding_bag(*, compiled: bool, **arguments: Any) -> Callable[[], float]:
    """The step by autograd. Plain SGD is given the gradient of the input weights as a sparse one, as PyTorch can."""
    training = Training(**arguments)
    weights = [torch.nn.Parameter(torch.from_numpy(weight)) for weight in training.weights()]
    weights[1:] = [torch.nn.Parameter(weight.detach().T.contiguous()) for weight in weights[1:]]
    biases = [torch.nn.Parameter(torch.zeros(units)) for units in training.widths[1:]]
    is_sparse = training.optimizer == "SGD" and not compiled
    optimizers = _optimizers(training, weights, biases)

    def loss(indices: Any, rows: Any, offsets: Any) -> Any:
        sums = functional.embedding_bag(indices, weights[0], offsets, mode="sum", sparse=is_sparse) + biases[0]
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            sums = functional.linear(torch.sigmoid(sums), weight, bias)
        stored = sums[rows, indices].sum()
        return (functional.softplus(sums).sum() - stored) / training.batch

    made = [tuple(torch.from_numpy(part).long() for part in _parts(batch)) for batch in training.batches]
    measured = torch.compile(loss, dynamic=True) if compiled else loss

    def one(batch: Any) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        measured(*batch).backward()
        for optimizer in optimizers:
            optimizer.step()

    return in_turns(training, made, one)


def _optimizers(training: Training, weights: list[Any], biases: list[Any]) -> list[Any]:
    rate = training.learning_rate
    if training.optimizer == "RMSPROP":
        return [torch.optim.RMSprop([*weights, *biases], lr=rate, alpha=0.9, foreach=True)]
    return [torch.optim.SGD(weights[:1], lr=rate), torch.optim.SGD([*weights[1:], *biases], lr=rate, fused=True)]


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    return batch.indices, batch.rows, batch.offsets
