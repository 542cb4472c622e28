"""`Columns`: some neighbouring columns of a table."""

from __future__ import annotations

from typing import Any

import keras

from kregs.layers.resolving import check_features
from kregs.validation import check_integer


@keras.saving.register_keras_serializable(package="kregs")
class Columns(keras.layers.Layer):
    """Takes the columns from `start` to `stop`, the latter not included.

    Args:
        start: the first column, >= 0.
        stop: the one after the last, > `start`.

    Call arguments:
        inputs: of shape `(batch, columns)`.

    Output shape:
        `(batch, stop - start)`.

    Raises:
        TypeError, ValueError: an argument is wrong, or the input has fewer columns.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import Columns
    >>> Columns(1, 3)(np.array([[1.0, 2.0, 3.0, 4.0]])).numpy().tolist()
    [[2.0, 3.0]]
    """

    def __init__(self, start: int, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = check_integer("start", start, minimum=0)
        self.stop = check_integer("stop", stop, minimum=self.start + 1)

    def build(self, input_shape: tuple) -> None:
        """Check that the input has these columns: there are no weights."""
        if check_features("Columns", input_shape) < self.stop:
            raise ValueError(
                f"`stop` must be at most the number of columns. Received: stop={self.stop}, input "
                f"of shape {tuple(input_shape)}"
            )

    def call(self, inputs: Any) -> Any:
        """Return the columns; a leading axis of members does not matter."""
        return inputs[..., self.start : self.stop]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the columns."""
        return (*input_shape[:-1], self.stop - self.start)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}
