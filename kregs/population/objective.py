"""Stacked loss: Keras's own functions on K members, reduced member by member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import losses

from kregs.population.keras_internals import (
    CompiledLoss,
    is_plain_function_loss,
    loss_arguments,
    resolved_losses,
)
from kregs.population.registry import NotStackable
from kregs.training.label_smoothing import (
    SmoothedSparseCategoricalCrossentropy,
    copied,
    smoothing_of,
    uniform_crossentropy,
    without_smoothing,
)
from kregs.training.wrapped_loss import WrappedLoss, unwrapped_loss

# these look at the last axis alone, so that a leading member axis does not matter to them; Keras's
# loss classes and names all stand for one of them
ROW_FUNCTIONS = frozenset(
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


class StackedLoss:
    """What every member minimizes, without penalties: a loss, or one of each output.

    Args:
        model: the template's, whose losses all members have but for label smoothing.
        y, prediction: a few rows of each, for Keras to resolve names; of several outputs in the
            structures that `fit` has them in.
        smoothed: of each given loss, whether any member has label smoothing; `None`: any may.

    Attributes:
        parts: the losses.
        by_row: whether all look at rows one by one.
        is_mean: whether all that is logged is a mean over rows, however they are cut into batches.
        smoothed: whether members may have label smoothing.
        dtype: of the sum.

    Raises:
        NotStackable: the model has no loss, one with an unknown reduction, or one that compares
            several outputs at once.
        ValueError: the targets do not fit the model's outputs.
    """

    def __init__(
        self,
        model: keras.Model,
        y: Any,
        prediction: Any,
        smoothed: Sequence[bool] | None = None,
    ) -> None:
        flat_y, flat_prediction = keras.tree.flatten(y), keras.tree.flatten(prediction)
        if len(flat_y) != len(flat_prediction):
            raise NotStackable(f"{len(flat_y)} targets for {len(flat_prediction)} outputs")
        if model.loss is None:
            raise NotStackable("the model is compiled without a loss")
        try:
            resolved = resolved_losses(model, y, prediction)
        except KeyError as error:  # where Keras looks for the target or the loss of an output
            raise ValueError(
                "`y` and `loss` must fit the outputs of the model. Received: "
                f"{keras.tree.map_structure(lambda part: tuple(part.shape), y)}, {model.loss!r}"
            ) from error
        if not resolved:
            raise NotStackable("the model is compiled without a loss")
        given = given_losses(model)
        self.parts = []
        for each in resolved:
            if each.target is None or each.output is None:
                raise NotStackable("a loss compares several outputs at once")
            pair = flat_y[each.target], flat_prediction[each.output]
            place = next((place for place, one in enumerate(given) if one is each.loss), None)
            any_smooths = place is None or smoothed is None or bool(smoothed[place])
            self.parts.append(OutputLoss(each, *pair, place, any_smooths))
        self.by_row = all(part.by_row for part in self.parts)
        # Keras logs the loss of one of several outputs as a mean over batches
        self.is_mean = len(self.parts) == 1 and self.parts[0].is_mean
        self.smoothed = any(part.smoothed for part in self.parts)
        self.dtype = self.parts[0].loss.dtype

    def __call__(
        self,
        y: Sequence[tf.Tensor],
        predictions: Sequence[tf.Tensor],
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
        smoothing: Sequence[tf.Tensor] | None,
    ) -> list[tf.Tensor]:
        """Return each loss of each member, `(K,)` each, without its `loss_weights`.

        Args:
            y, predictions: of each output, of shape `(K, batch, ...)`.
            weight: sample weights `(K, batch)` or `None`.
            rows: which rows are real, `(K, batch)`, or `None` if all are.
            smoothing: label smoothing of each loss that was given, `(K,)`; `None`: leave it out.
        """
        values = []
        for part in self.parts:
            own = smoothing[part.place] if smoothing is not None and part.smoothed else None
            value = part(y[part.target], predictions[part.output], weight, rows, own)
            values.append(tf.cast(value, self.dtype))
        return values


class OutputLoss:
    """The loss of every member on one output, without its `loss_weights`.

    Args:
        resolved: as `fit` would use it.
        y, prediction: a few rows of each.
        place: among the losses that were given, which may differ in label smoothing; `None` if it
            was given by name or as a function.
        any_smooths: whether any member has label smoothing.

    Attributes:
        loss: the resolved Keras loss, without label smoothing where members may differ in it.
        weight: its `loss_weights`.
        name: what it is logged as, if there are several.
        target, output: which ones it compares.
        by_row: whether it looks at rows one by one, so that all members are one call.
        is_mean: whether it is the mean over rows, however they are cut into batches.
        smoothed: whether members may have label smoothing.
    """

    def __init__(
        self,
        resolved: CompiledLoss,
        y: tf.Tensor,
        prediction: tf.Tensor,
        place: int | None,
        any_smooths: bool = True,
    ) -> None:
        self.weight, self.name = resolved.weight, f"{resolved.name}_loss"
        self.target: Any = resolved.target
        self.output: Any = resolved.output
        self.place: Any = place
        # what it knows of rows that are mixed or adversarial is in the program
        given = resolved.loss
        loss = given.wrapped if isinstance(given, WrappedLoss) else given
        if loss.reduction not in _REDUCTIONS:
            raise NotStackable(f"the loss has reduction={loss.reduction!r}")
        self._smoothing_kind = None if place is None else smoothing_kind(loss)
        if self._smoothing_kind == "sparse" and not any_smooths:
            self._smoothing_kind = None  # where nobody smooths, it would cost a second loss
        self.smoothed = self._smoothing_kind is not None
        self.loss = without_smoothing(loss) if self.smoothed else loss
        self._aligns = is_plain_function_loss(self.loss)
        function = self.loss.fn if self._aligns else None
        self._sparse = function is losses.sparse_categorical_crossentropy
        self._looks_at_rows = function in ROW_FUNCTIONS and looks_at_last_axis(
            loss_arguments(self.loss)
        )
        self.by_row = self._looks_at_rows and self._fits(
            *aligned(y[None], prediction[None])  # one member
        )
        self.is_mean = self.by_row and self.loss.reduction in ("sum_over_batch_size", "mean")

    def __call__(
        self,
        y: tf.Tensor,
        prediction: tf.Tensor,
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
        smoothing: tf.Tensor | None,
    ) -> tf.Tensor:
        """Return the loss of each member, `(K,)`.

        Args:
            y, prediction: of shape `(K, batch, ...)`.
            weight: sample weights `(K, batch)` or `None`.
            rows: which rows are real, `(K, batch)`, or `None` if all are.
            smoothing: label smoothing, `(K,)`; `None`: leave it out.
        """
        dtype = self.loss.dtype
        prediction = tf.cast(prediction, dtype) if prediction.dtype != dtype else prediction
        if self._aligns:
            y, prediction = aligned(y, prediction)
        # Keras multiplies weights along the last axis of values, which is that of rows in a vector
        by_row = self._looks_at_rows and self._fits(y, prediction)
        by_row = by_row and (weight is None or len(prediction.shape) == 3)
        if not (by_row and self._sparse):
            y = tf.cast(y, dtype)
        smoothing = smoothing if self.smoothed else None
        if not by_row:
            return self._one_by_one(y, prediction, weight, rows, smoothing)
        if smoothing is not None and not self._sparse:
            y = self._smooth(y, smoothing)
        if self._sparse and len(y.shape) == len(prediction.shape):
            y = tf.squeeze(y, -1)
        value = self._reduce(self.loss.call(y, prediction), weight, rows)
        if smoothing is None or not self._sparse:
            return value
        return self._mixed(value, self._reduce(self._uniform(prediction), weight, rows), smoothing)

    def _fits(self, y: tf.Tensor, prediction: tf.Tensor) -> bool:
        """Whether aligned targets belong to the predictions row by row, number by number."""
        if self._sparse:
            return is_sparse_pair(y, prediction)
        return is_equal_pair(y, prediction)

    def _one_by_one(
        self,
        y: tf.Tensor,
        prediction: tf.Tensor,
        weight: tf.Tensor | None,
        rows: tf.Tensor | None,
        smoothing: tf.Tensor | None,
    ) -> tf.Tensor:
        """Call Keras's loss, with its reduction, on the real rows of one member after another."""
        values = []
        for k in range(prediction.shape[0]):
            parts = [y[k], prediction[k], None if weight is None else weight[k]]
            if rows is not None:
                real = rows[k] > 0
                parts = [None if part is None else tf.boolean_mask(part, real) for part in parts]
            if smoothing is not None and not self._sparse:
                parts[0] = self._smooth(parts[0][None], smoothing[k : k + 1])[0]
            value = self.loss(*parts)
            if smoothing is not None and self._sparse:
                uniform = copied(self.loss)
                uniform.call = lambda _, outputs: self._uniform(outputs)
                value = self._mixed(value, uniform(*parts), smoothing[k])
            values.append(value)
        return tf.stack(values)

    def _uniform(self, prediction: tf.Tensor) -> tf.Tensor:
        """The loss of class numbers, were the label all classes in equal shares."""
        return uniform_crossentropy(prediction, loss_arguments(self.loss)["from_logits"])

    @staticmethod
    def _mixed(value: tf.Tensor, uniform: tf.Tensor, smoothing: tf.Tensor) -> tf.Tensor:
        smoothing = tf.cast(smoothing, value.dtype)
        return value * (1 - smoothing) + smoothing * uniform

    def _smooth(self, y: tf.Tensor, smoothing: tf.Tensor) -> tf.Tensor:
        smoothing = tf.cast(tf.reshape(smoothing, [-1] + [1] * (len(y.shape) - 1)), y.dtype)
        classes = tf.cast(tf.shape(y)[-1], y.dtype)
        uniform = 0.5 if self._smoothing_kind == "binary" else 1.0 / classes
        return y * (1 - smoothing) + uniform * smoothing

    def _reduce(
        self, values: tf.Tensor, weight: tf.Tensor | None, rows: tf.Tensor | None
    ) -> tf.Tensor:
        """Reduce `(K, batch, ...)` to `(K,)` as `keras.losses.Loss` does for one member."""
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


def aligned(y: tf.Tensor, prediction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Give targets and predictions one rank where Keras does: an axis of length 1 comes or goes.

    Args:
        y, prediction: of shape `(K, batch, ...)`.
    """
    y_rank, rank = len(y.shape) - 1, len(prediction.shape) - 1  # of one member
    if y_rank == rank + 1 and y.shape[-1] == 1:
        return (y, prediction[..., None]) if rank == 1 else (tf.squeeze(y, -1), prediction)
    if rank == y_rank + 1 and prediction.shape[-1] == 1:
        return (y[..., None], prediction) if y_rank == 1 else (y, tf.squeeze(prediction, -1))
    return y, prediction


def is_equal_pair(y: tf.Tensor, prediction: tf.Tensor) -> bool:
    """Whether each prediction, of shape `(K, batch, ...)`, has one target."""
    ranks_fit = len(y.shape) == len(prediction.shape) >= 3
    return ranks_fit and y.shape[2:].is_compatible_with(prediction.shape[2:])


def is_sparse_pair(y: tf.Tensor, prediction: tf.Tensor) -> bool:
    """Whether targets are class numbers, one for each last axis of the predictions."""
    if len(y.shape) == len(prediction.shape) >= 3 and y.shape[-1] == 1:
        inner = y.shape[2:-1]
    elif len(y.shape) == len(prediction.shape) - 1 >= 2:
        inner = y.shape[2:]
    else:
        return False
    return inner.is_compatible_with(prediction.shape[2:-1])


def looks_at_last_axis(arguments: dict[str, Any]) -> bool:
    """Whether the arguments of one of Keras's functions leave it at one number a row.

    An axis counted from the front would be another one behind the members', and a class that is
    ignored takes rows out of the mean.
    """
    return arguments.get("axis", -1) == -1 and arguments.get("ignore_class") is None


def smoothing_kind(loss: Any) -> str | None:
    """Return how a loss smooths labels where members may differ in how much, else `None`."""
    loss = unwrapped_loss(loss)
    if type(loss) is SmoothedSparseCategoricalCrossentropy:
        loss = without_smoothing(loss)
    if not (is_plain_function_loss(loss) and loss.fn in ROW_FUNCTIONS):
        return None
    if smoothing_of(loss) is None:
        return None
    if loss.fn is losses.sparse_categorical_crossentropy:
        return "sparse" if looks_at_last_axis(loss_arguments(loss)) else None
    return "binary" if "binary" in loss.fn.__name__ else "categorical"


def given_losses(model: keras.Model) -> list[Any]:
    """Return the losses that a model was compiled with, in a fixed order."""
    return keras.tree.flatten(model.loss)


def label_smoothings_of(model: keras.Model) -> tuple[float, ...]:
    """Return the label smoothing of each given loss; 0 where members may not differ in it."""
    return tuple(
        float(smoothing_of(loss) or 0.0) if smoothing_kind(loss) is not None else 0.0
        for loss in given_losses(model)
    )
