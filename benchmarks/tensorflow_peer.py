"""TensorFlow three times: the published script's formulation, the same compiled by XLA, and with sparse input as a
user who knows TensorFlow would write it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]  # of the peers' own environment

from benchmarks.data import Coordinates
from benchmarks.training import Training, in_turns


def published(**arguments: Any) -> Callable[[], float]:
    """Dense rows fed step by step; the loss from the outputs, as the script has it; TensorFlow's own kernels."""
    training = Training(**arguments)
    network = _Network(training)

    def loss(dense: Any) -> Any:
        output = tf.sigmoid(network.outputs(tf.matmul(dense, network.weights[0])))
        costs = dense * tf.math.log(output) + (1.0 - dense) * tf.math.log(1.000001 - output)
        return -tf.reduce_mean(costs)

    return _dense_work(training, network, tf.function(network.step(loss)))


def xla(**arguments: Any) -> Callable[[], float]:
    """Dense rows fed step by step, the loss from logits, the whole step compiled by XLA."""
    training = Training(**arguments)
    network = _Network(training)

    def loss(dense: Any) -> Any:
        logits = network.outputs(tf.matmul(dense, network.weights[0]))
        return tf.reduce_sum(tf.nn.softplus(logits) - dense * logits) / training.batch

    return _dense_work(training, network, tf.function(network.step(loss), jit_compile=True))


def sparse(*, compiled: bool, **arguments: Any) -> Callable[[], float]:
    """Input gathered and summed by row, targets gathered from the logits; by XLA or by TensorFlow's own kernels."""
    training = Training(**arguments)
    network = _Network(training)

    def loss(indices: Any, rows: Any) -> Any:
        gathered = tf.gather(network.weights[0], indices)
        # Padding goes to a row of its own, which is dropped.
        summed = tf.math.unsorted_segment_sum(gathered, rows, training.batch + 1)[:-1]
        logits = network.outputs(summed)
        real = tf.cast(rows < training.batch, tf.float32)
        places = tf.stack([tf.minimum(rows, training.batch - 1), indices], axis=1)
        stored = tf.reduce_sum(real * tf.gather_nd(logits, places))
        return (tf.reduce_sum(tf.nn.softplus(logits)) - stored) / training.batch

    step = tf.function(network.step(loss), jit_compile=compiled)
    made = training.batches
    longest = max(len(batch.indices) for batch in made)

    def one(batch: tuple[Any, Any]) -> None:
        step(*(tf.constant(part) for part in batch)).numpy()

    return in_turns(training, [_padded(batch, longest, training.batch) for batch in made], one)


class _Network:
    def __init__(self, training: Training) -> None:
        self.weights = [tf.Variable(tf.convert_to_tensor(weight)) for weight in training.weights()]
        self.biases = [tf.Variable(tf.fill([units], 0.1)) for units in training.widths[1:]]
        v1 = tf.compat.v1.train
        # By slices RMSProp would be another optimizer: rows that are not touched would keep their mean square.
        self._takes_slices = training.optimizer == "SGD"
        self._optimizer = (
            v1.RMSPropOptimizer(training.learning_rate, decay=0.9)
            if training.optimizer == "RMSPROP"
            else v1.GradientDescentOptimizer(training.learning_rate)
        )
        # Its slots are made before the step is compiled.
        variables = [*self.weights, *self.biases]
        self._optimizer.apply_gradients([(tf.zeros_like(one), one) for one in variables])

    def outputs(self, sums: Any) -> Any:
        """Sums of the last layer, from the first layer's before its bias."""
        sums = sums + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            sums = tf.matmul(tf.sigmoid(sums), weight) + bias
        return sums

    def step(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """One update by the gradient of `loss`; the value of the loss before it."""
        variables = [*self.weights, *self.biases]

        def step(*batch: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(*batch)
            gradients = tape.gradient(value, variables)
            if not self._takes_slices:
                gradients = [tf.convert_to_tensor(one) for one in gradients]
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return value

        return step


def _dense_work(training: Training, network: _Network, step: Callable[..., Any]) -> Callable[[], float]:
    made = [_dense(batch, training) for batch in training.batches]

    def one(dense: Any) -> None:
        step(tf.constant(dense)).numpy()
        network.weights[-1][0, 0].numpy()

    return in_turns(training, made, one)


def _dense(batch: Coordinates, training: Training) -> Any:
    dense = np.zeros((training.batch, training.items), np.float32)
    dense[batch.rows, batch.indices] = 1.0
    return dense


def _padded(batch: Coordinates, length: int, size: int) -> tuple[Any, Any]:
    missing = (0, length - len(batch.indices))
    return np.pad(batch.indices, missing), np.pad(batch.rows, missing, constant_values=size)
