"""`FlatCosineDropout`: dropout whose rate is constant, then falls to 0 along a cosine."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kregs.layers.seeded import SeededLayer
from kregs.validation import check_integer, check_number


def flat_cosine(part: Any, flat: Any) -> Any:
    """Return 1 while `part < flat`, then half a cosine that falls to 0 where `part` is 1.

    Args:
        part: of the training that is over, 0 at its beginning; a tensor.
        flat: in [0, 1], a number or a tensor of the same type; 1 never falls.

    Example:

    >>> parts = ops.convert_to_tensor([0.2, 0.75, 1.0])
    >>> flat_cosine(parts, 0.5).numpy().round(3).tolist()
    [1.0, 0.5, 0.0]
    """
    flat = ops.convert_to_tensor(flat, dtype=part.dtype)
    falling = ops.clip((part - flat) / ops.maximum(1.0 - flat, 1e-12), 0.0, 1.0)
    return 0.5 * (1.0 + ops.cos(math.pi * ops.where(flat < 1.0, falling, ops.zeros_like(falling))))


@keras.saving.register_keras_serializable(package="kregs")
class FlatCosineDropout(SeededLayer):
    """Dropout whose rate is constant for a part of the training, then falls to 0 along a cosine.

    The rate of Keras's `Dropout` is baked into the compiled step. This layer counts its training
    steps in a weight that is not trained, so that it needs no callback, and that a training which
    is continued, or a saved model, goes on where it was. Under `kregs.layers.AdversarialInput` a
    batch counts as three steps, since it goes through the model three times. A saved file loads
    once `kregs.layers` is imported.

    Args:
        rate: share of the inputs to drop in the beginning, in [0, 1).
        steps: number of training steps (batches) until the rate is 0.
        flat: part of `steps` with the full rate, in [0, 1]; 1 is ordinary dropout.
        seed: integer, or `None` for random.

    Call arguments:
        inputs: floats of any shape.
        training: whether to drop, and to count a step; without it the layer returns its input.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import FlatCosineDropout
    >>> layer = FlatCosineDropout(0.5, steps=2, flat=0.5, seed=0)
    >>> [bool((layer(np.ones((1, 99)), training=True) == 0).numpy().any()) for _ in range(3)]
    [True, True, False]

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024 (`flat_cos`); Srivastava et al., "Dropout", JMLR 15, 2014.
    """

    def __init__(
        self,
        rate: float,
        *,
        steps: int,
        flat: float = 0.5,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.rate = check_number("rate", rate, minimum=0.0, below=1.0)
        self.steps = check_integer("steps", steps, minimum=1)
        self.flat = check_number("flat", flat, minimum=0.0, maximum=1.0)
        self.supports_masking = True

    def build(self, input_shape: tuple) -> None:
        """Make the counter of steps."""
        self.step = self.add_weight(
            name="step", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs with some of them 0 and the others scaled up, while training."""
        if not training:
            return inputs
        part = ops.cast(self.step, "float32") / self.steps
        rate = self.rate * flat_cosine(part, self.flat)
        draw = keras.random.uniform(ops.shape(inputs), dtype="float32", seed=self.seed_generator)
        self.step.assign(self.step + 1)
        scaled = inputs / ops.cast(1.0 - rate, inputs.dtype)
        return ops.where(draw >= rate, scaled, ops.zeros_like(scaled))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "steps": self.steps,
            "flat": self.flat,
        }
