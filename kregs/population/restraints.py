"""Regularizers and constraints as numbers of a member, where they are Keras's; else as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import constraints, regularizers

_REGULARIZERS = (regularizers.L1, regularizers.L2, regularizers.L1L2)
_CONSTRAINTS = (constraints.MaxNorm, constraints.NonNeg, constraints.UnitNorm)


def other_regularizer(regularizer: Any) -> Any:
    """Return a regularizer that is no L1, L2 or L1L2 of Keras's, which all members share."""
    return None if regularizer is None or type(regularizer) in _REGULARIZERS else regularizer


def other_constraint(constraint: Any) -> Any:
    """Return a constraint that is none of Keras's with a stacked form, which all members share."""
    return None if constraint is None or type(constraint) in _CONSTRAINTS else constraint


def penalty_coefficients(regularizer: Any) -> tuple[float, float]:
    """Return (l1, l2) of a Keras regularizer; `None` and other kinds are (0, 0).

    Example:

    >>> from keras import regularizers
    >>> penalty_coefficients(regularizers.L2(0.25))
    (0.0, 0.25)
    """
    if type(regularizer) not in _REGULARIZERS:
        return 0.0, 0.0
    # Keras casts a coefficient through float32, whatever the weights are
    l1, l2 = (float(np.float32(getattr(regularizer, name, 0.0))) for name in ("l1", "l2"))
    return l1, l2


def constraint_of(constraint: Any) -> tuple[str, tuple[int, ...], float] | None:
    """Return (kind, axes, bound) of a Keras constraint; `None` for none and for other kinds.

    Of kinds without a bound it is infinite.
    """
    if type(constraint) is constraints.MaxNorm:
        return "max_norm", _axes(constraint), float(constraint.max_value)
    if type(constraint) is constraints.NonNeg:
        return "non_negative", (), np.inf
    if type(constraint) is constraints.UnitNorm:
        return "unit_norm", _axes(constraint), np.inf
    return None


def _axes(constraint: Any) -> tuple[int, ...]:
    return tuple(np.atleast_1d(constraint.axis).tolist())


def by_member(function: Callable, value: tf.Tensor) -> tf.Tensor:
    """Call a function of one member's tensor for each member; it is traced once.

    Args:
        function: of a tensor; returns a tensor of its shape, or a number.
        value: `(K, ...)`.
    """
    return tf.map_fn(
        lambda part: tf.cast(tf.convert_to_tensor(function(part)), value.dtype),
        value,
        fn_output_signature=value.dtype,
        parallel_iterations=1,
    )
