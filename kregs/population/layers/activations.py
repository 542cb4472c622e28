"""Stacked activations: functions number by number in any layout, and layers that have a slope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked, per_member

Activation = Callable[[Any], Any]

_ELEMENTWISE = frozenset(
    keras.activations.get(name)
    for name in (
        "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh",
        "sigmoid", "softplus", "softsign", "exponential", "linear", "hard_sigmoid", "hard_silu",
        "hard_tanh", "hard_shrink", "tanh_shrink", "soft_shrink", "threshold", "squareplus",
        "log_sigmoid", "sparse_plus",
    )
)  # fmt: skip


def apply_activation(activation: Activation | None, value: tf.Tensor) -> tf.Tensor:
    """Apply a Keras activation that looks at no axis but the last; `None` is the identity."""
    return value if activation is None else activation(value)


def is_elementwise(activation: Activation | None) -> bool:
    """Return whether an activation treats each number by itself, so that any layout will do."""
    return activation is None or activation in _ELEMENTWISE


def activate(activation: Activation | None, x: Stacked) -> Stacked:
    """Apply an activation in the layout that it needs."""
    if is_elementwise(activation):
        return x.like(apply_activation(activation, x.value))
    return Stacked(apply_activation(activation, x.member_first()), x.members)


@register(
    keras.layers.Activation, keras.layers.ReLU, keras.layers.ELU, keras.layers.Softmax,
    keras.layers.Rescaling, keras.layers.Identity,
)  # fmt: skip
class StackedActivation(StackedLayer):
    """Activations; those that treat each number by itself take any layout."""

    @classmethod
    def check(cls, layer) -> None:
        axis = getattr(layer, "axis", -1)
        if axis != -1:
            raise NotStackable(f"layer {layer.name!r} works along axis {axis}, not the last")
        scale = getattr(layer, "scale", 1.0)
        if isinstance(layer, keras.layers.Rescaling) and not isinstance(scale, (int, float)):
            raise NotStackable(f"layer {layer.name!r} has one scale a channel")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        if isinstance(layer, keras.layers.Identity):
            return x
        if isinstance(layer, keras.layers.Activation):
            return activate(layer.activation, x)
        if isinstance(layer, keras.layers.Softmax):
            return self.output(layer.call(x.member_first()))
        value = tf.cast(x.value, layer.compute_dtype)
        return x.like(layer.call(value))


@register(keras.layers.PReLU)
class StackedPReLU(StackedLayer):
    """ReLU with a learned slope for each member."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        slope = tf.cast(self.weight("alpha"), value.dtype)[:, None]
        return self.output(tf.nn.relu(value) - slope * tf.nn.relu(-value))


@register(keras.layers.LeakyReLU)
class StackedLeakyReLU(StackedLayer):
    """The slope is a mere number, so it may differ between members."""

    numbers = ("negative_slope",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        slope = tf.cast(per_member(self.number("negative_slope"), len(value.shape)), value.dtype)
        return self.output(tf.where(value > 0, value, slope * value))
