"""`PiecewiseLinearEmbedding`: numbers told by where they lie among bins of their column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kregs.initializers import activation_name
from kregs.layers.resolving import check_features, regularizer
from kregs.validation import check_integer, check_seed

DEFAULT_BINS = 16


def quantile_edges(x: Any, bins: int) -> list[list[float]]:
    """Return the quantiles of each column, each once: edges of bins with about equal rows.

    A value that more rows have than a bin should, such as the 0 of most counts and sums, is an
    edge, and the quantiles are those of all other values: else it would take most edges for itself.
    A column of few different values has an edge at each.

    Args:
        x: numbers (n, features); missing ones (NaN) are left out.
        bins: how many bins at most; a column with few different values gets fewer.

    Returns:
        The edges of each column, ascending, two at least.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:

    >>> quantile_edges([[0.0, 1.0], [1.0, 1.0], [4.0, 1.0]], bins=2)
    [[0.0, 1.0, 4.0], [1.0, 2.0]]
    >>> quantile_edges([[x] for x in [0.0] * 90 + list(range(1, 11))], bins=4)
    [[0.0, 1.0, 4.0, 7.0, 10.0]]
    """
    bins = check_integer("bins", bins, minimum=1)
    expected = "`x` must hold numbers of shape (rows, features), one row at least"
    try:
        numbers = np.asarray(x, "float64")
    except (TypeError, ValueError):
        raise TypeError(f"{expected}. Received: x={x!r}") from None
    if numbers.ndim != 2 or len(numbers) == 0:
        received = f"x={x!r}" if numbers.ndim == 0 else f"an array of shape {numbers.shape}"
        raise ValueError(f"{expected}. Received: {received}")
    edges = []
    for column in numbers.T:
        present = column[np.isfinite(column)]
        if present.size == 0:
            present = np.zeros(1)
        quantiles = _quantiles(present, bins)
        if len(quantiles) == 1:  # a constant: a bin that begins there
            quantiles = np.append(quantiles, quantiles[0] + 1.0)
        edges.append(quantiles.tolist())
    return edges


def _quantiles(numbers: np.ndarray, bins: int) -> np.ndarray:
    """Return the frequent values of a column and the quantiles of the others, ascending."""
    values, counts = np.unique(numbers, return_counts=True)
    if len(values) <= bins + 1:
        return values
    frequent = values[counts > len(numbers) / bins]
    others = numbers[~np.isin(numbers, frequent)]
    # there are less than `bins` frequent values, so that two are left at least
    quantiles = np.quantile(others, np.linspace(0, 1, bins + 1 - len(frequent)))
    return np.union1d(frequent, quantiles)


@keras.saving.register_keras_serializable(package="kregs")
class PiecewiseLinearEmbedding(keras.layers.Layer):
    """Encodes each number by its place among the bins of its column, then by a linear layer.

    Bin t of T, from edge b(t-1) to b(t), gives `(x - b(t-1)) / (b(t) - b(t-1))`, cut off at 0 below
    (but in the first bin) and at 1 above (but in the last), so that a number fills all bins below
    it, and its own in part. A linear layer of each column makes `units` numbers of them.

    The edges are weights that are not trained. They are given, or taken from data by `adapt`, which
    makes them the quantiles; before that they are the quantiles of the standard normal
    distribution, which suits inputs that were standardized.

    Args:
        units: length of the vector of a number; `None`: the bins themselves, without a linear
            layer.
        bins: how many bins a column has at most.
        edges: of each column, ascending numbers, 2 to `bins + 1`. Default: see above.
        activation: of the linear layer.
        embeddings_regularizer: of the kernels of the linear layers, `(features, bins, units)`.
        bias_regularizer: of their biases, `(features, units)`.
        seed: integer: of the kernels at first, which are uniform with variance 1 / bins. `None`:
            random.

    Call arguments:
        inputs: floats of shape `(batch, features)`.

    Output shape:
        `(batch, features * units)`, or `(batch, features * bins)`.

    Raises:
        TypeError, ValueError: an argument is wrong, or does not fit the number of features.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import PiecewiseLinearEmbedding
    >>> layer = PiecewiseLinearEmbedding(None, bins=2, edges=[[0.0, 1.0, 3.0]])
    >>> layer(np.array([[0.5], [2.0], [5.0]])).numpy().tolist()
    [[0.5, 0.0], [1.0, 0.5], [1.0, 2.0]]

    References:
        Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
        Learning", 2022, section 3.2 (equation 1) and 3.2.1 (quantiles).
    """

    def __init__(
        self,
        units: int | None,
        *,
        bins: int = DEFAULT_BINS,
        edges: Sequence[Sequence[float]] | None = None,
        activation: Any = None,
        embeddings_regularizer: Any = None,
        bias_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = None if units is None else check_integer("units", units, minimum=1)
        self.bins = check_integer("bins", bins, minimum=1)
        self.given_edges = None if edges is None else _check_edges(edges, self.bins)
        activation_name(activation)  # raises for what is no activation
        self.activation = keras.activations.get(activation)
        self.embeddings_regularizer = regularizer("embeddings_regularizer", embeddings_regularizer)
        self.bias_regularizer = regularizer("bias_regularizer", bias_regularizer)
        self.seed = None if seed is None else check_seed("seed", seed)

    def build(self, input_shape: tuple) -> None:
        """Make the edges `(features, bins + 1)`, and the kernel and bias of the linear layer."""
        features = check_features("PiecewiseLinearEmbedding", input_shape)
        self.edges = self.add_weight(
            name="edges", shape=(features, self.bins + 1), initializer="zeros", trainable=False
        )
        self._set_edges(self.given_edges or [_normal_quantiles(self.bins)] * features)
        if self.units is None:
            return
        bound = math.sqrt(3 / self.bins)  # of LeCun, for one column
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(features, self.bins, self.units),
            initializer=keras.initializers.RandomUniform(-bound, bound, seed=self.seed),
            regularizer=self.embeddings_regularizer,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(features, self.units),
            initializer="zeros",
            regularizer=self.bias_regularizer,
        )

    def adapt(self, x: Any) -> None:
        """Take the quantiles of data as edges; before the model is fitted.

        Args:
            x: numbers (n, features).
        """
        x = np.asarray(x)
        if not self.built:
            self.build(x.shape)
        self._set_edges(quantile_edges(x, self.bins))

    def _set_edges(self, edges: Sequence[Sequence[float]]) -> None:
        if len(edges) != self.edges.shape[0]:
            raise ValueError(
                "`edges` must hold a list for each feature. "
                f"Received: {len(edges)} for {self.edges.shape[0]} features"
            )
        # bins that a column lacks come last and have no width
        padded = [[*column, *[column[-1]] * (self.bins + 1 - len(column))] for column in edges]
        self.edges.assign(np.asarray(padded, "float64"))

    def encode(self, inputs: Any, edges: Any) -> Any:
        """Return the share of each bin that lies below a number.

        Args:
            inputs: (..., features).
            edges: (features, bins + 1), or with leading axes that broadcast over the inputs'.

        Returns:
            (..., features, bins).
        """
        lower = edges[..., :-1]
        width = edges[..., 1:] - lower
        real = width > 0
        share = (inputs[..., None] - lower) / ops.where(real, width, ops.ones_like(width))
        # the first bin is open below, the last real one above
        share = ops.concatenate([share[..., :1], ops.relu(share[..., 1:])], axis=-1)
        later = ops.concatenate([real[..., 1:], ops.zeros_like(real[..., :1])], axis=-1)
        share = ops.where(later, ops.minimum(share, ops.ones_like(share)), share)
        return ops.where(real, share, ops.zeros_like(share))

    def call(self, inputs: Any) -> Any:
        """Return the vectors of all numbers of a row, one behind the other."""
        share = self.encode(inputs, self.edges)
        if self.units is not None:
            share = ops.einsum("bft,ftu->bfu", share, self.embeddings) + self.bias
        value = self.activation(share)
        return ops.reshape(value, (-1, int(np.prod(value.shape[1:]))))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the shape of the vectors, one behind the other."""
        return (*input_shape[:-1], input_shape[-1] * (self.units or self.bins))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "units": self.units,
            "bins": self.bins,
            "edges": self.given_edges,
            "activation": keras.activations.serialize(self.activation),
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "seed": self.seed,
        }


def _check_edges(edges: Any, bins: int) -> list[list[float]]:
    expected = f"of each feature 2 to {bins + 1} ascending numbers"
    try:
        columns = [[float(edge) for edge in column] for column in edges]
    except (TypeError, ValueError):
        raise TypeError(f"`edges` must hold {expected}. Received: edges={edges!r}") from None
    for column in columns:
        ascending = np.isfinite(column).all() and (np.diff(column) > 0).all()
        if not (2 <= len(column) <= bins + 1 and ascending):
            raise ValueError(f"`edges` must hold {expected}. Received: {column!r}")
    return columns


def _normal_quantiles(bins: int) -> list[float]:
    """The quantiles of the standard normal distribution; those of 1 / 1000 at both ends."""
    from scipy.stats import norm

    shares = np.linspace(0, 1, bins + 1).clip(1e-3, 1 - 1e-3)
    return norm.ppf(shares).tolist()
