"""`DropBlock2D`: dropout of contiguous squares of a feature map."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.layers.seeded import SeededLayer
from kregs.validation import check_integer, check_number


@keras.saving.register_keras_serializable(package="kregs")
class DropBlock2D(SeededLayer):
    """Drops squares of each feature map while training.

    Neighbouring activations are correlated, so that dropping single ones removes little
    information; a square removes all of it from one place. As in the paper each channel has its
    own squares, all squares lie inside the map, and what is left is scaled so that the mean over
    the batch is kept.

    Args:
        rate: share of the activations to drop, in [0, 1). As in the paper it is what squares that
            do not overlap would drop: 0.3 drops about 0.26, in squares of 3 on a map of 12.
        block_size: side of the squares, in pixels; cut down to the map's side where that is
            less. 1 is dropout of single activations.
        seed: integer, or `None` for random.

    Call arguments:
        inputs: floats of shape `(batch, height, width, channels)`.
        training: whether to drop; without it the layer returns its input.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong, or the height or width is not known; the
            message says which.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import DropBlock2D
    >>> layer = DropBlock2D(0.2, block_size=2, seed=0)
    >>> layer(np.ones((1, 8, 8, 3), "float32"), training=True).shape
    TensorShape([1, 8, 8, 3])

    References:
        Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks", 2018.
    """

    def __init__(
        self, rate: float, *, block_size: int = 7, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.rate = check_number("rate", rate, minimum=0.0, below=1.0)
        self.block_size = check_integer("block_size", block_size, minimum=1)

    def build(self, input_shape: tuple) -> None:
        """Check that the height, the width and the channels are known: there are no weights."""
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "`DropBlock2D` needs (batch, height, width, channels), all but the batch known. "
                f"Received: input of shape {tuple(input_shape)}"
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs with squares of 0 while training, of the same shape."""
        if not training or self.rate == 0.0:
            return inputs
        _, height, width, channels = inputs.shape
        side = min(self.block_size, height, width)
        corners = (ops.shape(inputs)[0], height - side + 1, width - side + 1, channels)
        # paper, equation 1: every corner drops side² activations
        probability = self.rate * height * width / (side**2 * corners[1] * corners[2])
        # float32: a float16 count of kept activations would overflow
        draw = keras.random.uniform(corners, dtype="float32", seed=self.seed_generator)
        corner = ops.cast(draw < probability, "float32")
        border = (side - 1, side - 1)
        corner = ops.pad(corner, ((0, 0), border, border, (0, 0)))
        dropped = ops.max_pool(
            corner, side, strides=1, padding="valid", data_format="channels_last"
        )
        keep = 1.0 - dropped
        scale = 1.0 / ops.maximum(ops.mean(keep), keras.config.epsilon())
        return inputs * ops.cast(keep * scale, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "block_size": self.block_size,
        }
