"""Fields of a `Regularization` that a built model cannot hold: `compile_model` applies them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Any, TypeVar

import keras

from kregs.builders.layer_copies import sublayers
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


def unapplied_within(model: keras.Model) -> Unapplied | None:
    """Return what is left for the optimizer by a model, or by the models that it is made of.

    Raises:
        ValueError: two of these were built with different fields.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model = mark_unapplied(model, Regularization(proximal_l1=0.1))
    >>> unapplied_within(keras.Sequential([keras.Input((2,)), model])).regularization
    Regularization(proximal_l1=0.1)
    """
    own = unapplied(model)
    if own is not None:
        return own
    inner = {
        layer: left
        for layer in sublayers(model)
        if layer.trainable_weights and (left := unapplied(layer)) is not None
    }
    if not inner:
        return None
    fields = {left.regularization for left in inner.values()}
    if len(fields) > 1:
        raise ValueError(
            "`model` must be made of models that were built with the same fields for the "
            f"optimizer. Received: {', '.join(sorted(map(repr, fields)))}"
        )
    chosen = None
    if any(left.weights is not None for left in inner.values()):
        left_out = {
            id(weight)
            for layer, left in inner.items()
            if left.weights is not None
            for weight in layer.weights
            if all(weight is not other for other in left.weights)
        }
        chosen = tuple(weight for weight in model.weights if id(weight) not in left_out)
    return Unapplied(fields.pop(), chosen)


def check_applied(fields: Regularization, optimizer: Any) -> None:
    """Raise if an optimizer does not apply these fields.

    Example:

    >>> check_applied(Regularization(), "adam")
    """
    from kregs.training.proximal import is_proximal

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


def optimizer_fields(regularization: Regularization) -> Regularization:
    """Return the value with nothing but the fields that belong to the optimizer.

    Example:

    >>> optimizer_fields(Regularization(l2=0.1, group_l1=0.2))
    Regularization(group_l1=0.2)
    """
    return Regularization(**{name: getattr(regularization, name) for name in OPTIMIZER_FIELDS})


def _compile(model: keras.Model, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
    """`compile` of a model whose optimizer has to apply fields."""
    check_applied(getattr(model, _ATTRIBUTE).regularization, optimizer)
    type(model).compile(model, optimizer, *args, **kwargs)
