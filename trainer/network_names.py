"""The words of the network language: keys, where each may stand, and the spellings of every enum value.
What DSSTNE does not know is listed as an extension. Which loss goes with which output and target is said here, too.
"""

from trainer.network_types import (
    Activation,
    ErrorFunction,
    LayerKind,
    LayerType,
    Negatives,
    NetworkKind,
    OptimizerName,
    PoolingFunction,
    Schedule,
    WeightScheme,
)

SPEAKER = "LoadNeuralNetworkJSON: "
"""Begins what DSSTNE itself says of a network."""

NETWORK_KEYS = [
    "Version",
    "Name",
    "Kind",
    "WeightsData",
    "LocalResponseNormalization",
    "Maxout",
    "SparsenessPenalty",
    "Denoising",
    "DeltaBoost",
    "ScaledMarginalCrossEntropy",
    "ShuffleIndices",
    "RELUSlope",
    "ELUAlpha",
    "SELULambda",
    "Decay",
    "ErrorFunction",
    "Layers",
    "Optimizer",
    "Precision",
    "Training",
]
OPTIMIZER_KEYS = [
    "Name",
    "LearningRate",
    "WeightDecay",
    "Momentum",
    "Momentum2",
    "Clip",
    "Warmup",
    "Schedule",
    "Steps",
    "Lazy",
]
NETWORK_SYNONYMS = {
    "LRN": "LocalResponseNormalization",
    "DataScaledMarginalCrossEntropy": "ScaledMarginalCrossEntropy",
    "Slope": "RELUSlope",
}
LAYER_SYNONYMS = {"Slope": "RELUSlope"}
ANY_LAYER = ["Kind", "Type", "Name", "Sparse", "N", "pDropout"]
AFTER_INPUT = ["Source", "Kernel", "KernelStride"]
COMPUTING = [
    "Function",
    "Skip",
    "Activation",
    "RELUSlope",
    "ELUAlpha",
    "SELULambda",
    "WeightNorm",
    "DeltaNorm",
    "WeightInit",
    "SharedWeights",
]
OF_HIDDEN = ["Normalize", "ClosedForm", "BatchNormalization", "SparsenessPenalty", "LayerNormalization", "KL"]
OF_OUTPUT = ["ErrorFunction", "Sampling", "ZeroDiagonal"]
KEYS_OF_KIND = {
    LayerKind.INPUT: {*ANY_LAYER, "DataSet", "Normalize"},
    LayerKind.HIDDEN: {*ANY_LAYER, *AFTER_INPUT, *COMPUTING, *OF_HIDDEN},
    LayerKind.OUTPUT: {*ANY_LAYER, *AFTER_INPUT, *COMPUTING, "DataSet", *OF_OUTPUT},
    LayerKind.TARGET: {*ANY_LAYER, *AFTER_INPUT},
}
LAYER_KEYS = [*ANY_LAYER, *AFTER_INPUT, *COMPUTING, *OF_HIDDEN, "DataSet", *OF_OUTPUT]
NETWORK_EXTENSIONS = ("Optimizer", "Precision", "Training")
LAYER_EXTENSIONS = ("Normalize", "LayerNormalization", "KL", "ClosedForm", *OF_OUTPUT)
NETWORK_KINDS = {"FeedForward": NetworkKind.FEED_FORWARD, "AutoEncoder": NetworkKind.AUTO_ENCODER}
KIND_NAMES = {kind: kind.name.title() for kind in LayerKind}
LAYER_KINDS = {name: kind for kind, name in KIND_NAMES.items()}
LAYER_TYPES = {
    "FullyConnected": LayerType.FULLY_CONNECTED,
    "Convolutional": LayerType.CONVOLUTIONAL,
    "Pooling": LayerType.POOLING,
    "Gaussian": LayerType.POOLING,
}
GAUSSIAN = "Gaussian"
"""Extension: of a layer without weights, as pooling is, that draws from a normal distribution."""
GAUSSIAN_KEYS = {"Kind", "Type", "Name", "Source", "KL"}
FUNCTIONS = {
    "Max": PoolingFunction.MAX,
    "Maxout": PoolingFunction.MAXOUT,
    "DotProduct": PoolingFunction.DOT_PRODUCT,
    "Cosine": PoolingFunction.COSINE,
    "Average": PoolingFunction.AVERAGE,
    "LRN": PoolingFunction.LRN,
    "LocalResponseNormalization": PoolingFunction.LRN,
}
ACTIVATIONS = {
    "Sigmoid": Activation.SIGMOID,
    "Tanh": Activation.TANH,
    "Relu": Activation.RECTIFIED_LINEAR,
    "RectifiedLinear": Activation.RECTIFIED_LINEAR,
    "LRelu": Activation.LEAKY_RECTIFIED_LINEAR,
    "LeakyRectifiedLinear": Activation.LEAKY_RECTIFIED_LINEAR,
    "Linear": Activation.LINEAR,
    "ELU": Activation.EXPONENTIAL_LINEAR,
    "ExponentialLinear": Activation.EXPONENTIAL_LINEAR,
    "SELU": Activation.SCALED_EXPONENTIAL_LINEAR,
    "ScaledExponentialLinear": Activation.SCALED_EXPONENTIAL_LINEAR,
    "SoftMax": Activation.SOFT_MAX,
    "SoftPlus": Activation.SOFT_PLUS,
    "SoftSign": Activation.SOFT_SIGN,
    "ReluMax": Activation.RELU_MAX,
    "LinearMax": Activation.LINEAR_MAX,
    "GELU": Activation.GELU,
    "SiLU": Activation.SILU,
}
EXTENSION_ACTIVATIONS = {Activation.GELU, Activation.SILU}
ERROR_FUNCTIONS = {
    "L1": ErrorFunction.L1,
    "L2": ErrorFunction.L2,
    "L2Hinge": ErrorFunction.L2_HINGE,
    "Hinge": ErrorFunction.HINGE,
    "CrossEntropy": ErrorFunction.CROSS_ENTROPY,
    "cross entropy": ErrorFunction.CROSS_ENTROPY,
    "ScaledMarginalCrossEntropy": ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
    "DataScaledMarginalCrossEntropy": ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
    "CosineContrastive": ErrorFunction.COSINE_CONTRASTIVE,
    "BPR": ErrorFunction.PAIRWISE,
}
MULTINOMIAL = "Multinomial"
"""Extension: the cross-entropy of an Output that is a SoftMax."""
EXTENSION_ERRORS = (MULTINOMIAL, "CosineContrastive", "BPR")
SCHEMES = {
    "Xavier": WeightScheme.XAVIER,
    "CaffeXavier": WeightScheme.CAFFE_XAVIER,
    "Gaussian": WeightScheme.GAUSSIAN,
    "Uniform": WeightScheme.UNIFORM,
    "UnitBall": WeightScheme.UNIT_BALL,
    "Constant": WeightScheme.CONSTANT,
    "SELU": WeightScheme.SELU,
}
OPTIMIZERS = {
    "SGD": OptimizerName.SGD,
    "Momentum": OptimizerName.MOMENTUM,
    "AdaGrad": OptimizerName.ADAGRAD,
    "Nesterov": OptimizerName.NESTEROV,
    "RMSProp": OptimizerName.RMSPROP,
    "AdaDelta": OptimizerName.ADADELTA,
    "Adam": OptimizerName.ADAM,
}
SCHEDULES = {"Constant": Schedule.CONSTANT, "Cosine": Schedule.COSINE}
NEGATIVES = {
    "Uniform": Negatives.UNIFORM,
    "Popularity": Negatives.POPULARITY,
    "InBatch": Negatives.IN_BATCH,
    "Gram": Negatives.GRAM,
}
PRECISIONS = {"float32": False, "bfloat16": True}
_CROSS_ENTROPIES = (
    ErrorFunction.CROSS_ENTROPY,
    ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
    ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
)
_OUTPUTS_OF = {
    ErrorFunction.CROSS_ENTROPY: {Activation.SIGMOID: "Sigmoid", Activation.SOFT_MAX: "SoftMax"},
    ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY: {Activation.SIGMOID: "Sigmoid", Activation.SOFT_MAX: "SoftMax"},
    ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY: {Activation.SIGMOID: "Sigmoid"},
    ErrorFunction.COSINE_CONTRASTIVE: {Activation.LINEAR: "Linear"},
    ErrorFunction.PAIRWISE: {Activation.LINEAR: "Linear"},
}
CONTRASTING = (ErrorFunction.COSINE_CONTRASTIVE, ErrorFunction.PAIRWISE)
"""Extension: error functions of an Output that is Linear."""


def fits_output(loss: ErrorFunction, activation: Activation) -> bool:
    """Whether `loss` has a gradient on an Output layer of `activation`; a Pooling Output counts as Linear."""
    return why_not_output(loss, activation) is None


def why_not_output(loss: ErrorFunction, activation: Activation) -> str | None:
    """What keeps an Output layer of `activation` from being trained for `loss`, or `None`."""
    fitting = _OUTPUTS_OF.get(loss)
    if fitting is None or activation in fitting:
        return None
    return f"{_spelling(loss)} needs an Output with Activation {' or '.join(fitting.values())}"


def takes_logits(loss: ErrorFunction, activation: Activation) -> bool:
    """Whether the loss is computed from logits, activation included, instead of from the layer's output."""
    return loss in _CROSS_ENTROPIES and activation in (Activation.SIGMOID, Activation.SOFT_MAX)


def why_not_target(loss: ErrorFunction, *, sparse: bool) -> str | None:
    """What keeps a sparse or dense dataset from being the target of `loss`, or `None`."""
    if loss is ErrorFunction.HINGE and sparse:
        return f"{_spelling(loss)} needs a dense dataset"
    if loss in (ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY, *CONTRASTING) and not sparse:
        return f"{_spelling(loss)} needs a sparse dataset"
    return None


def _spelling(loss: ErrorFunction) -> str:
    return next(name for name, known in ERROR_FUNCTIONS.items() if known is loss)
