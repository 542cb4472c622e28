"""Class probabilities and class numbers from what classifiers put out and are trained on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from scipy.special import expit, softmax

from kregs.training.compilation import loss_object
from kregs.training.targets import BINARY, compiled_loss
from kregs.validation import check_flag, in_words

# float16 outputs of a thousand classes sum to 1 with this error
_TOLERANCE = 1e-2


def puts_out_logits(model: Any, from_logits: bool | None, output: str | None = None) -> bool:
    """Return `from_logits`, or where it is `None` what the loss of a compiled model says.

    Args:
        model: a Keras model, or `None`.
        from_logits: what the user says.
        output: the name of one output, of a model with several.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> puts_out_logits(model, None), puts_out_logits(model, False)
    (True, False)
    """
    if from_logits is not None:
        return check_flag("from_logits", from_logits)
    loss = loss_of_output(model, output)
    if not isinstance(loss, keras.losses.Loss):
        return False
    return bool(loss.get_config().get("from_logits", False))


def loss_of_output(model: Any, output: str | None = None) -> Any:
    """Return the loss of a model's one output or of a named one, `None` if it is not known.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")])
    >>> model.compile(loss={"head": "mse"})
    >>> type(loss_of_output(model, "head")).__name__
    'MeanSquaredError'
    """
    losses = getattr(model, "loss", None)
    names = list(getattr(model, "output_names", []))
    if output is None and len(names) == 1:
        output = names[0]
    if isinstance(losses, (list, tuple)) and len(losses) == len(names):
        losses = dict(zip(names, losses, strict=True))
    if isinstance(losses, dict):
        losses = losses.get(output)
        return None if losses is None else loss_object(losses)
    return compiled_loss(model)


def is_multi_label(model: Any, output: str | None = None) -> bool:
    """Whether each unit of an output stands for a class of its own, as its loss says.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "sigmoid")])
    >>> model.compile(loss="binary_crossentropy")
    >>> is_multi_label(model)
    True
    """
    if not isinstance(loss_of_output(model, output), BINARY):
        return False
    shape = model.output_shape
    if output is not None and isinstance(shape, (list, tuple)) and len(model.output_names) > 1:
        shape = dict(zip(model.output_names, shape, strict=True))[output]
    if isinstance(shape, dict):
        shape = shape[output]
    return shape[-1] != 1


def as_probabilities(name: str, outputs: Any, *, from_logits: bool) -> np.ndarray:
    """Return one probability a class, float64 `(..., classes)`.

    Args:
        name: what a message calls the outputs.
        outputs: of a softmax `(..., classes)`, of one sigmoid `(..., 1)`, or logits of these.
        from_logits: whether they are logits.

    Raises:
        ValueError: they are no probabilities.

    Example:

    >>> as_probabilities("outputs", np.array([[0.25]]), from_logits=False).tolist()
    [[0.75, 0.25]]
    """
    values = np.asarray(outputs, dtype="float64")
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity")
    binary = values.shape[-1] == 1
    if from_logits:
        values = expit(values) if binary else softmax(values, axis=-1)
    expected = (
        f"`{name}` must be probabilities: numbers in [0, 1], one of the second class or one a "
        "class that sum to 1 (from_logits=True if they are logits)"
    )
    if values.size and (values.min() < -_TOLERANCE or values.max() > 1 + _TOLERANCE):
        raise ValueError(f"{expected}. Received: numbers in [{values.min():g}, {values.max():g}]")
    values = values.clip(0.0, 1.0)
    if binary:
        return np.concatenate([1.0 - values, values], axis=-1)
    sums = values.sum(axis=-1, keepdims=True)
    if (abs(sums - 1.0) > _TOLERANCE).any():
        raise ValueError(f"{expected}. Received: sums in [{sums.min():g}, {sums.max():g}]")
    return values / sums


def class_labels(y: Any, shape: tuple[int, ...], *, name: str = "y") -> np.ndarray:
    """Return class numbers `shape[:-1]` of targets that are class numbers or one-hot.

    Args:
        y: class numbers `(...)` or `(..., 1)`, or one-hot `(..., classes)`.
        shape: of the probabilities, `(..., classes)`.
        name: what the messages call the targets.

    Raises:
        TypeError: the targets are no numbers.
        ValueError: another shape, or something else than a class.

    Example:

    >>> class_labels(np.eye(3)[[0, 2]], (2, 3)).tolist(), class_labels([[1.0]], (1, 2)).tolist()
    ([0, 2], [1])
    """
    labels, classes = np.asarray(y), shape[-1]
    if labels.dtype.kind not in "biuf":
        raise TypeError(
            f"`{name}` must be class numbers or one-hot rows. Received: {in_words(y)}, of dtype "
            f"{labels.dtype}"
        )
    if labels.shape == shape:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all()):
            raise ValueError(
                f"`{name}` must be class numbers or one-hot rows, a single 1 in each. "
                "Received: rows that are neither"
            )
        return labels.argmax(axis=-1)
    if labels.shape == (*shape[:-1], 1):
        labels = labels[..., 0]
    if labels.shape != shape[:-1]:
        raise ValueError(
            f"`{name}` must have shape {shape[:-1]}, class numbers, or {shape}, one-hot. "
            f"Received: shape {np.shape(y)}"
        )
    numbers = np.round(labels)
    if not ((numbers == labels) & (numbers >= 0) & (numbers < classes)).all():
        raise ValueError(
            f"`{name}` must hold class numbers from 0 to {classes - 1}. "
            f"Received: {labels.min()} to {labels.max()}"
        )
    return numbers.astype(int)
