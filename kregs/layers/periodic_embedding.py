"""`PeriodicEmbedding`: numbers as cosines of learned frequencies (PBLD, as in RealMLP)."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kregs.layers.resolving import check_features, regularizer
from kregs.validation import check_integer, check_number, check_seed


@keras.saving.register_keras_serializable(package="kregs")
class PeriodicEmbedding(keras.layers.Layer):
    """Gives each number itself and a linear layer of cosines of it: PBLD of RealMLP.

    The vector of a number x is `[x, cos(2 pi w x + b) W + c]`. Frequencies w, phases b, kernel W
    and bias c are each column's own, and all are trained.

    Args:
        units: length of the vector, x itself among it, >= 2.
        frequencies: how many cosines.
        frequency_scale: standard deviation of the frequencies at first, > 0.
        learning_rate_factor: how much faster than other weights those of this layer learn under
            Adam, > 0; see `kregs.layers.Scale`. The layer holds each weight divided by it, of which
            penalties are taken.
        embeddings_regularizer: of W, `(features, frequencies, units - 1)`.
        bias_regularizer: of c, `(features, units - 1)`.
        seed: integer: of the weights at first: normal frequencies, phases uniform within pi, W
            uniform within `1 / sqrt(frequencies)`, c = 0. `None`: random.

    Call arguments:
        inputs: floats of shape `(batch, features)`.

    Output shape:
        `(batch, features * units)`, the vectors one behind the other.

    Raises:
        TypeError, ValueError: an argument is wrong, or the number of features is not known.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import PeriodicEmbedding
    >>> layer = PeriodicEmbedding(4, seed=0)
    >>> layer(np.array([[0.5, 2.0]])).shape
    TensorShape([1, 8])

    References:
        Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted
        Trees on Tabular Data", 2024, section 3 (PBLD); Gorishniy, Rubachev, Babenko, "On Embeddings
        for Numerical Features in Tabular Deep Learning", 2022, section 3.3 (periodic activations).
    """

    def __init__(
        self,
        units: int = 4,
        *,
        frequencies: int = 16,
        frequency_scale: float = 0.1,
        learning_rate_factor: float = 1.0,
        embeddings_regularizer: Any = None,
        bias_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_integer("units", units, minimum=2)
        self.frequency_count = check_integer("frequencies", frequencies, minimum=1)
        self.frequency_scale = check_number("frequency_scale", frequency_scale, above=0.0)
        self.learning_rate_factor = check_number(
            "learning_rate_factor", learning_rate_factor, above=0.0
        )
        self.embeddings_regularizer = regularizer("embeddings_regularizer", embeddings_regularizer)
        self.bias_regularizer = regularizer("bias_regularizer", bias_regularizer)
        self.seed = None if seed is None else check_seed("seed", seed)

    def build(self, input_shape: tuple) -> None:
        """Make frequencies and phases `(features, frequencies)`, and the linear layers."""
        features = check_features("PeriodicEmbedding", input_shape)
        shape = (features, self.frequency_count)
        factor = self.learning_rate_factor
        seeds: list[int | None] = [None] * 3
        if self.seed is not None:
            seeds = [int(s >> 1) for s in np.random.SeedSequence(self.seed).generate_state(3)]
        bound = 1 / math.sqrt(self.frequency_count)
        normal, uniform = keras.initializers.RandomNormal, keras.initializers.RandomUniform
        self.frequencies = self.add_weight(
            name="frequencies",
            shape=shape,
            initializer=normal(stddev=self.frequency_scale / factor, seed=seeds[0]),
        )
        self.phases = self.add_weight(
            name="phases",
            shape=shape,
            initializer=uniform(-math.pi / factor, math.pi / factor, seed=seeds[1]),
        )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(*shape, self.units - 1),
            initializer=uniform(-bound / factor, bound / factor, seed=seeds[2]),
            regularizer=self.embeddings_regularizer,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(features, self.units - 1),
            initializer="zeros",
            regularizer=self.bias_regularizer,
        )

    def cosines(self, inputs: Any, frequencies: Any, phases: Any) -> Any:
        """Return the cosines of numbers (..., features), as (..., features, frequencies).

        The weights are as the layer holds them; leading axes broadcast over the inputs'.
        """
        factor = self.learning_rate_factor
        return ops.cos((2 * math.pi * factor) * inputs[..., None] * frequencies + factor * phases)

    def call(self, inputs: Any) -> Any:
        """Return the vectors of all numbers of a row, one behind the other."""
        cosines = self.cosines(inputs, self.frequencies, self.phases)
        linear = ops.einsum("bfm,fmu->bfu", cosines, self.embeddings) + self.bias
        linear = linear * self.learning_rate_factor
        value = ops.concatenate([inputs[..., None], linear], axis=-1)
        return ops.reshape(value, (-1, value.shape[1] * self.units))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the vectors, one behind the other."""
        return (*input_shape[:-1], input_shape[-1] * self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "units": self.units,
            "frequencies": self.frequency_count,
            "frequency_scale": self.frequency_scale,
            "learning_rate_factor": self.learning_rate_factor,
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "seed": self.seed,
        }
