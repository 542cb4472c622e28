"""Decoupled weight decay: which weights it is for, and how an optimizer object gets it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import keras

from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import settings_of, undecayed_of, unwrapped

# the variables that weight decay leaves alone: biases, what normalization and PReLU scale and shift
# by, embeddings. Keras matches its own names ("bias") and TensorFlow's ("model/dense/bias:0")
NOT_DECAYED = (
    r"(^|/)(\w*bias|gamma|beta|scale|concat_score_weight|alpha|phases|\w*embeddings)(:\d+)?$"
)


def leave_alone(
    optimizer: keras.optimizers.Optimizer, weights: Collection[Any] = ()
) -> keras.optimizers.Optimizer:
    """Let an optimizer decay kernels only, and of these not some; return it.

    Args:
        optimizer: not built.
        weights: further ones that are not decayed.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> optimizer = leave_alone(keras.optimizers.AdamW())
    >>> optimizer.build(model.trainable_variables)
    >>> [optimizer._use_weight_decay(weight) for weight in model.trainable_variables]
    [True, False]
    """
    optimizer.exclude_from_weight_decay(var_list=list(weights), var_names=[NOT_DECAYED])
    return optimizer


def with_weight_decay(
    optimizer: keras.optimizers.Optimizer, weight_decay: float, weights: Collection[Any] = ()
) -> keras.optimizers.Optimizer:
    """Return a copy of an optimizer without decay that has this one; one that has it as it is.

    Args:
        optimizer: stays as it is.
        weight_decay: above 0.
        weights: kernels that are not decayed, beside what the optimizer itself leaves out.

    Raises:
        ValueError: it has another decay, or cannot be copied.

    Example:

    >>> with_weight_decay(keras.optimizers.Adam(0.1), 0.01).weight_decay
    0.01
    """
    name = type(optimizer).__name__
    inner = unwrapped(optimizer)
    present = getattr(inner, "weight_decay", None)
    if present == weight_decay:
        return optimizer
    if present:
        raise ValueError(
            f"`optimizer` has a weight decay of its own, {present:g}, and "
            f"`regularization.weight_decay` is {weight_decay:g}. Give it once. "
            f"Received: optimizer={name}"
        )
    if inner is not optimizer or is_proximal(optimizer) or optimizer.built:
        raise ValueError(
            "`optimizer` must be a fresh optimizer of Keras to be given "
            f"`regularization.weight_decay`, {weight_decay:g}: else set weight_decay in it "
            f"yourself. Received: optimizer={name}"
        )
    config = {**settings_of(optimizer), "weight_decay": weight_decay}
    copy: Any = leave_alone(type(optimizer).from_config(config), weights)
    undecayed = undecayed_of(optimizer)
    copy._exclude_from_weight_decay |= undecayed["_exclude_from_weight_decay"]
    pattern = undecayed["_exclude_from_weight_decay_pattern"]
    if pattern is not None:
        copy._exclude_from_weight_decay_pattern = re.compile(f"{pattern.pattern}|{NOT_DECAYED}")
    return copy
