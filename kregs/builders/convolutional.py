"""`convnet`: a plain convolutional network for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from kregs.builders.arguments import (
    CONVOLUTION_FIELDS,
    check_block_size,
    check_fields,
    check_model_name,
    check_outputs,
    check_shape,
    check_sizes,
)
from kregs.builders.layer_factory import CHANNELS_LAST, LayerFactory, image_input
from kregs.builders.unapplied import mark_unapplied
from kregs.regularization import Regularization
from kregs.validation import check_choice, check_integer

POOLINGS = ("flatten", "average", "max")


def convnet(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    filters: Sequence[int] = (32, 64),
    kernel_size: int = 3,
    convolutions_per_block: int = 1,
    dense_units: Sequence[int] = (),
    pooling: str = "flatten",
    rescaling: float | None = 1 / 255,
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    use_bias: bool | None = None,
    block_size: int | None = None,
    seed: int | None = None,
    name: str = "convnet",
) -> keras.Sequential:
    """Build a convolutional network: blocks that halve the image, then dense layers.

    A block is `convolutions_per_block` times convolution, normalization, activation, activity
    penalty; then spatial dropout and 2x2 max-pooling. After the blocks the features become a
    vector, and dropout comes before the first dense layer and after each hidden one. The output
    layer has the kernel and bias penalties, but no dropout after it and no activity penalty, and
    computes in float32 under mixed precision.

    Args:
        input_shape: (height, width, channels). Height and width may be `None` with `pooling`
            `"average"` or `"max"`.
        outputs: number of outputs.
        filters: filters of each block; as many blocks as numbers.
        kernel_size: height and width of each filter, in pixels.
        convolutions_per_block: how many convolutions come before each pooling.
        dense_units: units of each hidden dense layer, or none.
        pooling: `"flatten"` to keep every position, `"average"` or `"max"` over all positions.
        rescaling: the factor the input is multiplied by, for pixels from 0 to 255 by default;
            `None` for none. `gaussian_noise` is in the units after it.
        activation, kernel_initializer, head_activation, use_bias, seed, name: as in `kregs.mlp`.
        regularization: a `kregs.Regularization`; `drop_path` has no meaning here.
        block_size: with an integer, `spatial_dropout` drops squares of this side instead of whole
            feature maps (`kregs.layers.DropBlock2D`; the saved model then needs kregs).

    Returns:
        An uncompiled, built `keras.Sequential`: `(batch, height, width, channels)` to
        `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> model = kregs.convnet(
    ...     (28, 28, 1), 10, regularization=kregs.Regularization(l2=1e-4, spatial_dropout=0.1)
    ... )
    >>> [layer.name for layer in model.layers][1:5]
    ['block1_convolution1', 'block1_activation1', 'block1_spatial_dropout', 'block1_pooling']
    >>> model.output_shape
    (None, 10)

    References:
        Simonyan, Zisserman, "Very Deep Convolutional Networks", 2015; Tompson et al., "Efficient
        Object Localization Using Convolutional Networks", 2015 (spatial dropout); Lin et al.,
        "Network in Network", 2014 (global average pooling).
    """
    check_choice("pooling", pooling, POOLINGS)
    shape = check_shape(
        "input_shape", input_shape, rank=3, variable=() if pooling == "flatten" else (0, 1)
    )
    filters = check_sizes("filters", filters)
    _check_blocks(shape, filters)
    check_integer("kernel_size", kernel_size, minimum=1)
    check_integer("convolutions_per_block", convolutions_per_block, minimum=1, maximum=1000)
    dense_units = check_sizes("dense_units", dense_units, empty=True)
    outputs = check_outputs(outputs, head_activation)
    regularization = check_fields("convnet", regularization, CONVOLUTION_FIELDS)
    check_block_size(block_size, regularization)
    factory = LayerFactory(
        regularization,
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    layers = [*image_input(shape, rescaling), *factory.input_noise()]
    for b, channels in enumerate(filters, start=1):
        for c in range(1, convolutions_per_block + 1):
            layers += [
                factory.convolution(channels, f"block{b}_convolution{c}", kernel_size=kernel_size),
                *factory.normalization(f"block{b}_normalization{c}", channels),
                factory.activation(f"block{b}_activation{c}"),
                *factory.activity_penalty(f"block{b}_activity{c}"),
            ]
        layers += factory.spatial_dropout(f"block{b}_spatial_dropout", block_size=block_size)
        layers.append(
            keras.layers.MaxPooling2D(2, data_format=CHANNELS_LAST, name=f"block{b}_pooling")
        )
    layers += [_to_vector(pooling), *factory.dropout("dropout_0")]
    for i, size in enumerate(dense_units, start=1):
        layers += factory.dense_block(size, f"_{i}")
    layers.append(factory.head(outputs, head_activation))
    return mark_unapplied(
        keras.Sequential(layers, name=check_model_name(name)), factory.regularization
    )


def _check_blocks(shape: Sequence[int | None], filters: Sequence[int]) -> None:
    side = min([size for size in shape[:2] if size is not None], default=None)
    if side is not None and side >> len(filters) == 0:
        raise ValueError(
            f"`filters` makes {len(filters)} blocks, each of which halves the image: expected at "
            f"most {side.bit_length() - 1} for a side of {side}. Received: filters={filters!r}, "
            f"input_shape={shape!r}"
        )


def _to_vector(pooling: str) -> keras.layers.Layer:
    if pooling == "flatten":
        return keras.layers.Flatten(name="flatten")
    if pooling == "average":
        return keras.layers.GlobalAveragePooling2D(data_format=CHANNELS_LAST, name="pooling")
    return keras.layers.GlobalMaxPooling2D(data_format=CHANNELS_LAST, name="pooling")
