"""`autoencoder`: a dense autoencoder, with tied weights on request."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kregs.builders.arguments import (
    DENSE_FIELDS,
    check_fields,
    check_model_name,
    check_shape,
    check_sizes,
)
from kregs.builders.layer_factory import LayerFactory, chain, full_precision
from kregs.builders.unapplied import mark_unapplied
from kregs.initializers import activation_name
from kregs.layers import TiedDense
from kregs.regularization import Regularization


def autoencoder(
    input_shape: Sequence[int],
    *,
    units: Sequence[int],
    tied: bool = False,
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = None,
    use_bias: bool | None = None,
    seed: int | None = None,
    name: str = "autoencoder",
) -> keras.Model:
    """Build a dense autoencoder: the decoder mirrors the encoder.

    `activity_l1` makes it a sparse autoencoder, `input_dropout` or `gaussian_noise` a denoising
    one (train it on clean targets). Each hidden layer is Dense, normalization, activation,
    activity penalty, dropout; the output has none of what follows Dense, and is float32 under
    mixed precision. The encoder is `keras.Model(model.input, model.get_layer("code").output)`.

    Args:
        input_shape: shape of one sample, which is the output's too.
        units: units of the encoder's layers, the last of which is the code.
        tied: whether the decoder's kernels are the encoder's, transposed: parameter sharing, with
            half the weights. Each kernel is penalized once. The saved model then needs
            `kregs.layers.TiedDense` to be loaded.
        activation, kernel_initializer, use_bias, seed, name: as in `kregs.mlp`.
        regularization: a `kregs.Regularization`; `spatial_dropout` and `drop_path` have no
            meaning here.
        head_activation: of the output: `None` for values of any size, `"sigmoid"` for [0, 1].

    Returns:
        An uncompiled Functional `keras.Model`: `(batch, *input_shape)` to the same shape.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> model = kregs.autoencoder((64,), units=(32, 8))
    >>> tied = kregs.autoencoder((64,), units=(32, 8), tied=True)
    >>> tied.output_shape, model.count_params(), tied.count_params()
    ((None, 64), 4744, 2440)

    References:
        Hinton, Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", 2006;
        Vincent et al., "Stacked Denoising Autoencoders", JMLR 11, 2010 (noise, tied weights).
    """
    if not isinstance(tied, bool):
        raise TypeError(f"`tied` must be True or False. Received: tied={tied!r}")
    shape = check_shape("input_shape", input_shape)
    units = check_sizes("units", units)
    activation_name(head_activation, argument="head_activation")
    factory = LayerFactory(
        check_fields("autoencoder", regularization, DENSE_FIELDS),
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    inputs = keras.Input(shape, name="input")
    x = inputs
    if len(shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    x = chain(x, factory.input_noise())
    build = _tied if tied else _untied
    x = build(factory, x, (math.prod(shape), *units), head_activation)  # type: ignore[arg-type]
    if len(shape) > 1:
        x = keras.layers.Reshape(shape, dtype=full_precision(), name="reshape")(x)
    return mark_unapplied(
        keras.Model(inputs, x, name=check_model_name(name)), factory.regularization
    )


def _untied(factory: LayerFactory, x: Any, sizes: Sequence[int], head_activation: Any) -> Any:
    last = len(sizes) - 1
    for i in range(1, last + 1):
        x = chain(x, factory.dense_block(sizes[i], f"_{i}", prefix="encoder_"))
    x = keras.layers.Identity(name="code")(x)
    for i in range(last - 1, 0, -1):
        x = chain(x, factory.dense_block(sizes[i], f"_{i}", prefix="decoder_"))
    return factory.head(sizes[0], head_activation)(x)


def _tied(factory: LayerFactory, x: Any, sizes: Sequence[int], head_activation: Any) -> Any:
    last = len(sizes) - 1
    layers = []
    for i in range(1, last + 1):
        layer = TiedDense(
            sizes[i],
            # backwards, the first layer is the output layer
            use_reverse_bias=factory.use_bias or i == 1,
            dtype=full_precision() if i == 1 else None,
            **factory.weights(f"encoder_dense_{i}"),
        )
        layers.append(layer)
        x = chain(layer(x), factory.after_dense(sizes[i], f"_{i}", prefix="encoder_"))
    x = keras.layers.Identity(name="code")(x)
    for i in range(last - 1, 0, -1):
        x = layers[i](x, reverse=True)
        x = chain(x, factory.after_dense(sizes[i], f"_{i}", prefix="decoder_"))
    x = layers[0](x, reverse=True)
    return keras.layers.Activation(head_activation, dtype=full_precision(), name="head")(x)
