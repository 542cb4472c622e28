"""`lookahead` and `decay_schedule`: what Keras's optimizers get in addition to their own step."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from kregs.layers.flat_cosine_dropout import flat_cosine
from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import optimizer_classes, settings_of, undecayed_of
from kregs.validation import check_integer, check_number, suggestion

# what an optimizer without them has; numbers of a member in a population
DEFAULTS: dict[str, float] = {
    "lookahead_steps": 1,
    "lookahead_alpha": 1.0,
    "decay_steps": 1,
    "decay_flat": 1.0,
}


def lookahead(
    optimizer: str | keras.optimizers.Optimizer, *, steps: int = 6, alpha: float = 0.6
) -> keras.optimizers.Optimizer:
    """Return an optimizer that looks ahead: every few steps it goes only part of the way.

    It keeps slow weights beside those of the model, which take the optimizer's own, fast, steps.
    After each `steps` of them the slow weights go the part `alpha` of the way to the fast ones, and
    the fast ones go on from there.

    Args:
        optimizer: a Keras optimizer by name, or one that has not trained yet.
        steps: fast steps between two slow ones (k of the paper), >= 1; 5 to 10 are usual.
        alpha: part of the way, in (0, 1]; 1 is the optimizer itself, which lets a search turn
            Lookahead off for members of a population that has it.

    Returns:
        A `keras.optimizers.Optimizer`. A file with it loads once `kregs.training` is imported.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of bounds, or the optimizer is unknown, has trained, is
            proximal, gathers gradients over steps, or looks ahead already.

    Example:

    >>> import keras, numpy as np
    >>> from kregs import lookahead
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(lookahead(keras.optimizers.SGD(0.5), steps=2, alpha=0.5), "mse")
    >>> model.set_weights([np.zeros((1, 1))])
    >>> history = model.fit(np.ones((2, 1)), np.ones(2), batch_size=1, verbose=0)
    >>> model.get_weights()[0].tolist()  # SGD went from 0 to 1 and stayed
    [[0.5]]

    References:
        Zhang, Lucas, Hinton, Ba, "Lookahead Optimizer: k steps forward, 1 step back", 2019
        (algorithm 1).
    """
    steps = check_integer("steps", steps, minimum=1)
    alpha = check_number("alpha", alpha, above=0.0, maximum=1.0)
    given = _known(optimizer)
    if getattr(given, "looks_ahead", False):
        raise ValueError("`optimizer` must not look ahead already. Received one that does")
    if given.gradient_accumulation_steps:
        raise ValueError(
            "`optimizer` must not gather gradients over steps, which Lookahead would count. "
            f"Received: gradient_accumulation_steps={given.gradient_accumulation_steps}"
        )
    return _extended(given, looks_ahead=True, lookahead_steps=steps, lookahead_alpha=alpha)


def decay_schedule(
    optimizer: str | keras.optimizers.Optimizer, *, steps: int, flat: float = 0.5
) -> keras.optimizers.Optimizer:
    """Return an optimizer whose weight decay is constant, then falls to 0 along a cosine.

    In step `t` it is the optimizer's `weight_decay` while `t / steps < flat`, then that times
    `(1 + cos(pi * (t / steps - flat) / (1 - flat))) / 2`, and 0 after `steps`.

    Args:
        optimizer: a Keras optimizer by name ("adamw"), or one that has not trained yet, with a
            `weight_decay`. `kregs.compile_model(regularization=)` gives it one, too.
        steps: number of optimizer steps (batches) of the whole training.
        flat: part of `steps` with the full decay, in [0, 1]; 1 never falls.

    Returns:
        A `keras.optimizers.Optimizer`. A file with it loads once `kregs.training` is imported.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of bounds, or the optimizer is unknown, has trained, is
            proximal or has such a schedule already.

    Example:

    >>> import keras, kregs
    >>> optimizer = kregs.decay_schedule(keras.optimizers.AdamW(weight_decay=0.02), steps=1000)
    >>> optimizer.weight_decay, optimizer.decay_steps
    (0.02, 1000)

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024 (`flat_cos` of weight decay).
    """
    steps = check_integer("steps", steps, minimum=1)
    flat = check_number("flat", flat, minimum=0.0, maximum=1.0)
    given = _known(optimizer)
    if is_extended(given) and given.decay_flat < 1.0:
        raise ValueError(
            "`optimizer` must have no schedule of its decay yet. Received one that has"
        )
    return _extended(given, decay_steps=steps, decay_flat=flat)


def is_extended(optimizer: Any) -> bool:
    """Return whether an optimizer was made by `lookahead` or `decay_schedule`.

    Example:

    >>> is_extended(lookahead("adam")), is_extended(keras.optimizers.Adam())
    (True, False)
    """
    return isinstance(optimizer, ExtendedOptimizer)


@keras.saving.register_keras_serializable(package="kregs")
class ExtendedOptimizer(keras.optimizers.Optimizer):
    """What an optimizer class gets in addition: slow weights, and a schedule of its decay.

    Classes of it are made by `lookahead` and `decay_schedule`.
    """

    stock: type[keras.optimizers.Optimizer]  # the class without it
    looks_ahead: bool = False
    lookahead_steps: int = 1
    lookahead_alpha: float = 1.0
    decay_steps: int = 1
    decay_flat: float = 1.0
    weight_decay: Any

    def build(self, variables: Any) -> None:
        """Make the slow weights, which begin as the weights are before the first step."""
        if self.built:
            return
        super().build(variables)
        if self.looks_ahead:
            self._slow = [
                self.add_variable_from_reference(variable, name="slow") for variable in variables
            ]

    def _backend_apply_gradients(self, grads: Any, trainable_variables: Any) -> None:
        if not self.looks_ahead:
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        pairs = [(v, self._slow[self._get_variable_index(v)]) for v in trainable_variables]
        is_first = ops.equal(self.iterations, 0)
        for variable, slow in pairs:
            slow.assign(ops.where(is_first, variable, slow))
        super()._backend_apply_gradients(grads, trainable_variables)
        is_slow = ops.equal((self.iterations + 1) % self.lookahead_steps, 0)
        for variable, slow in pairs:
            alpha = ops.cast(self.lookahead_alpha, variable.dtype)
            ahead = slow + alpha * (variable - slow)
            variable.assign(ops.where(is_slow, ahead, variable))
            slow.assign(ops.where(is_slow, ahead, slow))

    def _apply_weight_decay(self, variables: Any) -> None:
        decay = self.weight_decay
        if decay is None or self.decay_flat >= 1.0:
            super()._apply_weight_decay(variables)
            return
        if isinstance(decay, (int, float)):
            decay = float(np.float32(decay))  # as Keras casts it
        part = ops.cast(self.iterations, keras.config.floatx()) / self.decay_steps
        factor = flat_cosine(part, self.decay_flat)
        self.weight_decay, kept = decay * ops.cast(factor, keras.config.floatx()), self.weight_decay
        try:
            super()._apply_weight_decay(variables)
        finally:
            self.weight_decay = kept

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the class without it, its name, and what it gets in addition."""
        return {
            **super().get_config(),
            "stock": self.stock.__name__,
            "looks_ahead": self.looks_ahead,
            **{name: getattr(self, name) for name in DEFAULTS},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Make the optimizer again."""
        added = {name: config[name] for name in ("looks_ahead", *DEFAULTS)}
        arguments = {k: v for k, v in config.items() if k not in (*added, "stock")}
        plain = optimizer_classes()[config["stock"].lower()].from_config(arguments)
        return _extended(plain, **added)


def _known(optimizer: Any) -> Any:
    """Return the fresh optimizer that is meant, or raise."""
    known = optimizer_classes()
    listed = f"one of {', '.join(sorted(kind.__name__ for kind in known.values()))}"
    if isinstance(optimizer, str):
        if optimizer.lower() not in known:
            raise ValueError(
                f"`optimizer` must be {listed}. Received: optimizer={optimizer!r}."
                f"{suggestion(optimizer.lower(), known)}"
            )
        return known[optimizer.lower()]()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"`optimizer` must be a name or a keras.optimizers.Optimizer, {listed}. "
            f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}"
        )
    kind = optimizer.stock if is_extended(optimizer) else type(optimizer)
    if is_proximal(optimizer) or kind not in known.values():
        raise ValueError(f"`optimizer` must be {listed}. Received: optimizer={optimizer!r}")
    if optimizer.built:
        raise ValueError(
            "`optimizer` must be a fresh one, which has not trained yet. "
            f"Received: {type(optimizer).__name__}, which is built for a model"
        )
    return optimizer


def _extended(optimizer: Any, *, looks_ahead: bool | None = None, **numbers: float) -> Any:
    """Return a copy of an optimizer with what is added to it."""
    stock = optimizer.stock if is_extended(optimizer) else type(optimizer)
    if looks_ahead is None:
        looks_ahead = getattr(optimizer, "looks_ahead", False)
    config = settings_of(optimizer)
    kept = {name: getattr(optimizer, name, DEFAULTS[name]) for name in DEFAULTS}
    arguments = {k: v for k, v in config.items() if k not in ("stock", "looks_ahead", *DEFAULTS)}
    kind: Any = _class(stock, looks_ahead)  # type: ignore[arg-type]
    result = kind(**arguments)
    for name, value in {**undecayed_of(optimizer), **kept, **numbers}.items():
        setattr(result, name, value)
    return result


@functools.cache
def _class(stock: type[keras.optimizers.Optimizer], looks_ahead: bool) -> type:
    """Return a Keras optimizer class with what is added to it."""
    # with a schedule alone it is stacked with optimizers that have none
    name = f"Lookahead{stock.__name__}" if looks_ahead else stock.__name__
    attributes = {"stock": stock, "looks_ahead": looks_ahead, "__module__": "keras.optimizers"}
    kind = type(name, (ExtendedOptimizer, stock), attributes)
    # all are written into files as one class, whose `from_config` finds the right one
    keras.saving.register_keras_serializable("kregs", ExtendedOptimizer.__name__)(kind)
    return kind
