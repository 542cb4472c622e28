"""Compiled metrics of K members: sums for what is a mean over rows, Keras's own objects else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import losses, metrics

from kregs.population.keras_internals import (
    CompiledMetric,
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
from kregs.training.data_loss import DataLoss, TotalDataLoss

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

# of targets, predictions and weights of rows, all of them of one output
Score = Callable[[Any, Any, Any], float]

# the programs of several devices share the metric objects that the user made
_ONE_AT_A_TIME = threading.Lock()


class Predicted(NamedTuple):
    """What one member predicted.

    Args:
        y, predictions: of each output, `(rows, ...)`.
        weight: sample weights or `None`.
        batches: how many rows each batch has, in order.
    """

    y: Sequence[np.ndarray]
    predictions: Sequence[np.ndarray]
    weight: np.ndarray | None
    batches: np.ndarray


class StackedMetrics:
    """The compiled metrics of every member.

    Metrics that are means of one number a row are summed inside the compiled step, and so is
    `DataLoss` of the model's loss. All others (AUC, F1, functions and classes of one's own) are
    Keras's own objects: when a pass is over they are reset, shown the batches of one member after
    the other, and asked for their result.

    Args:
        model: the template's, whose metrics all members have.
        loss: its stacked loss.
        y, prediction: a few rows of each, for Keras to resolve names; see `StackedLoss`.

    Attributes:
        data_losses: by name, those that are losses of the model without penalties: which ones they
            add up, each with its weight.
        means, others: of both other kinds.
        within: what a metric logs under other names than its own, with its own.
    """

    def __init__(self, model: keras.Model, loss: StackedLoss, y: Any, prediction: Any) -> None:
        resolved = resolved_metrics(model, y, prediction)
        flat_y, flat_prediction = keras.tree.flatten(y), keras.tree.flatten(prediction)
        self.data_losses: dict[str, list[tuple[int, float]]] = {}
        self.within: dict[str, str] = {}
        self.means: list[CompiledMetric] = []
        self.others: list[CompiledMetric] = []
        summed = self._sum_data_losses(resolved, loss)
        for entry in resolved:
            if id(entry.metric) in summed:
                continue
            # of one member
            pair = flat_y[entry.target][None], flat_prediction[entry.output][None]
            (self.means if _is_row_mean(entry.metric, *pair) else self.others).append(entry)
        try:
            self._missing = {
                name: number_or_array(np.full(np.shape(value), np.nan))
                for name, value in self._results().items()
            }
            for entry in resolved:
                value = entry.metric.result()
                self.within |= dict.fromkeys(value if isinstance(value, dict) else (), entry.name)
        finally:
            for entry in resolved:  # Keras's own `evaluate` is not to count the few rows
                entry.metric.reset_state()
        if model.run_eagerly:  # Keras, too, would run them so
            self._update: Any = self._update_all
            self._result: Any = self._results
        else:
            self._update = tf.function(self._update_all, autograph=False, reduce_retracing=True)
            self._result = tf.function(self._results, autograph=False)

    def _sum_data_losses(self, resolved: Sequence[CompiledMetric], loss: StackedLoss) -> set[int]:
        """Find what measures the model's losses, and sums of them; return ids of these metrics."""
        places: dict[int, int] = {}  # which loss each measures
        for entry in resolved:
            metric = entry.metric
            if not entry.weighted or type(metric) is not DataLoss:
                continue
            for place, part in enumerate(loss.parts):
                pair = part.target, part.output
                same = pair == (entry.target, entry.output)
                if same and _is_same_loss(metric.loss, part.loss):
                    places.setdefault(id(metric), place)
        for entry in resolved:
            if type(entry.metric) is not TotalDataLoss:
                continue
            parts = entry.metric.parts
            if all(id(part) in places for part, _ in parts):
                (name,) = entry.metric.result()
                self.data_losses[name] = [(places[id(part)], weight) for part, weight in parts]
                places[id(entry.metric)] = -1
            else:  # it adds up what Keras's own objects have measured
                for part, _ in parts:
                    places.pop(id(part), None)
        for entry in resolved:
            if places.get(id(entry.metric), -1) >= 0:
                self.data_losses[entry.name] = [(places[id(entry.metric)], 1.0)]
        return set(places)

    def sums(
        self,
        y: Sequence[tf.Tensor],
        predictions: Sequence[tf.Tensor],
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """Return, per mean metric, (sum of values, sum of weights) of each member, `(K,)` each.

        Args:
            y, predictions, weight, rows: see `StackedLoss`.
        """
        sums = []
        for _, metric, weighted, target, output in self.means:
            prediction = predictions[output]
            pair = (y[target], prediction)
            if row_function(metric)[0] in _ALIGNING_FUNCTIONS:
                pair = aligned(*pair)
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

    def compute_others(self, predicted: Predicted) -> dict[str, Any]:
        """Let the metrics that are no means compute themselves on one member's predictions.

        Args:
            predicted: of all rows.

        Returns:
            Their values by name, a number or, where Keras reports one, an array.
        """
        y, predictions, weight, batches = predicted
        with _ONE_AT_A_TIME:
            for entry in self.others:
                entry.metric.reset_state()
            try:
                self._update(
                    [tf.convert_to_tensor(part) for part in y],
                    [tf.convert_to_tensor(part) for part in predictions],
                    None if weight is None else tf.convert_to_tensor(weight),
                    tf.constant(np.concatenate([[0], np.cumsum(batches)]), tf.int32),
                )
                values = self._result()
            except tf.errors.OpError:
                if all(np.isfinite(part).all() for part in predictions):
                    raise
                return dict(self._missing)  # a member that diverges harms nobody
            finally:
                for entry in self.others:  # Keras's `fit` takes new metrics to be reset
                    entry.metric.reset_state()
            return {name: number_or_array(value) for name, value in values.items()}

    def _update_all(
        self,
        y: Sequence[tf.Tensor],
        predictions: Sequence[tf.Tensor],
        weight: tf.Tensor | None,
        starts: tf.Tensor,
    ) -> None:
        """Show all batches to the metrics, `starts` saying where each begins and the last ends."""

        def update(step: tf.Tensor) -> tuple[tf.Tensor]:
            batch = slice(starts[step], starts[step + 1])
            for _, metric, weighted, target, output in self.others:
                row_weights = weight[batch] if weighted and weight is not None else None
                metric.update_state(
                    y[target][batch], predictions[output][batch], sample_weight=row_weights
                )
            return (step + 1,)

        count = tf.size(starts) - 1
        tf.while_loop(lambda step: step < count, update, (tf.constant(0),), parallel_iterations=1)

    def _results(self) -> dict[str, Any]:
        """Return the metrics' values by name, those within a value by names of their own."""
        results: dict[str, Any] = {}
        for entry in self.others:
            value = entry.metric.result()
            results |= value if isinstance(value, dict) else {entry.name: value}
        return results

    def in_order(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return logs in the order of Keras's: by name, what is within a metric by the metric's."""
        names = sorted(logs, key=lambda name: (self.within.get(name, name), name))
        return {name: logs[name] for name in names}


def number_or_array(value: Any) -> Any:
    """Return a metric's value as Keras logs it: a float if it is one number, else an array."""
    array = np.asarray(value)
    try:
        return float(array)
    except (TypeError, ValueError):
        return array


def predicted_rows(rows: Rows, index: np.ndarray, predictions: Sequence[np.ndarray]) -> Predicted:
    """Return what one member predicted on the rows that an index of steps really holds.

    Args:
        rows: the data.
        index: of one member, `(steps, batch)`, -1 where there is no row.
        predictions: of each output, `(steps, batch, ...)`.
    """
    real = index >= 0
    numbers = index[real]
    batches = real.sum(1)
    return Predicted(
        [targets.numpy()[numbers] for targets in keras.tree.flatten(rows.y)],
        [part[real] for part in predictions],
        None if rows.weight is None else rows.weight.numpy()[numbers],
        batches[batches > 0],
    )


def concatenated(chunks: Sequence[Predicted]) -> Predicted:
    """Join what one member predicted in several chunks."""
    y, predictions, weight, batches = zip(*chunks, strict=True)
    return Predicted(
        [np.concatenate(parts) for parts in zip(*y, strict=True)],
        [np.concatenate(parts) for parts in zip(*predictions, strict=True)],
        None if weight[0] is None else np.concatenate(weight),
        np.concatenate(batches),
    )


def scores_of(scores: Mapping[str, Score], predicted: Predicted) -> dict[str, float]:
    """Return what functions make of the predictions of one member, by name.

    Example:

    >>> rows = [np.ones(3)], [np.zeros((3, 1))], None, np.array([3])
    >>> scores_of({"val_ones": lambda y, outputs, weight: y.sum()}, Predicted(*rows))
    {'val_ones': 3.0}
    """
    y, predictions, weight, _ = predicted
    return {name: float(score(y[0], predictions[0], weight)) for name, score in scores.items()}


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
