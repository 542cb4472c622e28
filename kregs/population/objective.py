"""Stacked loss and metrics: Keras's own functions on K members, summed member by member."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import losses

from kregs.population.keras_internals import (
    resolved_loss,
    resolved_metrics,
    row_function,
    row_values,
)
from kregs.population.registry import NotStackable

# these look at the last axis alone, so that a leading member axis does not matter to them; Keras's
# loss classes and names all stand for one of them
_ROW_FUNCTIONS = frozenset(
    {
        losses.mean_squared_error, losses.mean_absolute_error,
        losses.mean_absolute_percentage_error, losses.mean_squared_logarithmic_error,
        losses.log_cosh, losses.huber, losses.binary_crossentropy,
        losses.binary_focal_crossentropy, losses.categorical_crossentropy,
        losses.categorical_focal_crossentropy, losses.sparse_categorical_crossentropy,
        losses.kl_divergence, losses.poisson, losses.hinge, losses.squared_hinge,
        losses.categorical_hinge, losses.cosine_similarity,
    }
)  # fmt: skip
_REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight")

DATA_LOSS = "data_loss"

# the programs of several devices share the metric objects that the user made
_ONE_AT_A_TIME = threading.Lock()


class StackedLoss:
    """The loss of every member, without penalties.

    Args:
        model: the template's, whose loss all members have but for label smoothing.
        y, prediction: a few rows of each, for Keras to resolve the loss's name.

    Attributes:
        loss: the resolved Keras loss.
        weight: its `loss_weights`.
        by_row: whether it looks at rows one by one, so that all members are one call.
        is_mean: whether it is the mean over rows, however they are cut into batches.
        sparse: whether targets are class numbers.

    Raises:
        NotStackable: the model has no loss, or one with an unknown reduction.
    """

    def __init__(self, model: keras.Model, y: tf.Tensor, prediction: tf.Tensor) -> None:
        if model.loss is None:
            raise NotStackable("the model is compiled without a loss")
        self.loss, self.weight = resolved_loss(model, y, prediction)
        if self.loss.reduction not in _REDUCTIONS:
            raise NotStackable(f"the loss has reduction={self.loss.reduction!r}")
        function = getattr(self.loss, "fn", None)
        self.by_row = function in _ROW_FUNCTIONS
        self.is_mean = self.by_row and self.loss.reduction in ("sum_over_batch_size", "mean")
        self.sparse = function is losses.sparse_categorical_crossentropy
        self._smoothing_kind = _smoothing_kind(function)

    def __call__(
        self,
        y: tf.Tensor,
        prediction: tf.Tensor,
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
        smoothing: tf.Tensor,
    ) -> tf.Tensor:
        """Return the loss of each member, `(K,)`.

        Args:
            y, prediction: of shape `(K, batch, ...)`.
            weight: sample weights `(K, batch)` or `None`.
            rows: which rows are real, `(K, batch)`, or `None` if all are.
            smoothing: label smoothing, `(K,)`.
        """
        dtype = self.loss.dtype
        prediction = tf.cast(prediction, dtype) if prediction.dtype != dtype else prediction
        y = self.align(y, prediction)
        y = tf.cast(y, dtype) if not self.sparse else y
        if self._smoothing_kind is not None:
            y = self._smooth(y, smoothing)
        if self.by_row:
            values = self.loss.call(y, prediction)
        else:
            pairs = zip(tf.unstack(y), tf.unstack(prediction), strict=True)
            values = tf.stack([self.loss.call(targets, guesses) for targets, guesses in pairs])
        return self.weight * self._reduce(values, weight, rows)

    def align(self, y: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Give `y` the shape that Keras gives it: a column where it is a list of numbers."""
        if self.sparse:
            if len(y.shape) == len(prediction.shape) and y.shape[-1] == 1:
                return tf.squeeze(y, -1)
            return y
        if len(y.shape) == len(prediction.shape) - 1:
            return y[..., None]
        return y

    def _smooth(self, y: tf.Tensor, smoothing: tf.Tensor) -> tf.Tensor:
        smoothing = tf.cast(tf.reshape(smoothing, [-1] + [1] * (len(y.shape) - 1)), y.dtype)
        uniform = 0.5 if self._smoothing_kind == "binary" else 1.0 / y.shape[-1]
        return y * (1 - smoothing) + uniform * smoothing

    def _reduce(
        self, values: tf.Tensor, weight: tf.Tensor | None, rows: tf.Tensor | None
    ) -> tf.Tensor:
        """Reduce `(K, batch, ...)` to `(K,)` as `keras.losses.Loss` does for one member."""
        if len(values.shape) < 2:
            if weight is not None or rows is not None:
                raise NotStackable(
                    f"the loss {self.loss.name!r} returns one value for all rows, which cannot be "
                    "weighted by row"
                )
            return values
        dtype = values.dtype
        axes = list(range(1, len(values.shape)))
        inner = tf.cast(tf.reduce_prod(tf.shape(values)[2:]), dtype)

        def along(vector: tf.Tensor) -> tf.Tensor:
            view = tf.concat([tf.shape(vector), [1] * (len(values.shape) - 2)], axis=0)
            return tf.reshape(tf.cast(vector, dtype), view)

        if rows is not None:
            real = along(rows)
            values = tf.where(real > 0, values, tf.zeros([], dtype))
            count = tf.reduce_sum(tf.cast(rows, dtype), 1) * inner
        else:
            count = tf.cast(tf.reduce_prod(tf.shape(values)[1:]), dtype)
        if weight is not None:
            values = values * along(weight)
        total = tf.reduce_sum(values, axes)
        if self.loss.reduction == "sum":
            return total
        if self.loss.reduction == "mean_with_sample_weight" and weight is not None:
            weight = tf.cast(weight, dtype)
            if rows is not None:
                weight = weight * tf.cast(rows, dtype)
            count = tf.reduce_sum(weight, 1) * inner
        return tf.math.divide_no_nan(total, count)


def _smoothing_kind(function: Any) -> str | None:
    if function is None or "label_smoothing" not in inspect.signature(function).parameters:
        return None
    return "binary" if "binary" in function.__name__ else "categorical"


def label_smoothing_of(model: keras.Model) -> float:
    """Return the label smoothing of a model's loss, 0 if it has none."""
    if isinstance(model.loss, losses.Loss):
        return float(model.loss.get_config().get("label_smoothing", 0.0) or 0.0)
    return 0.0


class StackedMetrics:
    """The compiled metrics of every member.

    Metrics that are means of one number a row are summed inside the compiled step. All others
    (AUC, F1, ...) are given each member's predictions after the epoch, and compute themselves.

    Args:
        model: the template's, whose metrics all members have.
        loss: its stacked loss, which knows the shape of targets.
        y, prediction: a few rows of each, for Keras to resolve names.

    Attributes:
        means, others: (name, metric, whether it is weighted) of both kinds.
        has_data_loss: whether `data_loss` is among the compiled metrics, and so in the logs.
    """

    def __init__(
        self, model: keras.Model, loss: StackedLoss, y: tf.Tensor, prediction: tf.Tensor
    ) -> None:
        self._loss = loss
        entries = resolved_metrics(model, y, prediction)
        for _, metric, _ in entries:  # the few rows are not to be counted
            metric.reset_state()
        self.has_data_loss = any(name == DATA_LOSS for name, *_ in entries)
        entries = [entry for entry in entries if entry[0] != DATA_LOSS]
        self.means = [entry for entry in entries if _is_row_mean(entry[1])]
        self.others = [entry for entry in entries if not _is_row_mean(entry[1])]

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
        y = self._loss.align(y, prediction)
        sums = []
        for _, metric, weighted in self.means:
            members, batch = prediction.shape[0], tf.shape(prediction)[1]
            values = tf.cast(row_values(metric, y, prediction), metric.dtype)
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
        self, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None
    ) -> dict[str, float]:
        """Let the metrics that are no means compute themselves on one member's predictions.

        Args:
            y, prediction, weight: of all rows, `(rows, ...)`; `weight` may be `None`.

        Returns:
            Their values by name.
        """
        if len(y.shape) == len(prediction.shape) - 1 and not self._loss.sparse:
            y = y[..., None]
        values: dict[str, float] = {}
        with _ONE_AT_A_TIME:
            for name, metric, weighted in self.others:
                metric.reset_state()
                metric.update_state(y, prediction, sample_weight=weight if weighted else None)
                result = metric.result()
                if isinstance(result, dict):
                    values |= {part: float(value) for part, value in result.items()}
                else:
                    values[name] = float(result)
        return values


def _is_row_mean(metric: Any) -> bool:
    if not isinstance(metric, keras.metrics.MeanMetricWrapper):
        return False
    # a subclass with its own update may do more than take the mean
    plain = type(metric).update_state is keras.metrics.MeanMetricWrapper.update_state
    module = getattr(row_function(metric), "__module__", "")
    return plain and module.startswith("keras.")
