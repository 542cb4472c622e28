"""`SmoothClip`: squeezes what is far from 0, and hardly moves what is near."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.validation import check_integer, check_number


@keras.saving.register_keras_serializable(package="kregs")
class SmoothClip(keras.layers.Layer):
    """Turns z into z / √(1 + (z / limit)²), which is z near 0 and never beyond ± limit.

    So that a wild number in a row does not decide alone what comes out for it. It is meant for
    columns that are centred and scaled, as in the estimators of scikit-learn's kind with a preset;
    `kregs.tables.transformers.SmoothClipScaler` does all of it outside of a model.

    Args:
        limit: the bound, > 0.
        columns: how many of the first features are numbers; those behind them, such as codes of
            categories, stay as they are. `None`: all are.

    Call arguments:
        inputs: floats of shape `(batch, features)`.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import SmoothClip
    >>> SmoothClip(columns=3)(np.array([[0.1, -4.0, 1e9, 7.0]])).numpy().round(2).tolist()
    [[0.10000000149011612, -2.4000000953674316, 3.0, 7.0]]

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024, section 3 (robust scaling and smooth clipping).
    """

    def __init__(self, limit: float = 3.0, *, columns: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = check_number("limit", limit, above=0.0)
        self.columns = None if columns is None else check_integer("columns", columns, minimum=0)

    def call(self, inputs: Any) -> Any:
        """Return the clipped inputs."""
        # of a column that is left as it is the root is 1; beyond the bounds it would be infinite
        far = 1e6 * self.limit
        near = ops.clip(inputs, -far, far)
        clipped = near * ops.rsqrt(1.0 + ops.square(near / self.limit))
        if self.columns is None:
            return clipped
        is_number = ops.arange(inputs.shape[-1]) < self.columns
        return ops.where(is_number, clipped, inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "limit": self.limit, "columns": self.columns}
