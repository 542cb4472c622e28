"""`MixedLoss` and `AdversarialLoss`: losses that know what a layer did to the rows of the batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

# private, but what Keras itself makes of a function
from keras.src.losses.losses import LossFunctionWrapper

from kregs.builders.layer_copies import sublayers
from kregs.layers.adversarial import AdversarialInput
from kregs.layers.row_mix import RowMix


class WrappedLoss(keras.losses.Loss):
    """A loss that is another one while the model predicts, and in a file.

    Args:
        loss: a `keras.losses.Loss`, or a function of `(y_true, y_pred)`.

    Attributes:
        loss: as it was given.
        wrapped: the same as an object.
    """

    def __init__(self, loss: Any) -> None:
        if isinstance(loss, type) or not callable(loss):
            raise TypeError(
                "`loss` must be a keras.losses.Loss or a function of (y_true, y_pred). "
                f"Received: loss={loss!r} of type {type(loss).__name__}"
            )
        wrapped = loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss)
        super().__init__(name=wrapped.name, reduction=wrapped.reduction, dtype=wrapped.dtype)
        self.loss = loss
        self.wrapped: Any = wrapped

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes the loss itself of."""
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Return the loss itself."""
        return keras.saving.deserialize_keras_object(config["loss"])


@keras.saving.register_keras_serializable(package="kregs")
class MixedLoss(WrappedLoss):
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
        super().__init__(loss)
        if not isinstance(model, (keras.Model, RowMix)):
            raise TypeError(
                f"`model` must be a keras.Model or a kregs.layers.RowMix. Received: model={model!r}"
            )
        layer = model if isinstance(model, RowMix) else only_layer(model, RowMix)
        if layer is None:
            raise ValueError(
                "`model` must have a layer kregs.layers.RowMix. Received: a model without one"
            )
        self._batch = layer.batch
        self._batch.has_loss = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        own = self.wrapped.call(y_true, y_pred)
        partner, weight = self._batch.partner, self._batch.weight
        if not _is_of_this_step(partner):
            return own
        other = self.wrapped.call(ops.take(y_true, partner, axis=0), y_pred)
        weight = ops.cast(weight, own.dtype)
        return weight * own + (1 - weight) * other


@keras.saving.register_keras_serializable(package="kregs")
class AdversarialLoss(WrappedLoss):
    """A loss of a model's rows and of adversarial ones, see `kregs.layers.AdversarialInput`.

    While training it is `(1 - share) * loss(rows) + share * loss(adversarial rows)`, for which it
    runs the model two more times; else it is the loss itself. In a file it is that, too.

    Args:
        loss: a `keras.losses.Loss`, or a function of `(y_true, y_pred)`.
        model: whose first layer is a `kregs.layers.AdversarialInput`, and no other.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the first layer is another one, or there are several inputs.

    Example:

    >>> import keras
    >>> from kregs import AdversarialLoss
    >>> from kregs.layers import AdversarialInput
    >>> model = keras.Sequential([keras.Input((4,)), AdversarialInput(), keras.layers.Dense(1)])
    >>> model.compile("adam", AdversarialLoss(keras.losses.MeanSquaredError(), model))

    References:
        Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", 2015
        (section 6: the objective).
    """

    def __init__(self, loss: keras.losses.Loss | Callable, model: keras.Model) -> None:
        super().__init__(loss)
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
        layer = only_layer(model, AdversarialInput)
        inputs = getattr(model, "inputs", None) or []
        is_first = len(inputs) == len(getattr(model, "outputs", None) or []) == 1 and any(
            layer is each and each.input is inputs[0] for each in model.layers
        )
        if layer is None or not is_first:
            raise ValueError(
                "`model` must have one input, one output, and a kregs.layers.AdversarialInput as "
                f"its first layer. Received: model {model.name!r}"
            )
        self._layer = layer
        self._model = weakref.ref(model)  # which has this loss
        layer.batch.has_loss = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        own = self.wrapped.call(y_true, y_pred)
        batch, epsilon, share = self._layer.batch, self._layer.epsilon, self._layer.share
        model, rows = self._model(), batch.inputs
        if model is None or not (epsilon and share and _is_of_this_step(rows)):
            return own
        batch.is_noted = True
        try:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(rows)
                losses = self.wrapped.call(y_true, ops.cast(model(rows, training=True), own.dtype))
            sign = ops.sign(tape.gradient(losses, rows))
            moved = ops.stop_gradient(rows + ops.cast(epsilon, rows.dtype) * sign)
            prediction = ops.cast(model(moved, training=True), own.dtype)
            return (1 - share) * own + share * self.wrapped.call(y_true, prediction)
        finally:
            batch.is_noted = False


def _is_of_this_step(tensor: Any) -> bool:
    """Whether a tensor that a layer has noted is of the step that is run or traced right now."""
    if tensor is None:
        return False
    if tf.executing_eagerly():
        return not tf.is_symbolic_tensor(tensor)
    return tf.is_symbolic_tensor(tensor) and tensor.graph is tf.compat.v1.get_default_graph()


def only_layer(model: keras.Model, kind: type[keras.layers.Layer]) -> Any:
    """Return the layer of a kind that a model has, `None` if it has none.

    Raises:
        ValueError: it has several.

    Example:

    >>> only_layer(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), RowMix) is None
    True
    """
    layers = {id(layer): layer for layer in sublayers(model) if isinstance(layer, kind)}
    if len(layers) > 1:
        names = ", ".join(layer.name for layer in layers.values())
        raise ValueError(f"`model` must have one layer {kind.__name__}. Received: {names}")
    return next(iter(layers.values()), None)


def wrapped_for(model: keras.Model, loss: Any) -> Any:
    """Return a loss as a model needs it that mixes its rows or makes adversarial ones.

    Raises:
        ValueError: it does both.

    Example:

    >>> wrapped_for(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), "mse")
    'mse'
    """
    mix: Any = only_layer(model, RowMix)
    adversarial: Any = only_layer(model, AdversarialInput)
    mixes = mix is not None and bool(mix.mixup or mix.cutmix)
    if mixes and adversarial is not None:
        raise ValueError(
            "`model` must either mix rows or make adversarial ones. Received: a model with "
            f"{mix.name!r} and {adversarial.name!r}"
        )
    if mixes:
        return MixedLoss(loss, mix)
    return loss if adversarial is None else AdversarialLoss(loss, model)


def unwrapped_loss(loss: Any) -> Any:
    """Return the loss that a `MixedLoss` or `AdversarialLoss` is of; any other as it is.

    Example:

    >>> unwrapped_loss("mse")
    'mse'
    """
    return loss.loss if isinstance(loss, WrappedLoss) else loss
