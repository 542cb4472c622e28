"""What a Keras layer is to `regularize`: hidden activation, output layer, dropout, kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kregs.initializers import activation_name
from kregs.layers import DropBlock2D

L = keras.layers

KERNELS = ("kernel", "recurrent", "depthwise", "pointwise")
CONVOLUTIONS = (
    L.Conv1D, L.Conv2D, L.Conv3D, L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose,
    L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D,
)  # fmt: skip
DROPOUTS = (L.Dropout, L.AlphaDropout, L.GaussianDropout)
SPATIAL_DROPOUTS = {3: L.SpatialDropout1D, 4: L.SpatialDropout2D, 5: L.SpatialDropout3D}
NORMALIZATIONS = (
    L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.RMSNormalization,
)  # fmt: skip
ACTIVATIONS = (L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU)
_DENSE = (
    L.Dense, L.LSTM, L.GRU, L.SimpleRNN, L.LSTMCell, L.GRUCell, L.SimpleRNNCell,
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
    return any(True for _ in weight_configs(config_of(layer)))


def config_of(layer: Any) -> dict[str, Any]:
    """Return an operation's or layer's config, without Keras's warning of what a file cannot hold.

    Raises:
        TypeError: the layer holds what Keras finds no config of, such as a `functools.partial`.

    Example:

    >>> config_of(L.Dense(3))["units"]
    3
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        try:
            return layer.get_config()
        except TypeError as error:
            raise TypeError(
                f"`model` must have layers that Keras can copy. Received: {layer.name!r} of "
                f"type {type(layer).__name__}: {error} Write a function in place of "
                "a functools.partial"
            ) from error


def has_weights(layer: Any) -> bool:
    """Whether a layer has weights that make something new of its input: no mere scale or shift.

    Example:

    >>> layers = [L.Embedding(2, 1), L.BatchNormalization(), L.Flatten()]
    >>> for layer in layers:
    ...     layer.build((None, 3))
    >>> [has_weights(layer) for layer in layers]
    [True, False, False]
    """
    scales = (*NORMALIZATIONS, *ACTIVATIONS, L.Normalization)
    return (
        isinstance(layer, keras.layers.Layer)
        and bool(layer.weights)
        and not isinstance(layer, scales)
    )


def weight_configs(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configs, those of layers within too, that have a kernel to penalize.

    Example:

    >>> [config["name"] for config in weight_configs(L.Dense(1, name="a").get_config())]
    ['a']
    """
    found: list[dict[str, Any]] = []

    def note(kind: str | None, config: dict[str, Any]) -> dict[str, Any]:
        if has_kernel_config(config):
            found.append(config)
        return config

    change_configs(config, note)
    yield from found


def has_kernel_config(config: dict[str, Any]) -> bool:
    """Whether a layer's config has the penalty of a kernel, be it `None`.

    Example:

    >>> has_kernel_config(L.Dense(1).get_config())
    True
    """
    return any(f"{kernel}_regularizer" in config for kernel in KERNELS)


def change_configs(
    config: dict[str, Any],
    change: Callable[[str | None, dict[str, Any]], dict[str, Any]],
    *,
    class_name: str | None = None,
) -> dict[str, Any]:
    """Return a layer's config with `change` applied to it and to those of all layers within.

    Args:
        config: what `get_config()` returned; it is not changed.
        change: a function of the class's name (`None` for the outermost) and a config that may be
            changed, to the config to take.
        class_name: of the layer that the config is of.

    Example:

    >>> config = L.TimeDistributed(L.Dense(1, name="a"), name="b").get_config()
    >>> change_configs(config, lambda kind, c: {**c, "name": "new"})["layer"]["config"]["name"]
    'new'
    """

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("config"), dict) and isinstance(value.get("class_name"), str):
                inner = change_configs(value["config"], change, class_name=value["class_name"])
                return {**value, "config": inner}
            return {key: changed(part) for key, part in value.items()}
        if type(value) in (list, tuple):
            return type(value)(changed(part) for part in value)
        return value

    return change(class_name, {key: changed(part) for key, part in config.items()})


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
    """Whether a layer drops whole channels, or squares of them.

    Example:

    >>> is_spatial_dropout(L.SpatialDropout1D(0.1)), is_spatial_dropout(L.Dropout(0.1))
    (True, False)
    """
    return isinstance(layer, (*SPATIAL_DROPOUTS.values(), DropBlock2D))


def is_dropout(layer: Any) -> bool:
    """Whether a layer is dropout in any of its forms, but not of whole channels.

    Example:

    >>> is_dropout(L.SpatialDropout1D(0.1)), is_dropout(L.AlphaDropout(0.1))
    (False, True)
    """
    return isinstance(layer, DROPOUTS) and not is_spatial_dropout(layer)


def data_format(layer: Any) -> str:
    """Return where a layer has its channels: its own setting or Keras's.

    Example:

    >>> data_format(L.Conv2D(8, 3, data_format="channels_first"))
    'channels_first'
    """
    return getattr(layer, "data_format", None) or keras.config.image_data_format()


def norm_axis(kind: type, kernel: str) -> int | list[int] | None:
    """Return the axes of a kernel that lead into one unit or filter, or `None` if not known.

    Args:
        kind: the class of the layer that has it.
        kernel: which of its kernels: one of `KERNELS`.

    Example:

    >>> norm_axis(L.Dense, "kernel"), norm_axis(L.Conv2D, "kernel")
    (0, [0, 1, 2])
    """
    if issubclass(kind, _DENSE):
        return 0
    base = next((base for base in CONVOLUTIONS if issubclass(kind, base)), None)
    if base is None:
        return None
    rank = next(rank for rank in (1, 2, 3) if f"{rank}D" in base.__name__)
    space = list(range(rank))
    if kernel == "depthwise":
        return space
    if issubclass(kind, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
        return [*space, rank + 1]  # the last axis counts the inputs
    return [*space, rank]
