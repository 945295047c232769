"""From network and settings to one optax transformation with DSSTNE's update equations (spec 5.11). Weight decay
goes into the gradient of weights, never of biases. The loss is unknown here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from trainer.network_types import NetworkSpec, OptimizerName, OptimizerSpec, Schedule
from trainer.pace import pace_of
from trainer.settings import TrainSettings

_DEFAULT_RATE = 0.025
_DEFAULT_L2 = 0.0001
_DEFAULT_MOMENTUM = 0.5
_ADAM_BETA1, _ADAM_BETA2 = 0.9, 0.999
_FLOOR = 1e-9
"""DSSTNE floors the squares it divides by."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The numbers of an optimizer. What the settings say wins over the network, the network over DSSTNE's
    defaults for `train` (spec 4.1); Adam's decays are its authors', since DSSTNE's 0.5 and 0 serve nobody.
    """

    name: OptimizerName
    learning_rate: float
    l1: float
    l2: float
    momentum: float
    momentum2: float
    lazy: bool = False

    @property
    def is_local(self) -> bool:
        """Whether a weight without a gradient stays as it is, and the others move by the sum of what they are given."""
        return self.name is OptimizerName.SGD and self.l1 == 0 and self.l2 == 0

    def touches_rows_only(self, data_shards: int) -> bool:
        """Whether of a matrix from a sparse Input layer only rows with entries are updated."""
        return self.lazy or (self.is_local and data_shards == 1)


def rates_of(spec: NetworkSpec, settings: TrainSettings) -> Rates:
    """The numbers in force."""
    asked = spec.optimizer or OptimizerSpec()
    adam = asked.name is OptimizerName.ADAM
    return Rates(
        name=asked.name,
        learning_rate=_first(settings.learning_rate, asked.learning_rate, _DEFAULT_RATE),
        l1=settings.l1,
        l2=_first(settings.l2, asked.weight_decay, _DEFAULT_L2),
        momentum=_first(settings.momentum, asked.momentum, _ADAM_BETA1 if adam else _DEFAULT_MOMENTUM),
        momentum2=_first(settings.momentum2, asked.momentum2, _ADAM_BETA2),
        lazy=asked.lazy,
    )


def make_optimizer(
    spec: NetworkSpec, settings: TrainSettings, *, steps: int = 0
) -> optax.GradientTransformationExtraArgs:
    """The transformation from mean gradients to updates; its `update` takes `rate_scale`, a factor of this step's
    learning rate. `steps` of the whole run are what a cosine schedule without a length of its own falls over.
    """
    rates = rates_of(spec, settings)
    asked = spec.optimizer or OptimizerSpec()
    size = scale_by_rate(rate_function(spec, settings, steps=steps))
    clip = optax.clip_by_global_norm(asked.clip) if asked.clip > 0 else optax.identity()
    return optax.with_extra_args_support(optax.chain(clip, _decay(rates), _RULES[rates.name](rates, size)))


def rate_function(spec: NetworkSpec, settings: TrainSettings, *, steps: int = 0) -> Callable[[jax.Array], jax.Array]:
    """The learning rate by the number of updates before; `steps` as in `make_optimizer`."""
    asked = spec.optimizer or OptimizerSpec()
    interval = settings.rate_interval * (steps // max(pace_of(spec.training, settings).epochs, 1))
    falling = _Falling(asked, spec.decay, asked.steps or steps, interval, settings.rate_factor)
    return partial(_rate, rates_of(spec, settings).learning_rate, falling)


class RateState(NamedTuple):
    """Where a schedule stands."""

    step: jax.Array
    """Updates made."""


def scale_by_rate(rate_at: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformationExtraArgs:
    """-learning rate · update, the rate by the number of updates before this one, times the `rate_scale` given."""

    def start(params: Any) -> RateState:
        del params
        return RateState(jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: Any, params: Any = None, *, rate_scale: Any = 1.0, **_: Any
    ) -> tuple[Any, RateState]:
        del params
        size = -rate_at(state.step) * rate_scale
        return jax.tree.map(lambda g: size * g, updates), RateState(state.step + 1)

    return optax.GradientTransformationExtraArgs(start, update)


class _Falling(NamedTuple):
    """How the learning rate goes on."""

    asked: OptimizerSpec
    decay: float
    steps: int
    interval: int
    """Steps after which the rate is multiplied by `factor`; 0: never."""
    factor: float


def _rate(learning_rate: float, falling: _Falling, count: jax.Array) -> jax.Array:
    """DSSTNE's decay 1 / (1 + decay · count) and its factor at intervals, a linear warm-up from 1 / warmup, and half a
    cosine down to 0.
    """
    done, asked = count.astype(jnp.float32), falling.asked
    rate = jnp.float32(learning_rate) / (1.0 + falling.decay * done)
    if falling.interval > 0:
        rate = rate * falling.factor ** (count // falling.interval).astype(jnp.float32)
    if asked.warmup > 0:
        rate = rate * jnp.minimum((done + 1.0) / asked.warmup, 1.0)
    if asked.schedule is Schedule.COSINE:
        if falling.steps <= 0:
            raise ValueError("a cosine schedule needs the steps of the run")
        fallen = jnp.clip((done - asked.warmup) / max(falling.steps - asked.warmup, 1), 0.0, 1.0)
        rate = rate * 0.5 * (1.0 + jnp.cos(jnp.pi * fallen))
    return rate


def regularization(rates: Rates, params: Any) -> jax.Array:
    """½ l2 Σw² + l1 Σ|w| over weights (spec 4.3), a scalar."""
    total = jnp.zeros((), jnp.float32)
    if rates.l1 == 0 and rates.l2 == 0:
        return total
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if _is_weight(path):
            total = total + 0.5 * rates.l2 * jnp.square(leaf).sum() + rates.l1 * jnp.abs(leaf).sum()
    return total


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _is_weight(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1], "key", None) == "kernel"


def _decays(path: tuple[Any, ...]) -> bool:
    """Whether weight decay pulls at a parameter: weights, and what batch normalisation has learnt (spec 5.9)."""
    return _is_weight(path) or getattr(path[0], "key", None) == "batch_norms"


def _decay(rates: Rates) -> optax.GradientTransformation:
    if rates.l1 == 0 and rates.l2 == 0:
        return optax.identity()

    def update(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, g, w: g + rates.l2 * w + rates.l1 * jnp.sign(w) if _decays(path) else g,
            updates,
            params,
        )

    return optax.stateless(update)


class SquaresState(NamedTuple):
    """Running squares: of gradients, and for AdaDelta of updates."""

    squares: Any
    moved: Any


def _by_squares(decay: float, share: float) -> optax.GradientTransformation:
    """g / sqrt(max(1e-9, v)) with v = decay v + share g²: AdaGrad (1, 1) and RMSProp (mu, 1 - mu)."""

    def start(params: Any) -> SquaresState:
        return SquaresState(jax.tree.map(jnp.zeros_like, params), None)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SquaresState]:  # noqa: ARG001 - optax
        squares = jax.tree.map(lambda v, g: decay * v + share * jnp.square(g), state.squares, updates)
        scaled = jax.tree.map(lambda g, v: g * jax.lax.rsqrt(jnp.maximum(v, _FLOOR)), updates, squares)
        return scaled, SquaresState(squares, None)

    return optax.GradientTransformation(start, update)


def _ada_delta(decay: float) -> optax.GradientTransformation:
    """g sqrt(max(1e-9, v) / max(1e-9, u)), u and v the running squares of gradients and updates."""

    def start(params: Any) -> SquaresState:
        return SquaresState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SquaresState]:  # noqa: ARG001 - optax
        def running(v: jax.Array, g: jax.Array) -> jax.Array:
            return decay * v + (1.0 - decay) * jnp.square(g)

        squares = jax.tree.map(running, state.squares, updates)
        moves = jax.tree.map(
            lambda g, u, v: g * jnp.sqrt(jnp.maximum(v, _FLOOR) / jnp.maximum(u, _FLOOR)),
            updates,
            squares,
            state.moved,
        )
        moved = jax.tree.map(running, state.moved, moves)
        return jax.tree.map(jnp.negative, moves), SquaresState(squares, moved)

    return optax.GradientTransformation(start, update)


def _adam(beta1: float, beta2: float) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(beta1, beta2, eps=1e-8)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # optax raises a float to an int32 power, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


Rule = Callable[[Rates, optax.GradientTransformation], optax.GradientTransformation]
_RULES: dict[OptimizerName, Rule] = {
    OptimizerName.SGD: lambda _, scale: scale,
    # Scaled first, so that velocity holds steps of the size then in force, as DSSTNE's does.
    OptimizerName.MOMENTUM: lambda rates, scale: optax.chain(scale, optax.trace(rates.momentum)),
    OptimizerName.NESTEROV: lambda rates, scale: optax.chain(scale, optax.trace(rates.momentum, nesterov=True)),
    OptimizerName.ADAGRAD: lambda _, scale: optax.chain(_by_squares(1.0, 1.0), scale),
    OptimizerName.RMSPROP: lambda rates, scale: optax.chain(_by_squares(rates.momentum, 1.0 - rates.momentum), scale),
    OptimizerName.ADADELTA: lambda rates, _: _ada_delta(rates.momentum),
    OptimizerName.ADAM: lambda rates, scale: optax.chain(_adam(rates.momentum, rates.momentum2), scale),
}
