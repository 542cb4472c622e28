"""`Scale`: one trainable factor for each input."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.layers.resolving import check_features
from kregs.validation import check_number


@keras.saving.register_keras_serializable(package="kregs")
class Scale(keras.layers.Layer):
    """Multiplies each input by a factor of its own, which is 1 at first.

    So a network learns which columns count. RealMLP lets these factors learn six times as fast as
    all other weights. `learning_rate_factor` does that under any optimizer whose steps do not grow
    with the gradient (Adam and its kin): the layer holds the factor divided by it. Under SGD a step
    of the factor grows with its square.

    Args:
        learning_rate_factor: how much faster than other weights the factors learn under Adam, > 0.

    Call arguments:
        inputs: floats of shape `(batch, features)`.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong, or the number of features is not known.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import Scale
    >>> layer = Scale(learning_rate_factor=6)
    >>> layer(np.array([[1.0, 2.0]])).numpy().round(4).tolist()
    [[1.0, 2.0]]

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024, section 3 (scaling layer).
    """

    def __init__(self, *, learning_rate_factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learning_rate_factor = check_number(
            "learning_rate_factor", learning_rate_factor, above=0.0
        )

    def build(self, input_shape: tuple) -> None:
        """Make the factors, `(features,)`."""
        self.scale = self.add_weight(
            name="scale",
            shape=(check_features("Scale", input_shape),),
            initializer=keras.initializers.Constant(1.0 / self.learning_rate_factor),
        )

    def call(self, inputs: Any) -> Any:
        """Return the inputs times their factors."""
        return ops.multiply(inputs, self.factors(self.scale))

    def factors(self, scale: Any) -> Any:
        """Return the factors that a weight stands for."""
        return ops.multiply(scale, self.learning_rate_factor)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "learning_rate_factor": self.learning_rate_factor}
