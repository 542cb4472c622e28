"""`DataLoss`: the loss without penalties and label smoothing, measured as Keras measures `loss`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras

# private, but the very code that this metric has to mirror
from keras.src.losses.loss import unscale_loss_for_distribution
from keras.src.losses.losses import LossFunctionWrapper

from kregs.training.label_smoothing import copied, without_smoothing


@keras.saving.register_keras_serializable(package="kregs")
class DataLoss(keras.metrics.Metric):
    """The loss of the data alone: Keras's `loss` without penalties and without label smoothing.

    Keras adds every penalty (kernel, bias and activity regularizers) to `loss` and `val_loss`, and
    smooths the labels of both, so choosing a coefficient or the smoothing by `val_loss` favours 0.
    This metric calls the same loss, its `label_smoothing` set to 0, with its own reduction, sample
    weights and masks, and averages over batches as Keras's loss tracker does: weighted by the
    number of samples of the batch. Without smoothing it is `loss` minus `sum(model.losses)`. As
    Keras's `<output>_loss`, that of one of several outputs, it knows nothing of `loss_weights`.

    Label smoothing is an argument `label_smoothing` of a Keras loss, of a loss class of one's own
    whose `get_config()` has it, or of a `functools.partial`. What a function does within itself
    stays as it is.

    `kregs.compile_model` adds it to a model. To use it with `model.compile`, put it into
    `weighted_metrics`, where it sees sample and class weights.

    Args:
        loss: a `keras.losses.Loss`, or a function of `(y_true, y_pred)`.
        name: what the logs call it.
        dtype: dtype of the running sums; default: Keras's `floatx`.

    Raises:
        TypeError: `loss` is neither.

    Example:

    >>> import keras, numpy as np
    >>> metric = DataLoss(keras.losses.MeanSquaredError())
    >>> float(metric(np.array([[1.0], [3.0]]), np.array([[1.0], [1.0]])))
    2.0
    """

    _direction = "down"  # what keras.callbacks reads in mode="auto"

    def __init__(
        self,
        loss: keras.losses.Loss | Callable,
        name: str = "data_loss",
        dtype: Any = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"`name` must be a metric's name. Received: name={name!r}")
        super().__init__(name=name, dtype=dtype)
        if not callable(loss) or isinstance(loss, type):  # a keras.losses.Loss can be called
            raise TypeError(
                "`loss` must be a keras.losses.Loss or a function of (y_true, y_pred). "
                f"Received: loss={loss!r} of type {type(loss).__name__}"
            )
        self._argument = without_smoothing(loss)
        self._loss = (
            self._argument
            if isinstance(self._argument, keras.losses.Loss)
            else LossFunctionWrapper(self._argument)
        )
        self._stand_in_fn = _unreduced(self._argument)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    @property
    def loss(self) -> keras.losses.Loss | Callable:
        """What it measures: the constructor's argument, without label smoothing."""
        return self._argument

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add one batch: the loss's own value, weighted by the batch's number of samples."""
        value = unscale_loss_for_distribution(self._loss(y_true, y_pred, sample_weight))
        samples = keras.ops.cast(keras.ops.shape(y_pred)[0], self.dtype)
        self.total.assign_add(keras.ops.cast(value, self.dtype) * samples)
        self.count.assign_add(samples)

    def result(self) -> Any:
        """Return the mean over all samples seen since the last reset."""
        return keras.ops.divide_no_nan(self.total, self.count)

    def stand_in(self) -> keras.metrics.Metric:
        """Return the stock Keras metric that takes this one's place in a saved file.

        It is the mean of the loss per sample. It equals `DataLoss` unless there are sample
        weights (it divides by their sum, Keras's `loss` by the number of samples), the outputs
        carry a mask (it divides by all that is not masked, Keras batch by batch), or the loss
        reduces by `"sum"`.

        Example:

        >>> type(DataLoss(keras.losses.MeanSquaredError()).stand_in()).__name__
        'MeanMetricWrapper'
        """
        return keras.metrics.MeanMetricWrapper(self._stand_in_fn, name=self.name, dtype=self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self._argument),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DataLoss:
        """Rebuild the metric from `get_config()`."""
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@keras.saving.register_keras_serializable(package="kregs")
class TotalDataLoss(keras.metrics.Metric):
    """The weighted sum of the data losses of several outputs, `data_loss` in the logs.

    Keras gives a metric the targets of one output, so this one sees none: it adds up what the
    outputs' `DataLoss` have measured.

    Args:
        parts: a `DataLoss` of each output, and its `loss_weights`.
    """

    def __init__(self, parts: Iterable[tuple[DataLoss, float]]) -> None:
        super().__init__(name="total")
        pairs = tuple(parts)
        self._parts = lambda: pairs  # out of the reach of Keras, which would track them twice

    @property
    def parts(self) -> tuple[tuple[DataLoss, float], ...]:
        """What it adds up: the outputs' metrics with their weights."""
        return self._parts()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Do nothing: the outputs' metrics are updated by Keras."""

    def result(self) -> dict[str, Any]:
        """Return the sum under its name: Keras would put that of an output before it."""
        return {"data_loss": sum(weight * part.result() for part, weight in self.parts)}


def _unreduced(loss: keras.losses.Loss | Callable) -> Callable:
    """Return a copy of a loss object that gives one value per sample; a function as it is."""
    if not isinstance(loss, keras.losses.Loss):
        return loss
    copy = copied(loss)
    copy.reduction = "none"
    return copy
