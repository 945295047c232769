"""The extension `Sampling` of an Output layer, from its JSON."""

from trainer.jsontree import Node
from trainer.network_names import NEGATIVES
from trainer.network_types import Activation, ErrorFunction, Negatives, Sampling

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
    if activation not in _SAMPLED.get(loss, ()):
        raise node.fail("only CrossEntropy on Sigmoid or SoftMax, CosineContrastive and BPR on Linear can be sampled")
    own = node.members(["By", "Negatives"])
    by = own.choice("By", NEGATIVES, Negatives.UNIFORM, unknown="unknown distribution of negatives: {value}")
    count = own.get("Negatives")
    if by is not Negatives.IN_BATCH:
        return Sampling(by, _DEFAULT_COUNT if count is None else count.integer(1))
    if count is not None:
        raise count.fail("InBatch takes the features of the batch, whose number is not given")
    return Sampling(by)
