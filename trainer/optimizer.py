"""From network and settings to one optax transformation with DSSTNE's update equations (spec 5.11). Weight decay
goes into the gradient of weights, never of biases. The loss is unknown here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from trainer.network import NetworkSpec, OptimizerName, OptimizerSpec
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
    )


def make_optimizer(spec: NetworkSpec, settings: TrainSettings) -> optax.GradientTransformation:
    """The transformation from mean gradients to updates. The step size falls as 1 / (1 + decay · step)."""
    rates = rates_of(spec, settings)

    def step_size(step: Any) -> Any:
        return rates.learning_rate / (1.0 + spec.decay * jnp.asarray(step, jnp.float32))

    size = step_size if spec.decay > 0 else rates.learning_rate
    return optax.chain(_decay(rates), _RULES[rates.name](rates, optax.scale_by_learning_rate(size)))


def regularization(rates: Rates, params: Any) -> jax.Array:
    """½ l2 Σw² + l1 Σ|w| over weights (spec 4.3)."""
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


def _decay(rates: Rates) -> optax.GradientTransformation:
    if rates.l1 == 0 and rates.l2 == 0:
        return optax.identity()

    def update(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, g, w: g + rates.l2 * w + rates.l1 * jnp.sign(w) if _is_weight(path) else g,
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
