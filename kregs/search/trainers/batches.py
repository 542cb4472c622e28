"""The batches of `fit` in the order of a population's: that of an epoch by seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.rows import class_weights, epoch_order

# of `fit`: with any other the batches are left to Keras
_KNOWN = {
    "x", "y", "sample_weight", "class_weight", "batch_size", "shuffle", "epochs", "initial_epoch",
    "validation_data", "validation_split", "validation_batch_size", "validation_freq", "verbose",
    "callbacks",
}  # fmt: skip


class OrderedBatches(keras.callbacks.Callback):
    """Feeds `fit` with its rows in the order that a population of this seed trains on them.

    Keras shuffles by a generator that begins with each call of `fit`: a training in two calls sees
    other batches than one in a single call.

    Args:
        seed: of the order.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> batches = OrderedBatches(seed=3)
    >>> fit = batches.arguments({"x": np.ones((10, 2)), "y": np.ones(10), "batch_size": 4})
    >>> history = model.fit(**fit, epochs=2, callbacks=[batches], verbose=0)
    >>> [int(step) for step in [model.optimizer.iterations]]
    [6]
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed, self._epoch = seed, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def arguments(self, fit: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments of `fit` with a dataset of ordered batches in place of the arrays.

        They are returned as they are where the batches are the caller's affair (a dataset,
        `shuffle=False`, steps of an own number) or the rows are no arrays of numbers.

        Args:
            fit: arguments of `fit` by name.
        """
        if set(fit) - _KNOWN or fit.get("shuffle", True) is not True or fit.get("y") is None:
            return dict(fit)
        rows = {
            name: fit[name] for name in ("x", "y", "sample_weight") if fit.get(name) is not None
        }
        if not all(map(_is_array, keras.tree.flatten(rows))):
            return dict(fit)
        rows = keras.tree.map_structure(_as_array, rows)
        count = len(keras.tree.flatten(rows)[0])
        validation_data = fit.get("validation_data")
        if validation_data is None and fit.get("validation_split"):
            # as Keras: the last rows
            cut = math.floor(count * (1.0 - fit["validation_split"]))
            held_out = keras.tree.map_structure(lambda array: array[cut:], rows)
            validation_data = tuple(held_out.values())
            rows = keras.tree.map_structure(lambda array: array[:cut], rows)
            count = cut
        weight = fit.get("class_weight")
        if weight is not None:
            if "sample_weight" in rows or not isinstance(rows["y"], np.ndarray):
                return dict(fit)  # Keras says what is wrong
            rows["sample_weight"] = class_weights(rows["y"], weight).astype(keras.config.floatx())
        batch_size = fit.get("batch_size") or 32
        replaced = ("y", "sample_weight", "class_weight", "batch_size", "validation_split")
        return {
            **{name: value for name, value in fit.items() if name not in replaced},
            "x": self._dataset(tuple(rows.values()), count, batch_size),
            "shuffle": False,
            "validation_data": validation_data,
            "validation_batch_size": fit.get("validation_batch_size") or batch_size,
        }

    def _dataset(self, rows: Any, count: int, batch_size: int) -> tf.data.Dataset:
        def orders() -> Iterator[np.ndarray]:
            yield epoch_order(self._seed, self._epoch, count)

        def batches(order: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

        with tf.device("CPU:0"):
            # for tf.data a list is a tensor
            rows = keras.tree.lists_to_tuples(rows)
            tensors = keras.tree.map_structure(tf.convert_to_tensor, rows)
            order = tf.data.Dataset.from_generator(
                orders, output_signature=tf.TensorSpec([count], tf.int32)
            )
            data = tf.data.Dataset.from_tensors(tensors).repeat()
            dataset = tf.data.Dataset.zip((order.flat_map(batches), data))

        def gather(index: tf.Tensor, data: Any) -> Any:
            return keras.tree.map_structure(lambda tensor: tf.gather(tensor, index), data)

        dataset = dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
        steps = tf.data.experimental.assert_cardinality(math.ceil(count / batch_size))
        return dataset.apply(steps).prefetch(tf.data.AUTOTUNE)


def _is_array(value: Any) -> bool:
    array = isinstance(value, np.ndarray) or (isinstance(value, tf.Tensor) and tf.is_tensor(value))
    if not array or not len(value.shape):
        return False
    dtype = value.dtype if isinstance(value, np.ndarray) else np.dtype(value.dtype.as_numpy_dtype)
    return dtype.kind in "biuf"


def _as_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array
