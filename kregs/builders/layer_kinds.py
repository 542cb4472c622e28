"""What a Keras layer is to `regularize`: hidden activation, output layer, dropout, kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kregs.initializers import activation_name

L = keras.layers

KERNELS = ("kernel", "recurrent", "depthwise", "pointwise")
_INNER = ("layer", "backward_layer", "cell")  # where the config of a wrapper holds another's
CONVOLUTIONS = (
    L.Conv1D, L.Conv2D, L.Conv3D, L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose,
    L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D,
)  # fmt: skip
SPATIAL_DROPOUTS = {3: L.SpatialDropout1D, 4: L.SpatialDropout2D, 5: L.SpatialDropout3D}
NORMALIZATIONS = (
    L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.RMSNormalization,
)  # fmt: skip
ACTIVATIONS = (L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU)
RESHAPES = (
    L.Flatten, L.Reshape, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D,
    L.GlobalMaxPooling1D, L.GlobalMaxPooling2D,
)  # fmt: skip
# what an output has, or a gate, but no hidden layer
_NOT_HIDDEN = ("linear", "softmax", "log_softmax", "sigmoid", "hard_sigmoid")


def has_kernel(layer: Any) -> bool:
    """Whether a layer, or the one that it wraps, has a kernel to penalize.

    Example:

    >>> has_kernel(L.TimeDistributed(L.Dense(1))), has_kernel(L.ReLU())
    (True, False)
    """
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False
    return any(True for _ in weight_configs(layer.get_config()))


def weight_configs(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configs, a wrapper's inner ones too, that have a kernel to penalize.

    Example:

    >>> [config["name"] for config in weight_configs(L.Dense(1, name="a").get_config())]
    ['a']
    """
    if any(f"{kernel}_regularizer" in config for kernel in KERNELS):
        yield config
    for key in _INNER:
        inner = config.get(key)
        if isinstance(inner, dict) and isinstance(inner.get("config"), dict):
            yield from weight_configs(inner["config"])


def _activation_of(layer: Any) -> str:
    """Return the name of the activation that a layer is or has within."""
    if isinstance(layer, (L.Bidirectional, L.TimeDistributed)):
        layer = layer.forward_layer if isinstance(layer, L.Bidirectional) else layer.layer
    if isinstance(layer, ACTIVATIONS) and not isinstance(layer, L.Activation):
        return "relu"
    return activation_name(getattr(layer, "activation", None))


def is_hidden_activation(layer: Any) -> bool:
    """Whether what a layer puts out is a hidden activation, by itself or by its argument.

    Example:

    >>> is_hidden_activation(L.Dense(1, "relu")), is_hidden_activation(L.Dense(1))
    (True, False)
    """
    is_one = isinstance(layer, ACTIVATIONS) or has_kernel(layer)
    return is_one and _activation_of(layer) not in _NOT_HIDDEN


def is_output_activation(layer: Any) -> bool:
    """Whether a layer is an activation that only outputs have, such as softmax.

    Example:

    >>> is_output_activation(L.Softmax()), is_output_activation(L.Activation("relu"))
    (True, False)
    """
    return isinstance(layer, (L.Activation, L.Softmax)) and (
        isinstance(layer, L.Softmax) or _activation_of(layer) in _NOT_HIDDEN
    )


def is_head(layer: Any) -> bool:
    """Whether a layer at the end of a model is its output layer, not the end of its features.

    Example:

    >>> is_head(L.Dense(1, "relu")), is_head(L.Conv2D(8, 3, activation="relu"))
    (True, False)
    """
    # a convolution with ReLU ends a feature extractor, and is no output layer
    return has_kernel(layer) and (
        isinstance(layer, (L.Dense, L.EinsumDense)) or not is_hidden_activation(layer)
    )


def is_spatial_dropout(layer: Any) -> bool:
    """Whether a layer drops whole channels.

    Example:

    >>> is_spatial_dropout(L.SpatialDropout1D(0.1)), is_spatial_dropout(L.Dropout(0.1))
    (True, False)
    """
    return isinstance(layer, tuple(SPATIAL_DROPOUTS.values()))


def is_dropout(layer: Any) -> bool:
    """Whether a layer is dropout, but not of whole channels.

    Example:

    >>> is_dropout(L.SpatialDropout1D(0.1)), is_dropout(L.Dropout(0.1))
    (False, True)
    """
    return isinstance(layer, L.Dropout) and not is_spatial_dropout(layer)


def output_rank(layer: Any) -> int:
    """Return the number of axes of a layer's output, the batch's included; 0 if it has several.

    Example:

    >>> output_rank(keras.Sequential([keras.Input((8, 8, 3)), L.ReLU()]).layers[0])
    4
    """
    output = layer.output
    return len(output.shape) if hasattr(output, "shape") else 0


def data_format(layer: Any) -> str:
    """Return where a layer has its channels: its own setting or Keras's.

    Example:

    >>> data_format(L.Conv2D(8, 3, data_format="channels_first"))
    'channels_first'
    """
    return getattr(layer, "data_format", None) or keras.config.image_data_format()


def norm_axis(layer: Any, kernel: str) -> int | list[int] | None:
    """Return the axes of a kernel that lead into one unit or filter, or `None` if not known.

    Args:
        layer: the layer that has it.
        kernel: which of its kernels: one of `KERNELS`.

    Example:

    >>> norm_axis(L.Dense(1), "kernel"), norm_axis(L.Conv2D(8, 3), "kernel")
    (0, [0, 1, 2])
    """
    if isinstance(layer, L.Bidirectional):
        layer = layer.forward_layer
    elif isinstance(layer, L.TimeDistributed):
        layer = layer.layer
    if isinstance(layer, (L.Dense, L.LSTM, L.GRU, L.SimpleRNN)):
        return 0
    if not isinstance(layer, CONVOLUTIONS):
        return None
    space = list(range(layer.rank))
    if kernel == "depthwise":
        return space
    if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
        return [*space, layer.rank + 1]  # the last axis counts the inputs
    return [*space, layer.rank]
