"""`table_mlp`: a multilayer perceptron for tables of numbers and categories."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kregs.builders.arguments import (
    DENSE_FIELDS,
    check_fields,
    check_model_name,
    check_outputs,
    check_sizes,
)
from kregs.builders.ensemble_loss import refuse_other_losses
from kregs.builders.layer_factory import (
    LayerFactory,
    bias_regularizer,
    chain,
    full_precision,
)
from kregs.builders.unapplied import mark_unapplied
from kregs.initializers import activation_name
from kregs.layers import (
    BatchEnsembleDense,
    CategoryEmbedding,
    Columns,
    EnsembleAverage,
    EnsembleDense,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    RandomSign,
    Scale,
)
from kregs.layers.category_embedding import check_cardinalities
from kregs.layers.piecewise_linear_embedding import DEFAULT_BINS
from kregs.regularization import Regularization
from kregs.validation import check_choice, check_flag, check_integer, in_words

EMBEDDINGS = ("piecewise", "periodic")
# Holzmüller et al. 2024, table A.1: learning rates of the two, as multiples of the others'
_SCALE_RATE, _PERIODIC_RATE = 6.0, 0.1
_PIECEWISE_UNITS, _PERIODIC_UNITS = 8, 4


def table_mlp(
    numbers: int,
    outputs: int,
    *,
    categories: Sequence[int] = (),
    units: Sequence[int] = (256, 256, 256),
    embedding: str | None = None,
    embedding_units: int | None = None,
    bins: int | None = None,
    edges: Sequence[Sequence[float]] | None = None,
    category_units: int = 8,
    scaling: bool = False,
    ensemble: int | None = None,
    skip_connections: bool = False,
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    use_bias: bool | None = None,
    seed: int | None = None,
    name: str = "table_mlp",
) -> keras.Model:
    """Build a multilayer perceptron for a table: numbers first, then codes of categories.

    The numbers are embedded if asked for, the codes always; all that comes of it is one vector,
    which the hidden layers of `kregs.mlp` follow. With `ensemble=k` there are k such networks that
    share their kernels (TabM): their loss in training is the mean of their k losses, and what the
    model predicts is the mean of their probabilities; see `kregs.layers.EnsembleAverage`. It is
    compiled and fitted as any other, with the loss that goes with `head_activation`: a categorical
    or binary crossentropy, or the mean squared error.

    Args:
        numbers: how many columns hold numbers, which should be scaled; 0 for none.
        outputs: number of outputs.
        categories: how many codes each further column has. Codes run from 0, which is also what
            any other number counts as: missing, or not seen.
        units: units of each hidden layer, at least one.
        embedding: of numbers: `None`, `"piecewise"` (`kregs.layers.PiecewiseLinearEmbedding`) or
            `"periodic"` (`kregs.layers.PeriodicEmbedding`).
        embedding_units: length of the vector of a number; default: 8 piecewise, 4 periodic.
        bins, edges: of the piecewise embedding; `kregs.layers.quantile_edges` takes edges from
            data, as `model.get_layer("number_embedding").adapt(x[:, :numbers])` does. Default: 16
            bins, those of the standard normal distribution.
        category_units: length of the vector of a category.
        scaling: whether one trainable factor for each input comes before the first hidden layer
            (`kregs.layers.Scale`, which learns six times as fast).
        ensemble: how many members, >= 2, or `None` for a single network.
        skip_connections: whether each hidden layer, from the second on, is added to its input
            where both have the same units.
        activation, kernel_initializer, use_bias, seed, name: as in `kregs.mlp`.
        regularization: a `kregs.Regularization`. Noise and dropout of the input act on the numbers;
            `drop_path` drops what is added to skip connections, and `spatial_dropout` has no
            meaning here. Penalties of an ensemble's heads and activities are summed over members.
            Embeddings have the penalty on biases only.
        head_activation: as in `kregs.mlp`; for an ensemble `"softmax"`, `"sigmoid"` or `None`.

    Returns:
        An uncompiled Functional `keras.Model`: `(batch, numbers + len(categories))` to
        `(batch, outputs)`. Saved, it needs kregs to be loaded, but for a plain one of numbers.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs, numpy as np
    >>> model = kregs.table_mlp(2, 3, categories=(5,), units=(32, 32), embedding="periodic",
    ...     scaling=True, ensemble=4, regularization=kregs.Regularization(dropout=0.1))
    >>> model.predict(np.array([[0.1, -1.2, 4.0]]), verbose=0).shape
    (1, 3)
    >>> kregs.compile_model(model, "sparse_categorical_crossentropy").compiled
    True

    References:
        Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021; Holzmüller,
        Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on
        Tabular Data", 2024 (scaling, periodic embedding); Gorishniy, Rubachev, Babenko, "On
        Embeddings for Numerical Features in Tabular Deep Learning", 2022 (piecewise embedding);
        Gorishniy, Kotelnikov, Babenko, "TabM", 2024 (ensemble).
    """
    numbers = check_integer("numbers", numbers, minimum=0)
    outputs = check_outputs(outputs, head_activation)
    if not isinstance(categories, Sequence) or len(categories):
        categories = check_cardinalities("categories", categories)
    if numbers + len(categories) == 0:
        raise ValueError(
            "`numbers` and `categories` must make one column at least. "
            f"Received: numbers={numbers}, categories={categories!r}"
        )
    units = check_sizes("units", units)
    check_choice("embedding", embedding, (None, *EMBEDDINGS))
    if embedding is not None and not numbers:
        raise ValueError(
            "`embedding` is of numbers: expected `numbers` >= 1 with it, or None. "
            f"Received: embedding={embedding!r}, numbers=0"
        )
    for option, value in (("edges", edges), ("embedding_units", embedding_units)):
        if value is not None and embedding is None:
            raise ValueError(
                f"`{option}` is of `embedding`, one of {', '.join(map(repr, EMBEDDINGS))}. "
                f"Received: {option}={value!r}, embedding=None"
            )
    for option, value in (("edges", edges), ("bins", bins)):
        if value is not None and embedding != "piecewise":
            raise ValueError(
                f"`{option}` is of embedding='piecewise': expected that with it. "
                f"Received: embedding={embedding!r}, {option} of {in_words(value)}"
            )
    check_flag("scaling", scaling)
    check_flag("skip_connections", skip_connections)
    has_skips = skip_connections and any(p == q for p, q in itertools.pairwise(units))
    allowed = {*DENSE_FIELDS, *(("drop_path",) if has_skips else ())}
    checked = check_fields("table_mlp", regularization, allowed)
    if ensemble is not None:
        ensemble = check_integer("ensemble", ensemble, minimum=2)
        _check_ensemble(head_activation, checked)
    factory = LayerFactory(
        checked,
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    inputs = keras.Input((numbers + len(categories),), name="input")
    parts = []
    if numbers:
        columns = _columns(0, numbers, "numbers") if categories else []
        embedded = _number_embedding(factory, embedding, embedding_units, bins, edges)
        parts.append(chain(inputs, [*columns, *factory.input_noise(), *embedded]))
    if categories:
        codes = _columns(numbers, numbers + len(categories), "codes") if numbers else []
        lookup = _category_embedding(factory, categories, category_units)
        parts.append(chain(inputs, [*codes, lookup]))
    x = parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="concatenation")(parts)
    if scaling:
        x = Scale(learning_rate_factor=_SCALE_RATE, dtype=full_precision(), name="scale")(x)
    for i, size in enumerate(units, start=1):
        block = chain(x, [_dense(factory, size, i, ensemble), *factory.after_dense(size, f"_{i}")])
        if skip_connections and i > 1 and x.shape[-1] == size:
            drop = factory.dropout(
                f"drop_path_{i}",
                # as in `kregs.resnet`, the more often the deeper
                rate=checked.drop_path * (i - 1) / (len(units) - 1),
                noise_shape=(None, *[1] * (len(x.shape) - 1)),
            )
            block = keras.layers.Add(name=f"add_{i}")([x, chain(block, drop)])
        x = block
    x = chain(x, _head(factory, outputs, head_activation, ensemble))
    model = mark_unapplied(keras.Model(inputs, x, name=check_model_name(name)), checked)
    if ensemble is not None:
        refuse_other_losses(model, model.get_layer("average").activation)
    return model


def _check_ensemble(head_activation: Any, regularization: Regularization) -> None:
    head = activation_name(head_activation, argument="head_activation")
    if head not in ("softmax", "sigmoid", "linear"):
        raise ValueError(
            "`head_activation` of an ensemble must be 'softmax', 'sigmoid' or None, of whose loss "
            f"it knows the mean. Received: head_activation={head_activation!r}"
        )
    if regularization.normalization == "group":
        raise ValueError(
            "`regularization.normalization` must be 'batch', 'layer' or None for an ensemble: "
            "groups would mix its members. Received: normalization='group'"
        )


def _columns(start: int, stop: int, name: str) -> list[keras.layers.Layer]:
    # half precision would round codes above 2048
    return [Columns(start, stop, dtype=full_precision(), name=name)]


def _number_embedding(
    factory: LayerFactory, kind: str | None, units: int | None, bins: Any, edges: Any
) -> list[keras.layers.Layer]:
    if kind is None:
        return []
    name = "number_embedding"
    options: dict[str, Any] = {
        "bias_regularizer": bias_regularizer(factory.regularization),
        "seed": factory.seeds(name),
        "dtype": full_precision(),
        "name": name,
    }
    if units is not None:
        least = 2 if kind == "periodic" else 1
        units = check_integer("embedding_units", units, minimum=least)
    if kind == "periodic":
        options["learning_rate_factor"] = _PERIODIC_RATE
        return [PeriodicEmbedding(units or _PERIODIC_UNITS, **options)]
    bins = DEFAULT_BINS if bins is None else bins
    return [PiecewiseLinearEmbedding(units or _PIECEWISE_UNITS, bins=bins, edges=edges, **options)]


def _category_embedding(
    factory: LayerFactory, categories: Sequence[int], units: Any
) -> CategoryEmbedding:
    name = "category_embedding"
    return CategoryEmbedding(
        categories,
        check_integer("category_units", units, minimum=1),
        # N(0, 1) as in RealMLP would outweigh the numbers of a table with many categories
        embeddings_initializer=keras.initializers.RandomNormal(
            stddev=units**-0.5, seed=factory.seeds(name)
        ),
        dtype=full_precision(),
        name=name,
    )


def _dense(factory: LayerFactory, size: int, i: int, ensemble: int | None) -> keras.layers.Layer:
    name = f"dense_{i}"
    if ensemble is None:
        return keras.layers.Dense(size, **factory.weights(name))
    # TabM: signs make the members differ, all other factors are 1 at first
    signs = {"alpha_initializer": RandomSign(seed=factory.seeds(f"{name}_alpha"))} if i == 1 else {}
    return BatchEnsembleDense(size, ensemble, **signs, **factory.weights(name))


def _head(
    factory: LayerFactory, outputs: int, activation: Any, ensemble: int | None
) -> list[keras.layers.Layer]:
    if ensemble is None:
        return [factory.head(outputs, activation)]
    kind = activation_name(activation)
    options = factory.weights("head", activation=kind, use_bias=True)
    if factory.regularization.max_norm is not None:
        # of the weights into each unit of each member
        bound = factory.regularization.max_norm
        options["kernel_constraint"] = keras.constraints.MaxNorm(bound, axis=1)
    dtype = full_precision()
    return [
        EnsembleDense(outputs, ensemble, dtype=dtype, **options),
        EnsembleAverage(None if kind == "linear" else kind, dtype=dtype, name="average"),
    ]
