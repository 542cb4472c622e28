"""`SeededLayer`: the seed of layers that draw."""

from __future__ import annotations

from typing import Any

import keras

from kregs.validation import check_seed


class SeededLayer(keras.layers.Layer):
    """The base of layers that draw while training, and keep the shape of their input.

    Args:
        seed: integer, or `None` for random.
    """

    def __init__(self, *, seed: int | None = None, **kwargs: Any) -> None:
        if seed is not None:
            seed = check_seed("seed", seed)
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "seed": self.seed}
