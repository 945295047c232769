"""The extension `Training` of a network, from its JSON: its batch size, its epochs, and when it has learnt enough."""

from trainer.jsontree import Node
from trainer.pace import AUTO_BATCH, METRICS, UNSTATED, EarlyStopping, TrainingSpec, metric_k


def read_training(node: Node | None) -> TrainingSpec:
    """How the network states that it is trained."""
    if node is None:
        return UNSTATED
    members = node.members(["BatchSize", "Epochs", "EarlyStopping"])
    size, epochs, stopping = (members.get(name) for name in ("BatchSize", "Epochs", "EarlyStopping"))
    return TrainingSpec(
        batch_size=None if size is None else _read_size(size),
        epochs=None if epochs is None else _whole(epochs, 0),
        stopping=None if stopping is None else _read_stopping(stopping),
    )


def _read_stopping(node: Node) -> EarlyStopping:
    members = node.members(["Metric", "Patience", "Validation", "MinEpochs", "Refit"])
    default = EarlyStopping()
    metric, patience, least = (members.get(name) for name in ("Metric", "Patience", "MinEpochs"))
    if metric is not None and metric_k(metric.text()) is None:
        known = ", ".join(f"{name}@K" for name in METRICS)
        raise metric.fail(f"unknown metric: {metric.text()}; one of {known} is wanted, as ndcg@100")
    share = members.number("Validation", default.validation)
    if not 0 < share < 1:
        raise members.nodes["Validation"].fail(f"{share:g} is no share of the samples; between 0 and 1 is wanted")
    return EarlyStopping(
        metric=default.metric if metric is None else metric.text(),
        patience=default.patience if patience is None else _whole(patience, 1),
        validation=share,
        min_epochs=default.min_epochs if least is None else _whole(least, 0),
        refit=members.flag("Refit", default.refit),
    )


def _read_size(node: Node) -> int:
    if not isinstance(node.value, str):
        return _whole(node, 1)
    if node.text().lower() != "auto":
        raise node.fail(f'a number or "auto" is wanted, not {node.value!r}')
    return AUTO_BATCH


def _whole(node: Node, low: int) -> int:
    node.number(high=2**31 - 1)
    return node.integer(low)
