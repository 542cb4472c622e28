"""Fields of a `Regularization` that a built model cannot hold: `compile_model` applies them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Any, TypeVar

import keras

from kregs.regularization import OPTIMIZER_FIELDS, Regularization

_ATTRIBUTE = "kregs_unapplied"
_Model = TypeVar("_Model", bound=keras.Model)


@dataclasses.dataclass(frozen=True)
class Unapplied:
    """What the optimizer of a model is still to do.

    Args:
        regularization: its fields that belong to the optimizer.
        weights: those that it concerns; `None`: all.
    """

    regularization: Regularization
    weights: tuple[Any, ...] | None = None


def mark_unapplied(
    model: _Model, regularization: Regularization, weights: Iterable[Any] | None = None
) -> _Model:
    """Let a model remember fields that belong to the optimizer, and refuse any other optimizer.

    Args:
        model: what a builder made; returned.
        regularization: the builder's.
        weights: those that the fields concern; `None`: all.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> marked = mark_unapplied(model, Regularization(proximal_l1=0.1))
    >>> unapplied(marked).regularization
    Regularization(proximal_l1=0.1)
    """
    fields = optimizer_fields(regularization)
    if fields != Regularization():
        chosen = None if weights is None else tuple(weights)
        setattr(model, _ATTRIBUTE, Unapplied(fields, chosen))
        model.compile = types.MethodType(_compile, model)
    return model


def unapplied(model: keras.Model) -> Unapplied | None:
    """Return what `mark_unapplied` has left, or `None`.

    Example:

    >>> unapplied(keras.Sequential()) is None
    True
    """
    return getattr(model, _ATTRIBUTE, None)


def optimizer_fields(regularization: Regularization) -> Regularization:
    """Return the value with nothing but the fields that belong to the optimizer.

    Example:

    >>> optimizer_fields(Regularization(l2=0.1, group_l1=0.2))
    Regularization(group_l1=0.2)
    """
    return Regularization(**{name: getattr(regularization, name) for name in OPTIMIZER_FIELDS})


def _compile(model: keras.Model, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
    """`compile` of a model whose optimizer has to apply fields."""
    from kregs.training.proximal import is_proximal

    fields = getattr(model, _ATTRIBUTE).regularization
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    applied = Regularization()
    if is_proximal(inner):
        applied = Regularization(proximal_l1=inner.l1, group_l1=inner.group_l1)
    if applied != fields:
        raise ValueError(
            f"the model was built with {fields!r}, which belongs to the optimizer: compile it by "
            "kregs.compile_model(model, ..., regularization=regularization) or with an optimizer "
            "by kregs.proximal(...) that has these numbers. "
            f"Received: optimizer={optimizer!r}"
        )
    type(model).compile(model, optimizer, *args, **kwargs)
