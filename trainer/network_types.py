"""What a network is once read: enums with DSSTNE's numbers, and frozen values with every default explicit.
`trainer.network` makes them from JSON, `trainer.network_file` from NetCDF.
"""

import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from trainer.closed_form import ClosedForm
from trainer.loss_parameters import PLAIN, WHOLE, Contrast, Divergence
from trainer.negatives import UNSAMPLED
from trainer.negatives import Negatives as Negatives
from trainer.negatives import Sampling as Sampling
from trainer.pace import UNSTATED, TrainingSpec


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


class LayerType(IntEnum):
    """What a layer does with its sources."""

    FULLY_CONNECTED = 0
    CONVOLUTIONAL = 1
    POOLING = 2


class PoolingFunction(IntEnum):
    """What a pooling layer computes."""

    NONE = 0
    MAX = 1
    AVERAGE = 2
    LRN = 3
    MAXOUT = 4
    DOT_PRODUCT = 5
    COSINE = 6
    STOCHASTIC = 7
    LCN = 8
    GLOBAL_TEMPORAL = 9
    GAUSSIAN = 101
    """Extension: a draw from the normal distribution of which two layers say mean and logarithm of variance."""


class ErrorFunction(IntEnum):
    """What is minimised."""

    L1 = 0
    L2 = 1
    CROSS_ENTROPY = 2
    SCALED_MARGINAL_CROSS_ENTROPY = 3
    DATA_SCALED_MARGINAL_CROSS_ENTROPY = 4
    HINGE = 5
    L2_HINGE = 6
    COSINE_CONTRASTIVE = 101
    """Extension, as `PAIRWISE`: DSSTNE has no such number."""
    PAIRWISE = 102


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
    GELU = 101
    """Extension, as `SILU`: DSSTNE has no such number."""
    SILU = 102


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

    @property
    def is_linear(self) -> bool:
        """Whether an update without a gradient is a linear map of a weight and its velocity, weight decay included."""
        return self in (OptimizerName.SGD, OptimizerName.MOMENTUM, OptimizerName.NESTEROV)


class Schedule(IntEnum):
    """Extension: how the learning rate goes on after its warm-up."""

    CONSTANT = 0
    COSINE = 1


class Auto(Enum):
    """The type of `AUTO`."""

    AUTO = "auto"


AUTO: Final = Auto.AUTO
"""Shape of a layer that takes it from its dataset, or, where it convolves or pools, from its sources."""


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
    """Parameters of LRN pooling: x / (k + alpha / n · Σ x²)^beta over `n` neighbouring channels."""

    k: float = 2.0
    n: int = 5
    alpha: float = 0.0001
    beta: float = 0.75


@dataclass(frozen=True, slots=True)
class DeltaBoost:
    """Factors of the deltas of an output's stored (`one`) and other (`zero`) units."""

    one: float = 1.0
    zero: float = 1.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """The window of a convolutional or pooling layer; x, y, z as far as it has dimensions."""

    size: tuple[int, ...] = (1,)
    stride: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class SharedWeights:
    """The connection from `input` uses the matrix between two other layers, or its transpose."""

    input: str
    source_input: str
    source_output: str
    transposed: bool = False


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
    clip: float = 0.0
    """Largest length of the gradient of all parameters together; 0 is off."""
    warmup: int = 0
    """Steps in which the rate rises linearly to its full size."""
    schedule: Schedule = Schedule.CONSTANT
    steps: int = 0
    """Steps, warm-up included, after which a cosine schedule has ended; 0: those of the whole run."""
    lazy: bool = False
    """Matrices from sparse Input layers are updated only in rows that a step has entries for, and caught up later."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer and the connections that lead into it."""

    name: str
    kind: LayerKind
    shape: tuple[int, ...] | Auto = (1,)
    """Units by dimension, x first, 1 to 4 of them; unit x + Nx (y + Ny (z + Nz w))."""
    sources: tuple[str, ...] = ()
    activation: Activation = Activation.SIGMOID
    sparse: bool = False
    dataset: str = ""
    weight_init: WeightInit = WeightInit()
    dropout: float = 0.0
    """Extension: of a sparse Input layer, in place of the network's denoising."""
    sparseness: Sparseness = Sparseness()
    relu_slope: float = 1.0
    elu_alpha: float = 1.0
    selu_lambda: float = 1.050701
    normalize: bool = False
    """Extension: an Input or Hidden layer's samples are scaled to length 1."""
    type: LayerType = LayerType.FULLY_CONNECTED
    kernel: Kernel = Kernel()
    filters: int = 0
    """Of a convolutional layer: how many; its last dimension."""
    pooling: PoolingFunction = PoolingFunction.NONE
    divergence: Divergence = WHOLE
    """Extension: of a Gaussian layer."""
    skips: tuple[str, ...] = ()
    """Layers of equal size whose output is added before the activation."""
    shared: tuple[SharedWeights, ...] = ()
    batch_normalization: bool = False
    layer_normalization: bool = False
    """Extension: every sample's sums are brought to mean 0 and variance 1 before the activation."""
    weight_norm: float = 0.0
    """Largest length of a unit's incoming weights; 0 is off."""
    delta_norm: float = 0.0
    """Largest length of a sample's deltas; 0 is off."""
    loss: ErrorFunction | None = None
    """Extension: an Output layer's own error function; `None`: the network's."""
    loss_weight: float = 1.0
    """Extension: factor of an Output layer's loss."""
    negative_weight: float = 1.0
    """Extension: factor of loss and gradient of its units without a stored target."""
    contrast: Contrast = PLAIN
    zero_diagonal: bool = False
    """Extension: of an Output layer; no unit is fed by the feature of its number, of Inputs of its size."""
    sampling: Sampling = UNSAMPLED
    closed_form: ClosedForm | None = None
    """Extension: of a Hidden layer; it is fitted, not trained."""
    analog: bool = False
    """An Input layer trained on values, not on indicators; learnt from its dataset."""
    denoised: bool = True
    """An Input layer whose stored features the network's denoising hides, if sparse; not the dataset, the JSON says."""
    ignore_zero: bool = False
    """An Output layer whose units cost nothing where no target is stored; learnt from its dataset."""
    parts: int = 0
    """While it trains: parts its units are dealt to (`trainer.deal`), to be updated block by block; 0: neither."""
    block: int = 0
    """Units of a block at most, of a layer that is dealt."""

    @property
    def width(self) -> int:
        """Number of units; an unresolved `AUTO` raises `ValueError`."""
        return math.prod(self.sides)

    @property
    def sides(self) -> tuple[int, ...]:
        """Units by dimension; an unresolved `AUTO` raises `ValueError`."""
        if self.shape is AUTO:
            raise ValueError(f"layer {self.name}: the shape is not resolved yet")
        return self.shape


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """A weight matrix (or filters) and biases that lead from one layer into another."""

    source: LayerSpec
    target: LayerSpec
    owner: int
    """Position of the connection whose matrix is used; its own unless it is shared."""
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Layers, each after its sources, and what they are trained for."""

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
    delta_boost: DeltaBoost = DeltaBoost()
    checkpoint_name: str = ""
    """What network files kept on the way are called before their epoch's number; as the two below kept for the file."""
    checkpoint_interval: int = 0
    """Epochs between two of them."""
    checkpoint_epochs: int = 0
    """Epochs since the last."""
    bfloat16: bool = False
    """Extension: products are computed in bfloat16 and summed in float32; parameters stay float32."""
    training: TrainingSpec = UNSTATED
    """Extension: how it is trained, as far as the settings do not say."""

    @property
    def inputs(self) -> tuple[LayerSpec, ...]:
        """The Input layers."""
        return tuple(layer for layer in self.layers if layer.kind is LayerKind.INPUT)

    @property
    def outputs(self) -> tuple[LayerSpec, ...]:
        """The Output layers."""
        return tuple(layer for layer in self.layers if layer.kind is LayerKind.OUTPUT)

    @property
    def input(self) -> LayerSpec:
        """The first Input layer."""
        return self.inputs[0]

    @property
    def output(self) -> LayerSpec:
        """The Output layer that is called `Output`, else the last."""
        return next((layer for layer in self.outputs if layer.name == "Output"), self.outputs[-1])

    def layer(self, name: str) -> LayerSpec:
        """The layer of that name; `KeyError` if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def loss_of(self, layer: LayerSpec) -> ErrorFunction:
        """The error function of an Output layer."""
        return self.loss if layer.loss is None else layer.loss

    @property
    def connections(self) -> tuple[ConnectionSpec, ...]:
        """Everything that has weights, in the order of network files: by layer, then by its sources."""
        by_name = {layer.name: layer for layer in self.layers}
        ends = [
            (by_name[source], layer)
            for layer in self.layers
            if layer.type is not LayerType.POOLING
            for source in layer.sources
        ]
        places = {(source.name, target.name): number for number, (source, target) in enumerate(ends)}
        found: list[ConnectionSpec] = []
        for number, (source, target) in enumerate(ends):
            shared = next((entry for entry in target.shared if entry.input == source.name), None)
            owner = number if shared is None else places[shared.source_input, shared.source_output]
            found.append(ConnectionSpec(source, target, owner, shared is not None and shared.transposed))
        return tuple(found)
