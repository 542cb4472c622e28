"""`mlp`: a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from kregs.builders.arguments import (
    DENSE_FIELDS,
    check_fields,
    check_model_name,
    check_outputs,
    check_shape,
    check_sizes,
)
from kregs.builders.layer_factory import LayerFactory
from kregs.builders.unapplied import mark_unapplied
from kregs.regularization import Regularization


def mlp(
    input_shape: Sequence[int],
    outputs: int,
    *,
    units: Sequence[int],
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    use_bias: bool | None = None,
    seed: int | None = None,
    name: str = "mlp",
) -> keras.Sequential:
    """Build a multilayer perceptron.

    Each hidden layer is Dense, normalization, activation, activity penalty, dropout. The output
    layer has the kernel and bias penalties, but no dropout after it and no activity penalty, and
    computes in float32 under mixed precision. Normalization parameters are never penalized.

    Args:
        input_shape: shape of one sample. More than one axis is flattened.
        outputs: number of outputs.
        units: units of each hidden layer, at least one. Without any, see `kregs.linear`.
        activation: of the hidden layers: a Keras name, a function, or a layer, which is copied.
        kernel_initializer: `"auto"` for what suits the activation (see
            `kregs.initializer_for`), or a Keras initializer, of which every layer gets its own.
        regularization: a `kregs.Regularization`; `spatial_dropout` and `drop_path` have no
            meaning here.
        head_activation: of the output: `"softmax"` for classes, `"sigmoid"` for two classes with
            `outputs=1`, `None` for regression.
        use_bias: of the hidden layers; default: only where no normalization follows.
        seed: integer: every initializer, noise and dropout layer gets its own seed made from it
            and from the layer's name. `None`: random.
        name: the model's name.

    Returns:
        An uncompiled, built `keras.Sequential`: `(batch, *input_shape)` to `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> model = kregs.mlp(
    ...     (64,), 10, units=(32,), regularization=kregs.Regularization(l2=1e-4, dropout=0.3)
    ... )
    >>> [layer.name for layer in model.layers]
    ['dense_1', 'dense_activation_1', 'dropout_1', 'head']
    >>> model.output_shape
    (None, 10)

    References:
        Srivastava et al., "Dropout", 2014; Ioffe, Szegedy, "Batch Normalization", 2015 (before
        the activation, in place of the bias); Li et al., "Understanding the Disharmony between
        Dropout and Batch Normalization by Variance Shift", 2019 (dropout after normalization).
    """
    shape = check_shape("input_shape", input_shape)
    units = check_sizes("units", units)
    outputs = check_outputs(outputs, head_activation)
    factory = LayerFactory(
        check_fields("mlp", regularization, DENSE_FIELDS),
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    layers = [keras.Input(shape, name="input")]
    if len(shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten"))
    layers += factory.input_noise()
    for i, size in enumerate(units, start=1):
        layers += factory.dense_block(size, f"_{i}")
    layers.append(factory.head(outputs, head_activation))
    return mark_unapplied(
        keras.Sequential(layers, name=check_model_name(name)), factory.regularization
    )
