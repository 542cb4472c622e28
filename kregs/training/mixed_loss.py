"""`MixedLoss`: the loss of a model whose rows are mixed, which mixes their labels alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

# private, but what Keras itself makes of a function
from keras.src.losses.losses import LossFunctionWrapper

from kregs.builders.layer_copies import sublayers
from kregs.layers.row_mix import RowMix


def row_mix_of(model: keras.Model) -> RowMix | None:
    """Return the layer of a model that mixes rows, `None` if it has none.

    Raises:
        ValueError: it has several.

    Example:

    >>> row_mix_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) is None
    True
    """
    layers = {id(layer): layer for layer in sublayers(model) if isinstance(layer, RowMix)}
    if len(layers) > 1:
        names = ", ".join(layer.name for layer in layers.values())
        raise ValueError(f"`model` must have one layer that mixes rows. Received: {names}")
    return next(iter(layers.values()), None)


@keras.saving.register_keras_serializable(package="kregs")
class MixedLoss(keras.losses.Loss):
    """A loss that mixes labels as the model's `kregs.layers.RowMix` has mixed the rows.

    Of each row it is `w * loss(label) + (1 - w) * loss(label of the partner)`, while training; else
    it is the loss itself. In a file it is the loss itself, too.

    Args:
        loss: a `keras.losses.Loss`, or a function of `(y_true, y_pred)`, of the rows one by one.
        model: with the layer, or the layer.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the model has no such layer, or several.

    Example:

    >>> import keras
    >>> from kregs import MixedLoss
    >>> from kregs.layers import RowMix
    >>> layers = [keras.Input((4,)), RowMix(cutmix=0.5), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> model.compile("adam", MixedLoss(keras.losses.MeanSquaredError(), model))

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018 (its code mixes losses).
    """

    def __init__(self, loss: keras.losses.Loss | Callable, model: keras.Model | RowMix) -> None:
        if isinstance(loss, type) or not callable(loss):
            raise TypeError(
                "`loss` must be a keras.losses.Loss or a function of (y_true, y_pred). "
                f"Received: loss={loss!r} of type {type(loss).__name__}"
            )
        if not isinstance(model, (keras.Model, RowMix)):
            raise TypeError(
                f"`model` must be a keras.Model or a kregs.layers.RowMix. Received: model={model!r}"
            )
        layer = model if isinstance(model, RowMix) else row_mix_of(model)
        if layer is None:
            raise ValueError(
                "`model` must have a layer kregs.layers.RowMix. Received: a model without one"
            )
        wrapped = loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss)
        super().__init__(name=wrapped.name, reduction=wrapped.reduction, dtype=wrapped.dtype)
        self.loss = loss
        self.wrapped: Any = wrapped
        self._batch = layer.batch
        self._batch.has_loss = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        own = self.wrapped.call(y_true, y_pred)
        partner, weight = self._batch.partner, self._batch.weight
        if partner is None:
            return own
        other = self.wrapped.call(ops.take(y_true, partner, axis=0), y_pred)
        weight = ops.cast(weight, own.dtype)
        return weight * own + (1 - weight) * other

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the loss itself of."""
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the loss itself."""
        return keras.saving.deserialize_keras_object(config["loss"])


def unmixed(loss: Any) -> Any:
    """Return the loss that a `MixedLoss` is of; any other as it is.

    Example:

    >>> unmixed("mse")
    'mse'
    """
    return loss.loss if isinstance(loss, MixedLoss) else loss
