"""`CategoryEmbedding`: a learned vector for each category of each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kregs.layers.resolving import check_features, initializer, regularizer
from kregs.validation import check_integer


@keras.saving.register_keras_serializable(package="kregs")
class CategoryEmbedding(keras.layers.Layer):
    """Looks up a vector for the category of each column, all columns in one table.

    The gradient is dense: Keras's `Embedding` hands Adam a gradient for each time that a category
    occurs, and Adam squares these one by one.

    Args:
        cardinalities: how many codes each column has; they run from 0.
        units: length of the vectors.
        embeddings_initializer, embeddings_regularizer: of the table, of shape
            `(sum of cardinalities, units)`.

    Call arguments:
        inputs: whole numbers, as integers or floats, of shape `(batch, columns)`. What lies
            outside of a column's codes counts as code 0, which stands for missing or not seen.

    Output shape:
        `(batch, columns * units)`.

    Raises:
        TypeError, ValueError: an argument is wrong, or the input has another number of columns.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import CategoryEmbedding
    >>> layer = CategoryEmbedding((3, 2), units=4)
    >>> layer(np.array([[2, 1], [0, 0]])).shape, layer.embeddings.shape
    (TensorShape([2, 8]), TensorShape([5, 4]))

    References:
        Guo, Berkhahn, "Entity Embeddings of Categorical Variables", 2016.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        units: int,
        *,
        embeddings_initializer: Any = "random_normal",
        embeddings_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        # the codes may be floats, which half precision would round
        super().__init__(autocast=False, **kwargs)
        self.cardinalities = check_cardinalities("cardinalities", cardinalities)
        self.units = check_integer("units", units, minimum=1)
        self.embeddings_initializer = initializer("embeddings_initializer", embeddings_initializer)
        self.embeddings_regularizer = regularizer("embeddings_regularizer", embeddings_regularizer)
        self._offsets = np.cumsum([0, *self.cardinalities[:-1]]).astype("int32")

    def build(self, input_shape: tuple) -> None:
        """Make the table, `(sum of cardinalities, units)`."""
        if check_features("CategoryEmbedding", input_shape) != len(self.cardinalities):
            raise ValueError(
                "`cardinalities` must hold a number for each column. "
                f"Received: {len(self.cardinalities)} for an input of shape {tuple(input_shape)}"
            )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(sum(self.cardinalities), self.units),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )

    def rows(self, codes: Any) -> Any:
        """Return which rows of the table the codes stand for, of the codes' shape."""
        codes = ops.cast(codes, "int32")
        known = ops.logical_and(codes >= 0, codes < np.asarray(self.cardinalities, "int32"))
        return ops.where(known, codes, 0) + self._offsets

    def call(self, inputs: Any) -> Any:
        """Return the vectors of the codes, one behind the other."""
        # a product with 1: the gradient of a look-up in the variable itself would be sparse
        table = ops.cast(self.embeddings, self.compute_dtype) * ops.ones((), self.compute_dtype)
        vectors = ops.take(table, self.rows(inputs), axis=0)
        return ops.reshape(vectors, (-1, len(self.cardinalities) * self.units))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the vectors, one behind the other."""
        return (*input_shape[:-1], len(self.cardinalities) * self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "cardinalities": list(self.cardinalities),
            "units": self.units,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
        }


def check_cardinalities(name: str, value: Any) -> tuple[int, ...]:
    """Return the numbers of codes of columns as a tuple of integers >= 1.

    Example:

    >>> check_cardinalities("cardinalities", [3, 2])
    (3, 2)
    """
    if isinstance(value, (str, bytes)) or np.ndim(value) != 1 or len(value) == 0:
        raise TypeError(
            f"`{name}` must be a sequence of integers >= 1, one a column. "
            f"Received: {name}={value!r}"
        )
    return tuple(check_integer(f"{name}[{i}]", size, minimum=1) for i, size in enumerate(value))
