"""The extension `Sampling` of an Output layer, from its JSON."""

from trainer.jsontree import Members, Node
from trainer.network_names import LAYER_KEYS, LAYER_SYNONYMS, NEGATIVES, OPTIMIZER_KEYS
from trainer.network_types import (
    Activation,
    ErrorFunction,
    LayerSpec,
    Negatives,
    NetworkSpec,
    OptimizerName,
    Sampling,
)

_DEFAULT_COUNT = 1024
_SAMPLED = {
    ErrorFunction.CROSS_ENTROPY: (Activation.SIGMOID, Activation.SOFT_MAX),
    ErrorFunction.COSINE_CONTRASTIVE: (Activation.LINEAR,),
    ErrorFunction.PAIRWISE: (Activation.LINEAR,),
}


def read_sampling(node: Node | None, loss: ErrorFunction, activation: Activation) -> Sampling:
    """How the negatives of a layer of this error function and activation are drawn."""
    if node is None:
        return Sampling()
    own = node.members(["By", "Negatives"])
    by = own.choice("By", NEGATIVES, Negatives.UNIFORM, unknown="unknown distribution of negatives: {value}")
    if by is Negatives.GRAM and (loss is not ErrorFunction.L2 or activation is not Activation.LINEAR):
        raise node.fail("only L2 on Linear is a sum that a Gram matrix can tell")
    if by is not Negatives.GRAM and activation not in _SAMPLED.get(loss, ()):
        raise node.fail("only CrossEntropy on Sigmoid or SoftMax, CosineContrastive and BPR on Linear can be sampled")
    count = own.get("Negatives")
    if by not in (Negatives.IN_BATCH, Negatives.GRAM):
        return Sampling(by, _DEFAULT_COUNT if count is None else count.integer(1))
    if count is not None and by is Negatives.GRAM:
        raise count.fail("Gram draws none: all units count")
    if count is not None:
        raise count.fail("InBatch takes the features of the batch, whose number is not given")
    return Sampling(by)


def check_gram(network: NetworkSpec, members: Members, layer: LayerSpec, node: Node) -> None:
    """Refuse an Output layer by its Gram matrix where the update of a unit without a target is no linear map of its
    weights; `members` are the network's, `node` the layer's.
    """
    optimizer = members.get("Optimizer")
    if optimizer is not None and network.optimizer is not None and network.optimizer.name is not OptimizerName.SGD:
        name = optimizer.members(OPTIMIZER_KEYS).nodes["Name"]
        raise name.fail(f"layer {layer.name}, whose Sampling is by Gram, needs SGD; what it does to all units is kept")
    longest = node.members(LAYER_KEYS, LAYER_SYNONYMS).get("WeightNorm")
    if longest is not None and layer.weight_norm > 0:
        raise longest.fail("Sampling by Gram cannot limit the weights of units it does not look at")
