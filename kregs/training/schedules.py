"""`warmup_cosine`: a learning rate that rises linearly, then falls along a cosine."""

from __future__ import annotations

import keras

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
