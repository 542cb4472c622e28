"""The losses that an ensemble knows the mean of: `compile` of its model refuses Keras's others."""

from __future__ import annotations

import types
from typing import Any, TypeVar

import keras

_Model = TypeVar("_Model", bound=keras.Model)

# of each activation of `EnsembleAverage`: the loss of the members' mean and what it adds make the
# mean of these
_LOSSES: dict[str | None, tuple[type, ...]] = {
    "softmax": (
        keras.losses.CategoricalCrossentropy,
        keras.losses.SparseCategoricalCrossentropy,
        keras.losses.KLDivergence,
    ),
    "sigmoid": (keras.losses.BinaryCrossentropy,),
    None: (keras.losses.MeanSquaredError,),
}


def refuse_other_losses(model: _Model, activation: str | None) -> _Model:
    """Let a model refuse to be compiled with a loss of Keras's that does not go with its head.

    A loss of one's own is let through.

    Args:
        model: an ensemble, which ends in `kregs.layers.EnsembleAverage`; returned.
        activation: that layer's.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> refuse_other_losses(model, None).compile(loss="mae")
    Traceback (most recent call last):
        ...
    ValueError: `loss` of an ensemble with head_activation=None must be MeanSquaredError with a \
mean over rows: the mean of other losses over members is not known. Received: loss='mae'
    """
    compile_before = model.compile  # of the class, or of fields for the optimizer

    def compile_checked(self: Any, *args: Any, **kwargs: Any) -> None:
        loss = kwargs.get("loss", args[1] if len(args) > 1 else None)
        if loss is not None and not _fits(loss, activation):
            names = ", ".join(kind.__name__ for kind in _LOSSES[activation])
            raise ValueError(
                f"`loss` of an ensemble with head_activation={activation!r} must be {names} with "
                "a mean over rows: the mean of other losses over members is not known. "
                f"Received: loss={loss!r}"
            )
        compile_before(*args, **kwargs)

    model.compile = types.MethodType(compile_checked, model)
    return model


def _fits(loss: Any, activation: str | None) -> bool:
    from kregs.training.compilation import loss_object

    resolved = loss_object(loss)
    is_mean = getattr(resolved, "reduction", "mean") in ("sum_over_batch_size", "mean")
    of_keras = type(resolved).__module__.startswith("keras.")
    return is_mean and (not of_keras or isinstance(resolved, _LOSSES[activation]))
