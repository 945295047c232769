"""The words of the network language: keys, where each may stand, and the spellings of every enum value.
What stands here is the whole language; `trainer.network` says which part is computed.
"""

from trainer.network_types import (
    Activation,
    ErrorFunction,
    LayerKind,
    NetworkKind,
    OptimizerName,
    WeightScheme,
)

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
]
NETWORK_SYNONYMS = {
    "LRN": "LocalResponseNormalization",
    "DataScaledMarginalCrossEntropy": "ScaledMarginalCrossEntropy",
    "Slope": "RELUSlope",
}
LAYER_SYNONYMS = {"Slope": "RELUSlope"}
ANY_LAYER = ["Kind", "Type", "Name", "Sparse", "N", "pDropout"]
AFTER_INPUT = [
    "Source",
    "Kernel",
    "KernelStride",
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
KEYS_OF_KIND = {
    LayerKind.INPUT: {*ANY_LAYER, "DataSet", "Normalize"},
    LayerKind.HIDDEN: {*ANY_LAYER, *AFTER_INPUT, "BatchNormalization", "SparsenessPenalty"},
    LayerKind.OUTPUT: {*ANY_LAYER, *AFTER_INPUT, "DataSet"},
    LayerKind.TARGET: {*ANY_LAYER},
}
LAYER_KEYS = [*ANY_LAYER, *AFTER_INPUT, "BatchNormalization", "SparsenessPenalty", "DataSet", "Normalize"]
NETWORK_KINDS = {"FeedForward": NetworkKind.FEED_FORWARD, "AutoEncoder": NetworkKind.AUTO_ENCODER}
KIND_NAMES = {kind: kind.name.title() for kind in LayerKind}
LAYER_KINDS = {name: kind for kind, name in KIND_NAMES.items()}
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
}
UNSUPPORTED_ACTIVATIONS = {
    Activation.SOFT_PLUS,
    Activation.SOFT_SIGN,
    Activation.RELU_MAX,
    Activation.LINEAR_MAX,
}
ACTIVATIONS_COMPUTED = {*ACTIVATIONS.values()} - UNSUPPORTED_ACTIVATIONS
ERROR_FUNCTIONS = {
    "L1": ErrorFunction.L1,
    "L2": ErrorFunction.L2,
    "L2Hinge": ErrorFunction.L2_HINGE,
    "Hinge": ErrorFunction.HINGE,
    "CrossEntropy": ErrorFunction.CROSS_ENTROPY,
    "cross entropy": ErrorFunction.CROSS_ENTROPY,
    "ScaledMarginalCrossEntropy": ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
    "DataScaledMarginalCrossEntropy": ErrorFunction.DATA_SCALED_MARGINAL_CROSS_ENTROPY,
}
SUPPORTED_ERROR_FUNCTIONS = {
    ErrorFunction.L1,
    ErrorFunction.L2,
    ErrorFunction.CROSS_ENTROPY,
    ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY,
}
CROSS_ENTROPIES = {ErrorFunction.CROSS_ENTROPY, ErrorFunction.SCALED_MARGINAL_CROSS_ENTROPY}
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
HARMLESS: dict[str, tuple[object, ...]] = {
    "Type": ("fullyconnected",),
    "Kernel": (1,),
    "KernelStride": (1,),
    "BatchNormalization": (False, 0),
    "WeightNorm": (0,),
    "DeltaNorm": (0,),
}
"""Keys this trainer does not compute yet, and the values that ask for nothing."""
UNCOMPUTED = (
    "Type",
    "Kernel",
    "KernelStride",
    "BatchNormalization",
    "Function",
    "Skip",
    "WeightNorm",
    "DeltaNorm",
    "SharedWeights",
)


def fits_output(loss: ErrorFunction, activation: Activation) -> bool:
    """Whether the gradient of `loss` is computed on an Output layer of `activation`."""
    if loss in CROSS_ENTROPIES:
        return activation in (Activation.SIGMOID, Activation.SOFT_MAX)
    return activation is not Activation.SOFT_MAX
