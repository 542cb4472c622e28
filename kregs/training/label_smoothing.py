"""Label smoothing of losses: which know it, with how much, and one for class numbers."""

from __future__ import annotations

import functools
from typing import Any

import keras

# private, but Keras's loss classes are made of it, and tell no other way what they were made with
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.losses.losses import SparseCategoricalCrossentropy as _Sparse

from kregs.training.wrapped_loss import unwrapped_loss
from kregs.validation import check_number


@keras.saving.register_keras_serializable(package="kregs")
def smoothed_sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    label_smoothing: float = 0.0,
) -> Any:
    """Return the crossentropy of class numbers that are smoothed, as the class below does.

    Example:

    >>> import numpy as np
    >>> y, p = np.array([1]), np.array([[0.2, 0.8]])
    >>> value = smoothed_sparse_categorical_crossentropy(y, p, label_smoothing=0.5)
    >>> bool(np.isclose(value, -0.75 * np.log(0.8) - 0.25 * np.log(0.2), rtol=1e-5).all())
    True
    """
    hard = keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits, ignore_class, axis
    )
    return hard * (1.0 - label_smoothing) + label_smoothing * uniform_crossentropy(
        y_pred, from_logits, axis
    )


def uniform_crossentropy(y_pred: Any, from_logits: bool, axis: int = -1) -> Any:
    """Return the crossentropy of a target that gives every class the same share.

    Example:

    >>> import numpy as np
    >>> bool(np.isclose(uniform_crossentropy(np.array([[0.5, 0.5]]), False), np.log(2)).all())
    True
    """
    classes = keras.ops.cast(keras.ops.shape(y_pred)[axis], y_pred.dtype)
    target = keras.ops.ones_like(y_pred) / classes
    return keras.losses.categorical_crossentropy(target, y_pred, from_logits, axis=axis)


@keras.saving.register_keras_serializable(package="kregs")
class SmoothedSparseCategoricalCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """The crossentropy of class numbers whose labels are smoothed, which Keras has not.

    It equals `keras.losses.CategoricalCrossentropy(label_smoothing=)` on one-hot labels: the class
    that is right gets `1 - label_smoothing + label_smoothing / classes`, each other one
    `label_smoothing / classes`.

    `kregs.compile_model(loss="sparse_categorical_crossentropy", label_smoothing=)` uses it, and
    takes the smoothing out of `data_loss`.

    Args:
        label_smoothing: in [0, 1).
        from_logits, reduction, axis, name, dtype: as of
            `keras.losses.SparseCategoricalCrossentropy`.
        ignore_class: must be `None`: a class that is ignored has no smoothed label.

    Raises:
        TypeError, ValueError: `label_smoothing` is no number in [0, 1), or a class is ignored.

    Example:

    >>> import keras, numpy as np
    >>> y, p = np.array([2, 0]), np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    >>> one_hot = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    >>> sparse = SmoothedSparseCategoricalCrossentropy(0.1)
    >>> bool(np.isclose(sparse(y, p), one_hot(np.eye(3)[y], p)))
    True

    References:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016
        (section 7).
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        label_smoothing = check_number("label_smoothing", label_smoothing, minimum=0.0, below=1.0)
        if ignore_class is not None:
            raise ValueError(
                "`ignore_class` must be None: label smoothing has no meaning for a class that is "
                f"ignored. Received: ignore_class={ignore_class!r}"
            )
        super().__init__(
            from_logits=from_logits, axis=axis, reduction=reduction, name=name, dtype=dtype
        )
        self.label_smoothing = label_smoothing
        self.fn = smoothed_sparse_categorical_crossentropy
        self._fn_kwargs: dict[str, Any] = {
            "from_logits": from_logits,
            "ignore_class": None,
            "axis": axis,
            "label_smoothing": label_smoothing,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def smoothing_of(loss: Any) -> float | None:
    """Return the `label_smoothing` that a loss was made with; `None`: it knows none.

    Example:

    >>> smoothing_of(keras.losses.BinaryCrossentropy(label_smoothing=0.1))
    0.1
    >>> smoothing_of(keras.losses.SparseCategoricalCrossentropy())
    0.0
    >>> smoothing_of(keras.losses.MeanSquaredError()) is None
    True
    """
    loss = unwrapped_loss(loss)
    if type(loss) is _Sparse:  # which `with_smoothing` can smooth
        return None if loss.ignore_class is not None else 0.0
    if isinstance(loss, LossFunctionWrapper):
        return loss._fn_kwargs.get("label_smoothing")
    if isinstance(loss, functools.partial):
        return loss.keywords.get("label_smoothing")
    if isinstance(loss, keras.losses.Loss):
        return loss.get_config().get("label_smoothing")
    return None


def without_smoothing(loss: Any) -> Any:
    """Return the same loss with `label_smoothing` 0; a loss without any as it is.

    Example:

    >>> loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    >>> without_smoothing(loss).get_config()["label_smoothing"], loss.label_smoothing
    (0.0, 0.1)
    >>> type(without_smoothing(SmoothedSparseCategoricalCrossentropy(0.1))).__name__
    'SparseCategoricalCrossentropy'
    """
    loss = unwrapped_loss(loss)
    if smoothing_of(loss) or type(loss) is SmoothedSparseCategoricalCrossentropy:
        return with_smoothing(loss, 0.0)
    return loss


def with_smoothing(loss: Any, label_smoothing: float) -> Any:
    """Return a copy of a loss that knows `label_smoothing`, with this one.

    Example:

    >>> with_smoothing(keras.losses.BinaryCrossentropy(), 0.1).label_smoothing
    0.1
    """
    if type(loss) in (_Sparse, SmoothedSparseCategoricalCrossentropy):
        return _sparse(loss, label_smoothing)
    if isinstance(loss, functools.partial):
        keywords = {**loss.keywords, "label_smoothing": label_smoothing}
        return functools.partial(loss.func, *loss.args, **keywords)
    if isinstance(loss, LossFunctionWrapper):
        copy = copied(loss)
        copy._fn_kwargs = {**loss._fn_kwargs, "label_smoothing": label_smoothing}
        copy.label_smoothing = label_smoothing
        return copy
    copy = type(loss).from_config({**loss.get_config(), "label_smoothing": label_smoothing})
    return _of_type(copy, loss)


def _sparse(loss: Any, label_smoothing: float) -> Any:
    """Return the loss of class numbers: Keras's own without smoothing, that of kregs with it."""
    config = {k: v for k, v in loss._fn_kwargs.items() if k != "label_smoothing"}
    config |= {"reduction": loss.reduction, "name": loss.name}
    if not label_smoothing:
        return _of_type(_Sparse(**config), loss)
    return _of_type(SmoothedSparseCategoricalCrossentropy(label_smoothing, **config), loss)


def _of_type(copy: Any, loss: Any) -> Any:
    copy._dtype_policy, copy._dtype = loss._dtype_policy, loss._dtype  # which no config has
    return copy


def copied(loss: keras.losses.Loss) -> Any:
    """Return a shallow copy of a loss."""
    copy = object.__new__(type(loss))  # copy.copy would go through a file: Keras's __reduce__
    copy.__dict__.update(loss.__dict__)
    return copy
