"""Compiled metrics of K members: sums for what is a mean over rows, Keras's own objects else."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import losses, metrics

from kregs.population.keras_internals import (
    is_plain_function_loss,
    loss_arguments,
    resolved_metrics,
    row_function,
    row_values,
)
from kregs.population.objective import (
    ROW_FUNCTIONS,
    StackedLoss,
    aligned,
    is_equal_pair,
    is_sparse_pair,
    looks_at_last_axis,
)
from kregs.population.rows import Rows
from kregs.training.data_loss import DataLoss

_SPARSE_FUNCTIONS = frozenset(
    {
        losses.sparse_categorical_crossentropy, metrics.sparse_categorical_accuracy,
        metrics.sparse_top_k_categorical_accuracy,
    }
)  # fmt: skip
# these bring targets and predictions to one rank by themselves
_ALIGNING_FUNCTIONS = frozenset(
    {
        losses.mean_squared_error, losses.mean_absolute_error,
        losses.mean_absolute_percentage_error, losses.mean_squared_logarithmic_error,
        losses.cosine_similarity, losses.huber, losses.log_cosh, metrics.binary_accuracy,
    }
)  # fmt: skip
_FUNCTIONS = frozenset(
    {
        *ROW_FUNCTIONS, *_SPARSE_FUNCTIONS, metrics.binary_accuracy, metrics.categorical_accuracy,
        metrics.top_k_categorical_accuracy,
    }
)  # fmt: skip

# the programs of several devices share the metric objects that the user made
_ONE_AT_A_TIME = threading.Lock()

# of one member: targets, predictions, sample weights or `None`, and how many rows each batch has
Predicted = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]


class StackedMetrics:
    """The compiled metrics of every member.

    Metrics that are means of one number a row are summed inside the compiled step, and so is
    `DataLoss` of the model's loss. All others (AUC, F1, functions and classes of one's own) are
    Keras's own objects: when a pass is over they are reset, shown the batches of one member after
    the other, and asked for their result.

    Args:
        model: the template's, whose metrics all members have.
        loss: its stacked loss.
        y, prediction: a few rows of each, for Keras to resolve names.

    Attributes:
        data_losses: names of the metrics that are the model's loss without penalties.
        means, others: (name, metric, whether it is weighted) of both other kinds.
    """

    def __init__(
        self, model: keras.Model, loss: StackedLoss, y: tf.Tensor, prediction: tf.Tensor
    ) -> None:
        resolved = resolved_metrics(model, y, prediction)
        self.data_losses = [
            name
            for name, metric, weighted in resolved
            if weighted and type(metric) is DataLoss and _is_same_loss(metric.loss, loss.loss)
        ]
        entries = [entry for entry in resolved if entry[0] not in self.data_losses]
        pair = y[None], prediction[None]  # of one member
        self.means = [entry for entry in entries if _is_row_mean(entry[1], *pair)]
        self.others = [entry for entry in entries if not _is_row_mean(entry[1], *pair)]
        try:
            self._missing = {
                name: number_or_array(np.full(np.shape(value), np.nan))
                for name, value in self._results().items()
            }
        finally:
            for _, metric, _ in resolved:  # Keras's own `evaluate` is not to count the few rows
                metric.reset_state()
        if model.run_eagerly:  # Keras, too, would run them so
            self._update: Any = self._update_all
            self._result: Any = self._results
        else:
            self._update = tf.function(self._update_all, autograph=False, reduce_retracing=True)
            self._result = tf.function(self._results, autograph=False)

    def sums(
        self,
        y: tf.Tensor,
        prediction: tf.Tensor,
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return, per mean metric, (sum of values, sum of weights) of each member, `(K,)` each.

        Args:
            y, prediction, weight, rows: see `StackedLoss`.
        """
        sums = []
        for _, metric, weighted in self.means:
            pair = (y, prediction)
            if row_function(metric)[0] in _ALIGNING_FUNCTIONS:
                pair = aligned(y, prediction)
            members, batch = prediction.shape[0], tf.shape(prediction)[1]
            values = tf.cast(row_values(metric, *pair), metric.dtype)
            values = tf.reshape(values, [members, batch, -1])
            row_weights = tf.ones(tf.stack([members, batch]), values.dtype)
            if rows is not None:
                row_weights = row_weights * tf.cast(rows, row_weights.dtype)
            if weighted and weight is not None:
                row_weights = row_weights * tf.cast(weight, row_weights.dtype)
            counted = row_weights[..., None]
            values = tf.where(counted != 0, values, tf.zeros([], values.dtype))
            inner = tf.cast(tf.shape(values)[2], values.dtype)
            total = tf.reduce_sum(values * counted, [1, 2])
            sums.append((total, tf.reduce_sum(row_weights, 1) * inner))
        return sums

    def compute_others(
        self,
        y: np.ndarray,
        prediction: np.ndarray,
        weight: np.ndarray | None,
        batches: np.ndarray,
    ) -> dict[str, Any]:
        """Let the metrics that are no means compute themselves on one member's predictions.

        Args:
            y, prediction, weight: of all rows, `(rows, ...)`; `weight` may be `None`.
            batches: how many rows each batch has, in order.

        Returns:
            Their values by name, a number or, where Keras reports one, an array.
        """
        with _ONE_AT_A_TIME:
            for _, metric, _ in self.others:
                metric.reset_state()
            try:
                self._update(
                    *(None if a is None else tf.convert_to_tensor(a) for a in (y, prediction)),
                    None if weight is None else tf.convert_to_tensor(weight),
                    tf.constant(np.concatenate([[0], np.cumsum(batches)]), tf.int32),
                )
                values = self._result()
            except tf.errors.OpError:
                if np.isfinite(prediction).all():
                    raise
                return dict(self._missing)  # a member that diverges harms nobody
            finally:
                for _, metric, _ in self.others:  # Keras's `fit` takes new metrics to be reset
                    metric.reset_state()
            return {name: number_or_array(value) for name, value in values.items()}

    def _update_all(
        self, y: tf.Tensor, prediction: tf.Tensor, weight: tf.Tensor | None, starts: tf.Tensor
    ) -> None:
        """Show all batches to the metrics, `starts` saying where each begins and the last ends."""

        def update(step: tf.Tensor) -> tuple[tf.Tensor]:
            batch = slice(starts[step], starts[step + 1])
            for _, metric, weighted in self.others:
                row_weights = weight[batch] if weighted and weight is not None else None
                metric.update_state(y[batch], prediction[batch], sample_weight=row_weights)
            return (step + 1,)

        count = tf.size(starts) - 1
        tf.while_loop(lambda step: step < count, update, (tf.constant(0),), parallel_iterations=1)

    def _results(self) -> dict[str, Any]:
        """Return the metrics' values by name, those within a value by names of their own."""
        results: dict[str, Any] = {}
        for name, metric, _ in self.others:
            value = metric.result()
            results |= value if isinstance(value, dict) else {name: value}
        return results


def number_or_array(value: Any) -> Any:
    """Return a metric's value as Keras logs it: a float if it is one number, else an array."""
    array = np.asarray(value)
    try:
        return float(array)
    except (TypeError, ValueError):
        return array


def predicted_rows(rows: Rows, index: np.ndarray, predictions: np.ndarray) -> Predicted:
    """Return what one member predicted on the rows that an index of steps really holds.

    Args:
        rows: the data.
        index: of one member, `(steps, batch)`, -1 where there is no row.
        predictions: `(steps, batch, ...)`.
    """
    real = index >= 0
    numbers = index[real]
    weights = None if rows.weight is None else rows.weight.numpy()[numbers]
    batches = real.sum(1)
    return rows.y.numpy()[numbers], predictions[real], weights, batches[batches > 0]


def concatenated(chunks: tuple[Predicted, ...]) -> list:
    """Join what one member predicted in several chunks, `None` where there are no weights."""
    columns = zip(*chunks, strict=True)
    return [None if column[0] is None else np.concatenate(column) for column in columns]


def _is_row_mean(metric: Any, y: tf.Tensor, prediction: tf.Tensor) -> bool:
    """Whether a metric is the mean of one number a row that the stacked form knows.

    Args:
        y, prediction: a few rows of one member, `(1, rows, ...)`.
    """
    if not isinstance(metric, metrics.MeanMetricWrapper):
        return False
    # a subclass with an update or a result of its own may do more than take the mean
    own = metrics.MeanMetricWrapper
    kind = type(metric)
    if kind.update_state is not own.update_state or kind.result is not own.result:
        return False
    function, arguments = row_function(metric)
    if not _is_among(function, _FUNCTIONS) or not looks_at_last_axis(arguments):
        return False
    if function in _SPARSE_FUNCTIONS:
        return is_sparse_pair(y, prediction)
    if function in _ALIGNING_FUNCTIONS:
        y, prediction = aligned(y, prediction)
    return is_equal_pair(y, prediction)


def _is_among(function: Any, functions: frozenset) -> bool:
    try:
        return function in functions
    except TypeError:  # an object without a hash
        return False


def _is_same_loss(one: Any, other: keras.losses.Loss) -> bool:
    """Whether a `DataLoss` measures a resolved loss, label smoothing apart."""
    if one is other:
        return True
    function = one.fn if is_plain_function_loss(one) else one
    if not is_plain_function_loss(other) or function is not other.fn:
        return False
    if function is one:  # a function, which Keras gives its usual reduction
        return not loss_arguments(other) and other.reduction == "sum_over_batch_size"
    return (
        loss_arguments(one) == loss_arguments(other)
        and one.reduction == other.reduction
        and one.dtype == other.dtype
    )
