"""Initializers, regularizers and constraints of kregs's layers, by name, config or object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def initializer(name: str, value: Any) -> Any:
    """Return the Keras initializer of an argument, which may not be `None`.

    Example:

    >>> type(initializer("bias_initializer", "zeros")).__name__
    'Zeros'
    """
    resolved = _resolved(name, value, keras.initializers.get)
    if resolved is None:
        raise ValueError(f"`{name}` must be a Keras initializer or its name. Received: {value!r}")
    return resolved


def regularizer(name: str, value: Any) -> Any:
    """Return the Keras regularizer of an argument, or `None`.

    Example:

    >>> type(regularizer("kernel_regularizer", "l2")).__name__
    'L2'
    """
    return _resolved(name, value, keras.regularizers.get)


def constraint(name: str, value: Any) -> Any:
    """Return the Keras constraint of an argument, or `None`.

    Example:

    >>> type(constraint("kernel_constraint", "non_neg")).__name__
    'NonNeg'
    """
    return _resolved(name, value, keras.constraints.get)


def _resolved(name: str, value: Any, get: Callable[[Any], Any]) -> Any:
    """Return what Keras makes of a name, a config or an object; its message names no argument."""
    try:
        return get(value)
    except (ValueError, TypeError):
        kind = name.split("_")[-1]
        raise ValueError(
            f"`{name}` must be a Keras {kind} or its name. Received: {name}={value!r}"
        ) from None


def check_features(layer: str, input_shape: Any, *, rank: int = 2) -> int:
    """Return how many features an input of shape `(batch, ..., features)` has.

    Args:
        layer: class of the layer, for the message.
        input_shape: with the batch.
        rank: how many axes it must have.

    Raises:
        ValueError: the shape is of another rank, or the number is not known.

    Example:

    >>> check_features("Scale", (None, 3))
    3
    """
    if len(input_shape) != rank or input_shape[-1] is None:
        axes = {2: "(batch, features)", 3: "(batch, members, features)"}[rank]
        raise ValueError(
            f"`{layer}` needs an input of shape {axes} with a known number of features. "
            f"Received: input of shape {tuple(input_shape)}"
        )
    return int(input_shape[-1])
