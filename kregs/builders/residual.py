"""`resnet`: a residual network for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
from kregs.builders.layer_factory import CHANNELS_LAST, LayerFactory, chain, image_input
from kregs.builders.unapplied import mark_unapplied
from kregs.layers import ShakeDrop, ShakeShake
from kregs.regularization import Regularization
from kregs.validation import check_choice, check_integer


def resnet(
    input_shape: Sequence[int | None],
    outputs: int,
    *,
    filters: Sequence[int] = (16, 32, 64),
    blocks_per_stage: int = 2,
    kernel_size: int = 3,
    pre_activation: bool = True,
    rescaling: float | None = 1 / 255,
    activation: str | Callable | None = "relu",
    kernel_initializer: str | keras.initializers.Initializer = "auto",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = "softmax",
    use_bias: bool | None = None,
    block_size: int | None = None,
    shake: str | None = None,
    seed: int | None = None,
    name: str = "resnet",
) -> keras.Model:
    """Build a residual network of basic blocks (two convolutions each) in stages.

    The first block of each stage but the first halves the image, and its shortcut is a 1x1
    convolution; all other shortcuts are the identity. `spatial_dropout` acts between the two
    convolutions of a block, `dropout` before the output layer. Without normalization the signal
    grows with the depth: `normalization="batch"` is what the papers use.

    Stochastic depth drops whole branches, per sample: branch l of L at rate l / L * `drop_path`.
    That is Keras's own `Dropout` with a noise shape of `(batch, 1, 1, 1)`, so that the saved
    model loads without kregs.

    Args:
        input_shape: (height, width, channels); height and width may be `None`.
        outputs: number of outputs.
        filters: filters of each stage; as many stages as numbers.
        blocks_per_stage: blocks of each stage.
        kernel_size: height and width of each filter, in pixels.
        pre_activation: normalization and activation before the convolutions (He et al. 2016b);
            else after them, and the last activation after the sum (He et al. 2016a).
        rescaling: the factor the input is multiplied by, for pixels from 0 to 255 by default;
            `None` for none. `gaussian_noise` is in the units after it.
        activation, kernel_initializer, head_activation, use_bias, seed, name: as in `kregs.mlp`.
        regularization: a `kregs.Regularization`; every field has a meaning.
        block_size: with an integer, `spatial_dropout` drops squares of this side instead of whole
            feature maps (`kregs.layers.DropBlock2D`; the saved model then needs kregs, and height
            and width must be known).
        shake: `"drop"` shakes branches at the rates at which `drop_path` would drop them
            (`kregs.layers.ShakeDrop`; 0.5 is usual); `"shake"` gives each block two branches, with
            random weights (`kregs.layers.ShakeShake`). The saved model then needs kregs.

    Returns:
        An uncompiled Functional `keras.Model`: `(batch, height, width, channels)` to
        `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> r = kregs.Regularization(l2=1e-4, drop_path=0.2, normalization="batch")
    >>> model = kregs.resnet(
    ...     (28, 28, 1), 10, filters=(8, 16), blocks_per_stage=1, regularization=r
    ... )
    >>> [layer.rate for layer in model.layers if layer.name.endswith("drop_path")]
    [0.1, 0.2]

    References:
        He et al., "Deep Residual Learning", 2016 (a); He et al., "Identity Mappings in Deep
        Residual Networks", 2016 (b); Huang et al., "Deep Networks with Stochastic Depth", 2016;
        Zagoruyko, Komodakis, "Wide Residual Networks", 2016 (dropout between the convolutions);
        Gastaldi, "Shake-Shake regularization", 2017; Yamada et al., "ShakeDrop", 2019.
    """
    check_choice("shake", shake, (None, "drop", "shake"))
    if not isinstance(pre_activation, bool):
        raise TypeError(f"`pre_activation` must be True or False. Received: {pre_activation!r}")
    shape = check_shape(
        "input_shape", input_shape, rank=3, variable=(0, 1) if block_size is None else ()
    )
    filters = check_sizes("filters", filters)
    check_integer("blocks_per_stage", blocks_per_stage, minimum=1, maximum=1000)
    check_integer("kernel_size", kernel_size, minimum=1)
    outputs = check_outputs(outputs, head_activation)
    regularization = check_fields("resnet", regularization, {*CONVOLUTION_FIELDS, "drop_path"})
    check_block_size(block_size, regularization)
    if shake == "drop" and not regularization.drop_path:
        raise ValueError(
            "`regularization.drop_path` must be above 0 with shake='drop', whose rate it is, such "
            "as 0.5. Received: drop_path=0.0"
        )
    factory = LayerFactory(
        regularization,
        activation=activation,
        kernel_initializer=kernel_initializer,
        use_bias=use_bias,
        seed=seed,
    )
    inputs, *rescale = image_input(shape, rescaling)
    x = chain(inputs, [*rescale, *factory.input_noise()])
    x = factory.convolution(filters[0], "stem", kernel_size=kernel_size)(x)
    if not pre_activation:
        x = chain(x, _activate(factory, "stem", filters[0]))
    branch, branches = 0, len(filters) * blocks_per_stage
    for stage, channels in enumerate(filters, start=1):
        for block in range(1, blocks_per_stage + 1):
            branch += 1
            x = _block(
                factory,
                x,
                f"stage{stage}_block{block}",
                channels=channels,
                kernel_size=kernel_size,
                strides=2 if stage > 1 and block == 1 else 1,
                # Huang et al. 2016, section 3: linear decay of the survival probability
                drop_rate=regularization.drop_path * branch / branches,
                pre_activation=pre_activation,
                block_size=block_size,
                shake=shake,
            )
    if pre_activation:
        x = chain(x, _activate(factory, "last", filters[-1]))
    pooling = keras.layers.GlobalAveragePooling2D(data_format=CHANNELS_LAST, name="pooling")
    head = factory.head(outputs, head_activation)
    x = chain(x, [pooling, *factory.dropout("dropout"), head])
    return mark_unapplied(
        keras.Model(inputs, x, name=check_model_name(name)), factory.regularization
    )


def _activate(factory: LayerFactory, prefix: str, channels: int) -> list[keras.layers.Layer]:
    return [
        *factory.normalization(f"{prefix}_normalization", channels),
        factory.activation(f"{prefix}_activation"),
        *factory.activity_penalty(f"{prefix}_activity"),
    ]


def _block(
    factory: LayerFactory,
    x: Any,
    prefix: str,
    *,
    channels: int,
    kernel_size: int,
    strides: int,
    drop_rate: float,
    pre_activation: bool,
    block_size: int | None,
    shake: str | None,
) -> Any:
    """Return `x` plus two convolutions of it, or plus two such branches."""
    shortcut = x
    # a shortcut through a 1x1 convolution needs no bias: the branch has what is needed
    project = strides > 1 or x.shape[-1] != channels
    projection = factory.convolution(
        channels,
        f"{prefix}_shortcut",
        kernel_size=1,
        strides=strides,
        activation="linear",
        use_bias=False,
    )
    if shake == "drop" and drop_rate:
        name = f"{prefix}_shake_drop"
        drop_path: list[keras.layers.Layer] = [
            ShakeDrop(drop_rate, seed=factory.seeds(name), name=name)
        ]
    else:
        drop_path = factory.dropout(
            f"{prefix}_drop_path", rate=drop_rate, noise_shape=(None, 1, 1, 1)
        )
    add = keras.layers.Add(name=f"{prefix}_add")

    def branch(x: Any, prefix: str) -> Any:
        first = factory.convolution(
            channels, f"{prefix}_convolution1", kernel_size=kernel_size, strides=strides
        )
        second = factory.convolution(channels, f"{prefix}_convolution2", kernel_size=kernel_size)
        between = factory.spatial_dropout(f"{prefix}_spatial_dropout", block_size=block_size)
        inner = _activate(factory, f"{prefix}_{2 if pre_activation else 1}", channels)
        last = (
            [] if pre_activation else factory.normalization(f"{prefix}_2_normalization", channels)
        )
        return chain(x, [first, *inner, *between, second, *last])

    def branches(x: Any) -> Any:
        if shake != "shake":
            return chain(branch(x, prefix), drop_path)
        name = f"{prefix}_shake"
        join = ShakeShake(seed=factory.seeds(name), name=name)
        return chain(join([branch(x, prefix), branch(x, f"{prefix}_other")]), drop_path)

    if pre_activation:
        x = chain(x, _activate(factory, f"{prefix}_1", x.shape[-1]))
        if project:
            shortcut = projection(x)  # of the activated input, as in the authors' code
        return add([shortcut, branches(x)])
    if project:
        normalization = factory.normalization(f"{prefix}_shortcut_normalization", channels)
        shortcut = chain(x, [projection, *normalization])
    return chain(
        add([shortcut, branches(x)]),
        [
            factory.activation(f"{prefix}_2_activation"),
            *factory.activity_penalty(f"{prefix}_2_activity"),
        ],
    )
