"""Rules about what an optimizer makes of penalties, and about its weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import (
    SHIFTS,
    ModelView,
    Site,
    has_l1,
    has_l2,
    weight_penalties,
)
from kregs.population.keras_internals import decays_weight
from kregs.training.stock_optimizers import unwrapped

O = keras.optimizers  # noqa: E741

# those that divide each weight's gradient, that of the penalty included, by its own size
_ADAPTIVE = (
    O.Adam, O.Nadam, O.Adamax, O.RMSprop, O.Adagrad, O.Adadelta, O.Adafactor, O.Lamb, O.Lion,
)  # fmt: skip


def decayed(optimizer: Any, layer: Any) -> list[Any]:
    """Return the weights of a layer alone, without those within, that an optimizer decays.

    Example:

    >>> layer = keras.layers.Dense(1)
    >>> layer.build((None, 2))
    >>> [variable.name for variable in decayed(O.AdamW(), layer)]
    ['kernel', 'bias']
    """
    optimizer = unwrapped(optimizer)
    if not getattr(optimizer, "weight_decay", None):
        return []
    inner = {id(v) for part in layer._flatten_layers(include_self=False) for v in part.weights}
    one_cell = hasattr(layer, "cell")  # a recurrent layer's weights are its cell's
    return [
        variable
        for variable in layer.trainable_weights
        if (one_cell or id(variable) not in inner) and decays_weight(optimizer, variable)
    ]


def _with_l2(view: ModelView) -> Iterator[Site]:
    for site in view.sites:
        if any(map(has_l2, weight_penalties(site).values())):
            yield site


@rule(
    "KR020",
    "L2 and weight decay on the same weights",
    severities=["warning"],
    source="Loshchilov and Hutter 2019",
    fix="keep one of them: weight_decay with an adaptive optimizer",
)
def double_decay(view: ModelView) -> Iterator[Hit]:
    """Both pull the same weights to 0, so neither number is the λ that was meant, and a search over
    one of them is blurred by the other."""
    optimizer = view.training.optimizer
    for site in _with_l2(view):
        if any("bias" not in v.name for v in decayed(optimizer, site.layer)):
            name = type(unwrapped(optimizer)).__name__
            decay = float(unwrapped(optimizer).weight_decay)
            yield Hit(
                severity="warning",
                layers=[site.name],
                what=f"L2 on a kernel and weight_decay={decay:g} of {name}",
            )


@rule(
    "KR021",
    "L2 under an adaptive optimizer",
    severities=["info"],
    source="Loshchilov and Hutter 2019, section 2",
    fix="AdamW with weight_decay if decay is meant; kregs.compile_model(weight_decay=...) leaves "
    "biases out",
)
def adaptive_l2(view: ModelView) -> Iterator[Hit]:
    """Adam divides the penalty's gradient by the size of the weight's gradients: weights with large
    gradients are restrained less than the others, and λ depends on the learning rate. A valid
    penalty, tuned as any, but no weight decay."""
    optimizer = unwrapped(view.training.optimizer)
    if isinstance(optimizer, _ADAPTIVE) and not optimizer.weight_decay:
        for site in _with_l2(view):
            yield Hit(
                severity="info",
                layers=[site.name],
                what=f"L2 on a kernel under {type(optimizer).__name__}",
            )


@rule(
    "KR022",
    "Weight decay on biases and normalizations",
    severities=["info"],
    source="Goodfellow et al. 2016, section 7.1; He et al. 2019, section 3.1 (no bias decay)",
    fix="optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta']) before the first "
    "step; kregs.compile_model does it",
)
def decayed_shift(view: ModelView) -> Iterator[Hit]:
    """Keras's optimizers decay every weight unless told otherwise. Biases and the scales and shifts
    of normalizations do not overfit; pulled to 0 they only fit worse."""
    optimizer = view.training.optimizer
    for site in view.sites:
        if any(variable.name in SHIFTS for variable in decayed(optimizer, site.layer)):
            name = type(unwrapped(optimizer)).__name__
            yield Hit(
                severity="info",
                layers=[site.name],
                what=f"{name} decays biases, or scales and shifts of normalizations",
            )


@rule(
    "KR023",
    "L1 that never reaches zero",
    severities=["info"],
    source="Parikh and Boyd 2014, section 4.2 (proximal gradient); Keras: L1 is a term of the loss",
    fix="kregs.proximal(optimizer, l1=...) instead: a soft threshold after each update; or drop "
    "weights below a threshold afterwards",
)
def inexact_l1(view: ModelView) -> Iterator[Hit]:
    """The gradient of |w| is +λ or -λ, also close to 0: a step jumps over it, and the weights
    rattle about 0 at the size of learning rate x λ. They become small and never exactly 0, with any
    of Keras's optimizers."""
    optimizer = unwrapped(view.training.optimizer)
    under = "" if optimizer is None else f" under {type(optimizer).__name__}"
    for site in view.sites:
        if any(map(has_l1, weight_penalties(site).values())):
            yield Hit(severity="info", layers=[site.name], what=f"L1 on a kernel{under}")
