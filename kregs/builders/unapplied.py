"""Fields of a `Regularization` that a built model cannot hold: `compile_model` applies them."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable
from typing import Any, TypeVar

import keras

from kregs.builders.layer_copies import sublayers
from kregs.regularization import COMPILE_FIELDS, Regularization

_ATTRIBUTE = "kregs_unapplied"
_Model = TypeVar("_Model", bound=keras.Model)


@dataclasses.dataclass(frozen=True)
class Unapplied:
    """What is still to be done where a model is compiled.

    Args:
        regularization: its fields that belong to the optimizer or the loss.
        weights: those that the optimizer's concern; `None`: all.
    """

    regularization: Regularization
    weights: tuple[Any, ...] | None = None


def mark_unapplied(
    model: _Model, regularization: Regularization, weights: Iterable[Any] | None = None
) -> _Model:
    """Let a model remember fields that are applied by `compile`, and refuse to go without.

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
    fields = compile_fields(regularization)
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


def check_applied(fields: Regularization, optimizer: Any, loss: Any) -> None:
    """Raise if an optimizer and a loss, or losses of several outputs, do not apply these fields.

    Example:

    >>> decayed = keras.optimizers.SGD(weight_decay=0.1)
    >>> check_applied(Regularization(weight_decay=0.1), decayed, "mse")
    """
    from kregs.training.label_smoothing import smoothing_of
    from kregs.training.proximal import is_proximal
    from kregs.training.stock_optimizers import unwrapped

    inner = unwrapped(optimizer)
    applied: dict[str, Any] = {"proximal_l1": 0.0, "group_l1": 0.0}
    if is_proximal(inner):
        applied = {"proximal_l1": inner.l1, "group_l1": inner.group_l1}
    # what else is more than the model was built with, is the affair of who compiles it
    if fields.weight_decay:
        applied["weight_decay"] = getattr(inner, "weight_decay", None) or 0.0
    smoothings = {smoothing_of(part) for part in keras.tree.flatten(loss)} - {None}
    if fields.label_smoothing and smoothings == {fields.label_smoothing}:
        applied["label_smoothing"] = fields.label_smoothing
    if Regularization(**applied) != fields:
        place = "loss" if fields == Regularization(label_smoothing=fields.label_smoothing) else ""
        place = place or ("optimizer and the loss" if fields.label_smoothing else "optimizer")
        raise ValueError(
            f"the model was built with {fields!r}, which belongs to the {place}: compile it by "
            "kregs.compile_model(model, ..., regularization=regularization), or with an optimizer "
            "(by kregs.proximal(...), with weight_decay) and a loss that have these numbers. "
            f"Received: optimizer={optimizer!r}, loss={loss!r}"
        )


def compile_fields(regularization: Regularization) -> Regularization:
    """Return the value with nothing but the fields that belong to the optimizer or the loss.

    Example:

    >>> compile_fields(Regularization(l2=0.1, group_l1=0.2))
    Regularization(group_l1=0.2)
    """
    return Regularization(**{name: getattr(regularization, name) for name in COMPILE_FIELDS})


def _compile(
    model: keras.Model, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
) -> None:
    """`compile` of a model whose optimizer or loss has to apply fields."""
    check_applied(getattr(model, _ATTRIBUTE).regularization, optimizer, loss)
    type(model).compile(model, optimizer, loss, *args, **kwargs)
