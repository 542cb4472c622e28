"""`text_cnn` and `recurrent`: classifiers of token sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kregs.builders.arguments import (
    CONVOLUTION_FIELDS,
    check_fields,
    check_model_name,
    check_outputs,
    check_sizes,
)
from kregs.builders.layer_factory import LayerFactory, chain, kernel_constraint, kernel_regularizer
from kregs.builders.unapplied import mark_unapplied
from kregs.regularization import Regularization
from kregs.validation import check_choice, check_flag, check_integer, check_number

_CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def text_cnn(
    vocabulary: int,
    outputs: int,
    *,
    sequence_length: int,
    embedding_units: int = 128,
    filters: int = 100,
    kernel_sizes: Sequence[int] = (3, 4, 5),
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    use_bias: bool | None = None,
    penalize_embeddings: bool = False,
    seed: int | None = None,
    name: str = "text_cnn",
) -> keras.Model:
    """Build Kim's convolutional network for sentences.

    Embedding, then one convolution beside the other for each kernel size, each followed by
    normalization, activation, activity penalty and the maximum over time; dropout; output layer.
    Kim's values are `Regularization(dropout=0.5, max_norm=3)`.

    Args:
        vocabulary: number of different tokens; inputs are integers in [0, vocabulary).
        outputs: number of outputs.
        sequence_length: tokens per sample, at least the largest kernel size.
        embedding_units: length of a token's vector.
        filters: number of filters of each kernel size.
        kernel_sizes: widths of the convolutions, in tokens.
        activation, kernel_initializer, head_activation, use_bias, seed, name: as in `kregs.mlp`.
        regularization: a `kregs.Regularization`. `max_norm` bounds the output layer only, as in
            the paper; `spatial_dropout` drops whole embedding channels; `input_dropout` and
            `gaussian_noise` act on the embedded tokens; `drop_path` has no meaning here.
        penalize_embeddings: whether `l1` and `l2` hold for the embedding too. By default not: they
            would shrink the vectors of rare words in every step in which these do not occur.

    Returns:
        An uncompiled Functional `keras.Model`: `(batch, sequence_length)` integers to
        `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> model = kregs.text_cnn(
    ...     1000, 2, sequence_length=50, filters=8,
    ...     regularization=kregs.Regularization(dropout=0.5, max_norm=3.0),
    ... )
    >>> model.input_shape, model.output_shape
    ((None, 50), (None, 2))

    References:
        Kim, "Convolutional Neural Networks for Sentence Classification", 2014;
        Zhang, Wallace, "A Sensitivity Analysis of (and Practitioners' Guide to) Convolutional
        Neural Networks for Sentence Classification", 2017.
    """
    vocabulary = check_integer("vocabulary", vocabulary, minimum=1)
    outputs = check_outputs(outputs, head_activation)
    sequence_length = check_integer("sequence_length", sequence_length, minimum=1)
    filters = check_integer("filters", filters, minimum=1)
    kernel_sizes = check_sizes("kernel_sizes", kernel_sizes)
    if max(kernel_sizes) > sequence_length or len(set(kernel_sizes)) < len(kernel_sizes):
        raise ValueError(
            f"`kernel_sizes` must be different and at most sequence_length={sequence_length}. "
            f"Received: kernel_sizes={kernel_sizes!r}"
        )
    check_flag("penalize_embeddings", penalize_embeddings)
    factory = LayerFactory(
        check_fields("text_cnn", regularization, CONVOLUTION_FIELDS),
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    inputs = keras.Input((sequence_length,), dtype="int32", name="tokens")
    embedding = _embedding(factory, vocabulary, embedding_units, penalize_embeddings)
    x = chain(
        inputs,
        [embedding, *factory.input_noise(), *factory.spatial_dropout("spatial_dropout", axes=1)],
    )
    pooled = []
    for size in kernel_sizes:
        options = factory.weights(f"convolution_{size}", rank=3)
        options["kernel_constraint"] = None  # Kim bounds the weights of the output layer alone
        branch = [
            keras.layers.Conv1D(filters, size, data_format="channels_last", **options),
            *factory.normalization(f"normalization_{size}", filters),
            factory.activation(f"activation_{size}"),
            *factory.activity_penalty(f"activity_{size}"),
            keras.layers.GlobalMaxPooling1D(data_format="channels_last", name=f"pooling_{size}"),
        ]
        pooled.append(chain(x, branch))
    x = keras.layers.Concatenate(name="concatenate")(pooled) if len(pooled) > 1 else pooled[0]
    x = chain(x, [*factory.dropout("dropout"), factory.head(outputs, head_activation)])
    return mark_unapplied(
        keras.Model(inputs, x, name=check_model_name(name)), factory.regularization
    )


def recurrent(
    vocabulary: int,
    outputs: int,
    *,
    sequence_length: int | None = None,
    embedding_units: int = 128,
    units: Sequence[int] = (64,),
    cell: str = "lstm",
    bidirectional: bool = False,
    recurrent_dropout: float = 0.0,
    mask_zero: bool = True,
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    penalize_embeddings: bool = False,
    seed: int | None = None,
    name: str = "recurrent",
) -> keras.Sequential:
    """Build an LSTM or GRU classifier of token sequences.

    Embedding, then recurrent layers, each followed by normalization, activity penalty and dropout;
    the last one passes on its final output only.

    Args:
        vocabulary: number of different tokens; inputs are integers in [0, vocabulary).
        outputs: number of outputs.
        sequence_length: tokens per sample, or `None` for any length.
        embedding_units: length of a token's vector.
        units: units of each recurrent layer.
        cell: `"lstm"` or `"gru"`.
        bidirectional: whether each layer reads the sequence in both directions, with `units` for
            each.
        recurrent_dropout: rate of dropout on the recurrent state, the same units in every step.
            On a GPU it rules out cuDNN's fast kernel.
        mask_zero: whether token 0 is padding, to be passed over. Pad at the end of the sequence,
            and no sequence may be all padding: cuDNN needs both.
        kernel_initializer, head_activation, seed, name: as in `kregs.mlp`. Recurrent kernels start
            orthogonal.
        regularization: a `kregs.Regularization`. Penalties and `max_norm` hold for the kernels of
            inputs and of the recurrent state alike; `spatial_dropout` drops whole embedding
            channels; `input_dropout` and `gaussian_noise` act on the embedded tokens;
            `normalization` is `"layer"` or `None`; `drop_path` has no meaning here.
        penalize_embeddings: as in `kregs.text_cnn`.

    Returns:
        An uncompiled, built `keras.Sequential`: `(batch, sequence_length)` integers to
        `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> model = kregs.recurrent(
    ...     1000, 2, units=(16,), cell="gru", bidirectional=True,
    ...     regularization=kregs.Regularization(dropout=0.3, normalization="layer"),
    ... )
    >>> [layer.name for layer in model.layers]
    ['embedding', 'gru_1', 'normalization_1', 'dropout_1', 'head']

    References:
        Hochreiter, Schmidhuber, "Long Short-Term Memory", 1997; Cho et al., "Learning Phrase
        Representations using RNN Encoder-Decoder", 2014 (GRU); Gal, Ghahramani, "A Theoretically
        Grounded Application of Dropout in Recurrent Neural Networks", 2016 (recurrent_dropout);
        Ba et al., "Layer Normalization", 2016.
    """
    vocabulary = check_integer("vocabulary", vocabulary, minimum=1)
    outputs = check_outputs(outputs, head_activation)
    if sequence_length is not None:
        sequence_length = check_integer("sequence_length", sequence_length, minimum=1)
    units = check_sizes("units", units)
    check_choice("cell", cell, _CELLS)
    check_flag("bidirectional", bidirectional)
    check_flag("mask_zero", mask_zero)
    check_flag("penalize_embeddings", penalize_embeddings)
    rate = check_number("recurrent_dropout", recurrent_dropout, minimum=0.0, below=1.0)
    checked = check_fields("recurrent", regularization, CONVOLUTION_FIELDS - {"group_l1"})
    if checked.normalization not in (None, "layer"):
        raise ValueError(
            "`regularization.normalization` must be 'layer' or None for recurrent(): the other "
            "kinds mix the steps of a sequence. "
            f"Received: normalization={checked.normalization!r}"
        )
    factory = LayerFactory(
        checked, activation="tanh", kernel_initializer=kernel_initializer, seed=seed
    )
    layers = [
        keras.Input((sequence_length,), dtype="int32", name="tokens"),
        _embedding(factory, vocabulary, embedding_units, penalize_embeddings, mask_zero=mask_zero),
        *factory.input_noise(),
        *factory.spatial_dropout("spatial_dropout", axes=1),
    ]
    for i, size in enumerate(units, start=1):
        layers += [
            _recurrent_layer(
                factory,
                f"{cell}_{i}",
                size,
                cell,
                bidirectional,
                recurrent_dropout=rate,
                return_sequences=i < len(units),
            ),
            *factory.normalization(f"normalization_{i}", size),
            *factory.activity_penalty(f"activity_{i}"),
            *factory.dropout(f"dropout_{i}"),
        ]
    layers.append(factory.head(outputs, head_activation))
    return mark_unapplied(
        keras.Sequential(layers, name=check_model_name(name)), factory.regularization
    )


def _embedding(
    factory: LayerFactory, vocabulary: int, units: Any, penalized: bool, *, mask_zero: bool = False
) -> keras.layers.Embedding:
    return keras.layers.Embedding(
        vocabulary,
        check_integer("embedding_units", units, minimum=1),
        embeddings_initializer=keras.initializers.RandomUniform(
            -0.05, 0.05, seed=factory.seeds("embedding")
        ),
        embeddings_regularizer=kernel_regularizer(factory.regularization) if penalized else None,
        mask_zero=mask_zero,
        name="embedding",
    )


def _recurrent_layer(
    factory: LayerFactory, name: str, units: int, cell: str, bidirectional: bool, **options: Any
) -> keras.layers.Layer:
    def one_direction(suffix: str = "", **direction: Any) -> keras.layers.Layer:
        return _CELLS[cell](
            units,
            **factory.weights(name + suffix, use_bias=True),
            recurrent_initializer=keras.initializers.Orthogonal(
                seed=factory.seeds(f"{name}{suffix}_recurrent")
            ),
            recurrent_regularizer=kernel_regularizer(factory.regularization),
            recurrent_constraint=kernel_constraint(factory.regularization),
            seed=factory.seeds(f"{name}{suffix}_dropout"),
            **options,
            **direction,
        )

    if not bidirectional:
        return one_direction()
    # a backward layer of its own: Keras's copy would start from the same weights under a seed
    return keras.layers.Bidirectional(
        one_direction("_forward"),
        backward_layer=one_direction("_backward", go_backwards=True),
        name=name,
    )
