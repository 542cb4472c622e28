"""Learning rates over a training: warm-up and cosine, flat then cosine, and coslog4.

Restarts are Keras's own `keras.optimizers.schedules.CosineDecayRestarts`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kregs.layers.flat_cosine_dropout import flat_cosine
from kregs.validation import check_integer, check_number


def warmup_cosine(
    learning_rate: float,
    *,
    steps: int,
    warmup: float = 0.1,
    final: float = 0.0,
) -> keras.optimizers.schedules.CosineDecay:
    """Return a schedule that rises linearly from 0 and falls along half a cosine.

    With `w = round(warmup * steps)`, step `t` has the rate `learning_rate * t / w` while `t < w`,
    then `learning_rate * (final + (1 - final) * (1 + cos(pi * (t - w) / (steps - w))) / 2)`, and
    `learning_rate * final` after `steps`.

    Args:
        learning_rate: the highest rate, > 0.
        steps: number of optimizer steps (batches) of the whole training, warm-up included.
        warmup: part of `steps` that is warm-up, in [0, 1).
        final: the last rate as a part of `learning_rate`, in [0, 1].

    Returns:
        A `keras.optimizers.schedules.CosineDecay`, for `kregs.compile_model(learning_rate=...)`.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of bounds.

    Example:

    >>> schedule = warmup_cosine(0.1, steps=100, warmup=0.1)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 55, 100)]
    [0.0, 0.05, 0.1, 0.05, 0.0]

    References:
        Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017;
        Goyal et al., "Accurate, Large Minibatch SGD", 2017 (warm-up).
    """
    learning_rate = check_number("learning_rate", learning_rate, above=0.0)
    steps = check_integer("steps", steps, minimum=1)
    warmup = check_number("warmup", warmup, minimum=0.0, below=1.0)
    final = check_number("final", final, minimum=0.0, maximum=1.0)
    warmup_steps = min(round(warmup * steps), steps - 1)
    if not warmup_steps:
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=final)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - warmup_steps,
        alpha=final,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )


class _ByPart(keras.optimizers.schedules.LearningRateSchedule):
    """A highest rate times a function of the part of the training that is over."""

    def __init__(self, learning_rate: float, *, steps: int) -> None:
        super().__init__()
        self.learning_rate = check_number("learning_rate", learning_rate, above=0.0)
        self.steps = check_integer("steps", steps, minimum=1)

    def part(self, step: Any) -> Any:
        """Return which part of `steps` is over, at most 1."""
        dtype = keras.config.floatx()
        return ops.minimum(ops.cast(step, dtype) / ops.cast(self.steps, dtype), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"learning_rate": self.learning_rate, "steps": self.steps}


@keras.saving.register_keras_serializable(package="kregs")
class FlatCosine(_ByPart):
    """A rate that is constant, then falls along half a cosine.

    Step `t` has the rate `learning_rate` while `t / steps < flat`, then `learning_rate *
    (final + (1 - final) * (1 + cos(pi * (t / steps - flat) / (1 - flat))) / 2)`, and
    `learning_rate * final` after `steps`.

    A saved file loads once `kregs.training` is imported.

    Args:
        learning_rate: the highest rate, > 0.
        steps: number of optimizer steps (batches) of the whole training.
        flat: part of `steps` with the highest rate, in [0, 1).
        final: the last rate as a part of `learning_rate`, in [0, 1].

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of bounds.

    Example:

    >>> schedule = FlatCosine(0.1, steps=100, flat=0.5)
    >>> [round(float(schedule(step)), 3) for step in (0, 50, 75, 100)]
    [0.1, 0.1, 0.05, 0.0]

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024 (`flat_cos`, of dropout and weight decay).
    """

    def __init__(
        self, learning_rate: float, *, steps: int, flat: float = 0.5, final: float = 0.0
    ) -> None:
        super().__init__(learning_rate, steps=steps)
        self.flat = check_number("flat", flat, minimum=0.0, below=1.0)
        self.final = check_number("final", final, minimum=0.0, maximum=1.0)

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        shape = flat_cosine(self.part(step), self.flat)
        return self.learning_rate * (self.final + (1.0 - self.final) * shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "flat": self.flat, "final": self.final}


@keras.saving.register_keras_serializable(package="kregs")
class CosLog4(_ByPart):
    """RealMLP's rate: four cosine waves, each nearly twice as long as the one before.

    Step `t` has the rate `learning_rate * (1 - cos(2 pi log2(1 + 15 t / steps))) / 2`: from 0 to
    `learning_rate` and back, four times, and 0 after `steps`.

    A saved file loads once `kregs.training` is imported.

    Args:
        learning_rate: the highest rate, > 0.
        steps: number of optimizer steps (batches) of the whole training.

    Raises:
        TypeError: an argument is no number.
        ValueError: an argument is out of bounds.

    Example:

    >>> schedule = CosLog4(0.1, steps=15)
    >>> [round(float(schedule(step)), 3) for step in (0, 1, 3, 7, 15)]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    >>> round(float(CosLog4(0.1, steps=1500)(41)), 3)
    0.1

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024 (`coslog4`).
    """

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step, counted from 0."""
        waves = ops.log2(1.0 + 15.0 * self.part(step))
        return self.learning_rate * 0.5 * (1.0 - ops.cos(2.0 * math.pi * waves))
