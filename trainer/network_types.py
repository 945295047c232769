"""What a network is once read: enums whose numbers are those DSSTNE stores in files, and frozen values
with every default explicit. `trainer.network` makes them from JSON, `trainer.network_file` from NetCDF.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final


class NetworkKind(IntEnum):
    """What the network calls itself; it changes nothing."""

    FEED_FORWARD = 0
    AUTO_ENCODER = 1


class LayerKind(IntEnum):
    """Place of a layer."""

    INPUT = 0
    HIDDEN = 1
    OUTPUT = 2
    TARGET = 3


class ErrorFunction(IntEnum):
    """What is minimised."""

    L1 = 0
    L2 = 1
    CROSS_ENTROPY = 2
    SCALED_MARGINAL_CROSS_ENTROPY = 3
    DATA_SCALED_MARGINAL_CROSS_ENTROPY = 4
    HINGE = 5
    L2_HINGE = 6


class Activation(IntEnum):
    """What turns a layer's sums into its output."""

    SIGMOID = 0
    TANH = 1
    RECTIFIED_LINEAR = 2
    LINEAR = 3
    PARAMETRIC_RECTIFIED_LINEAR = 4
    SOFT_PLUS = 5
    SOFT_SIGN = 6
    SOFT_MAX = 7
    RELU_MAX = 8
    LINEAR_MAX = 9
    EXPONENTIAL_LINEAR = 10
    LEAKY_RECTIFIED_LINEAR = 11
    SCALED_EXPONENTIAL_LINEAR = 12


class WeightScheme(IntEnum):
    """How weights begin."""

    XAVIER = 0
    CAFFE_XAVIER = 1
    GAUSSIAN = 2
    UNIFORM = 3
    UNIT_BALL = 4
    CONSTANT = 5
    SELU = 6


class OptimizerName(IntEnum):
    """DSSTNE's training modes."""

    SGD = 0
    MOMENTUM = 1
    ADAGRAD = 2
    NESTEROV = 3
    RMSPROP = 4
    ADADELTA = 5
    ADAM = 6


class Auto(Enum):
    """The type of `AUTO`."""

    AUTO = "auto"


AUTO: Final = Auto.AUTO
"""Units of a layer that takes its width from its dataset."""


@dataclass(frozen=True, slots=True)
class Sparseness:
    """Penalty on hidden units whose mean activation strays from `p`; off while `beta` is 0."""

    p: float = 0.0
    beta: float = 0.0


@dataclass(frozen=True, slots=True)
class MarginalScale:
    """Parameters of the scaled marginal cross-entropy."""

    one_target: float = 0.9
    zero_target: float = 0.1
    one_scale: float = 1.0
    zero_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class ResponseNormalization:
    """Parameters of LRN pooling; kept for the network file, no layer here uses them."""

    k: float = 2.0
    n: int = 5
    alpha: float = 0.0001
    beta: float = 0.75


@dataclass(frozen=True, slots=True)
class WeightInit:
    """How the weights and biases that lead into a layer begin."""

    scheme: WeightScheme = WeightScheme.XAVIER
    scale: float = 1.0
    bias: float = 0.0
    log_odds: bool = False
    """Extension: biases begin at the log-odds of the features, `bias` is not used."""


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """Extension: the optimizer a network asks for; `None` leaves a number to the settings."""

    name: OptimizerName = OptimizerName.SGD
    learning_rate: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    momentum2: float | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer and the connections that lead into it."""

    name: str
    kind: LayerKind
    units: int | Auto = 1
    sources: tuple[str, ...] = ()
    activation: Activation = Activation.SIGMOID
    sparse: bool = False
    dataset: str = ""
    weight_init: WeightInit = WeightInit()
    dropout: float = 0.0
    sparseness: Sparseness = Sparseness()
    relu_slope: float = 1.0
    elu_alpha: float = 1.0
    selu_lambda: float = 1.050701
    normalize: bool = False

    @property
    def width(self) -> int:
        """Number of units; an unresolved `AUTO` raises `ValueError`."""
        if self.units is AUTO:
            raise ValueError(f"layer {self.name}: the width is not resolved yet")
        return self.units


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A chain of layers, the first an Input, the last an Output, and what it is trained for."""

    name: str
    layers: tuple[LayerSpec, ...]
    kind: NetworkKind = NetworkKind.FEED_FORWARD
    loss: ErrorFunction = ErrorFunction.CROSS_ENTROPY
    marginal: MarginalScale = MarginalScale()
    denoising: float = 0.0
    """Chance of a stored input feature to be hidden in training."""
    sparseness: Sparseness = Sparseness()
    shuffle: bool = True
    decay: float = 0.0
    """Learning rate of step B is divided by 1 + decay · B."""
    optimizer: OptimizerSpec | None = None
    response_normalization: ResponseNormalization = ResponseNormalization()
    maxout_k: int = 2

    @property
    def input(self) -> LayerSpec:
        """The input layer."""
        return self.layers[0]

    @property
    def output(self) -> LayerSpec:
        """The output layer."""
        return self.layers[-1]
