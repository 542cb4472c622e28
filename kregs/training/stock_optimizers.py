"""Keras's optimizers: which there are, what makes one again, and which one takes the steps."""

from __future__ import annotations

import functools
from typing import Any

import keras


@functools.cache
def optimizer_classes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Return Keras's optimizers by their names in lower case.

    Example:

    >>> optimizer_classes()["adamw"].__name__
    'AdamW'
    """
    # those that are no optimizer without another optimizer
    wrappers = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    return {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and name not in wrappers
    }


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer that takes the steps: that inside of one which scales the loss.

    The outer one has a learning rate and a decay of its own, which mean nothing.

    Example:

    >>> inner = keras.optimizers.SGD()
    >>> unwrapped(keras.optimizers.LossScaleOptimizer(inner)) is unwrapped(inner) is inner
    True
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def settings_of(optimizer: Any) -> dict[str, Any]:
    """Return the arguments that make an optimizer of the same class again.

    Example:

    >>> settings_of(keras.optimizers.SGD(momentum=0.5))["momentum"]
    0.5
    """
    config = optimizer.get_config()
    rate = optimizer._learning_rate
    if callable(rate) and not isinstance(rate, keras.Variable):  # a schedule: the user's own object
        config["learning_rate"] = rate
    return config


def undecayed_of(optimizer: Any) -> dict[str, Any]:
    """Return what `exclude_from_weight_decay` was told, which is in no config: by attribute.

    Example:

    >>> undecayed_of(keras.optimizers.AdamW())["_exclude_from_weight_decay"]
    set()
    """
    return {
        # Keras's sets remember their optimizer
        "_exclude_from_weight_decay": set(getattr(optimizer, "_exclude_from_weight_decay", ())),
        "_exclude_from_weight_decay_pattern": getattr(
            optimizer, "_exclude_from_weight_decay_pattern", None
        ),
    }
