"""Stacked dropout and Gaussian noise: rates are vectors, every member draws with its own seed.

These layers do nothing at rate 0, so they may stand in some members only.
"""

from __future__ import annotations

from typing import ClassVar

import keras
import tensorflow as tf

from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked, per_channel, per_member
from kregs.population.threefry import Noise


class NoiseLayer(StackedLayer):
    """The identity but in training; draws in the layout of its input. Implement `add_noise`."""

    ignored = ("seed",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        noise = context.noise if context.training else None
        return x if noise is None else self.add_noise(x, noise, context)

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        """Return the input with this step's noise."""
        raise NotImplementedError

    def _shape(self, x: Stacked, noise_shape: list | None = None) -> list:
        """The shape of one member's noise, batch first."""
        value = x.value
        axis = 0 if x.packed else 1
        batch = tf.shape(value)[axis] if value.shape[axis] is None else value.shape[axis]
        shape = [batch, *value.shape[axis + 1 :]]
        if x.packed:
            shape[-1] //= self.members
        if noise_shape is None:
            return shape
        return [
            full if size is None else size for size, full in zip(noise_shape, shape, strict=True)
        ]

    def _like(self, x: Stacked, draws: tf.Tensor) -> tf.Tensor:
        """Member-first draws in the layout of `x`."""
        if not x.packed:
            return draws
        if draws.shape[-1] == 1:  # one draw for all channels: packed, it would be one a member
            draws = tf.repeat(draws, x.value.shape[-1] // self.members, axis=-1)
        return Stacked(draws, self.members).channels_packed()

    def _normal(self, x: Stacked, noise: Noise) -> tf.Tensor:
        normal = noise.normal(self._shape(x), self.stream)
        return self._like(x, tf.cast(normal, x.value.dtype))

    def _along(self, x: Stacked, vector: tf.Tensor) -> tf.Tensor:
        """A vector of K, broadcast along `x.value`."""
        vector = tf.cast(vector, x.value.dtype)
        rank = len(x.value.shape)
        if not x.packed:
            return per_member(vector, rank)
        return per_channel(vector, x.value.shape[-1] // self.members, rank)


@register(keras.layers.Dropout)
class StackedDropout(NoiseLayer):
    """Inverted dropout with one rate a member."""

    numbers = ("rate",)
    absent: ClassVar[dict[str, float]] = {"rate": 0.0}

    def _noise_shape(self, x: Stacked) -> list | None:
        noise_shape = self.layer.noise_shape
        return None if noise_shape is None else list(noise_shape)

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        shape = self._shape(x, self._noise_shape(x))
        rate = self.number("rate")
        kept = self._like(x, noise.kept(shape, self.stream, rate))
        scaled = x.value / (1 - self._along(x, rate))
        return x.like(tf.where(kept, scaled, tf.zeros([], scaled.dtype)))


@register(
    keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D
)
class StackedSpatialDropout(StackedDropout):
    """Dropout of whole feature maps."""

    def _noise_shape(self, x: Stacked) -> list:
        rank = len(x.value.shape) - (0 if x.packed else 1)
        return [None, *[1] * (rank - 2), None]


@register(keras.layers.GaussianDropout)
class StackedGaussianDropout(NoiseLayer):
    """Multiplication by noise of mean 1 and variance rate / (1 - rate)."""

    numbers = ("rate",)
    absent: ClassVar[dict[str, float]] = {"rate": 0.0}

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        rate = self.number("rate")
        deviation = self._along(x, tf.sqrt(rate / (1 - rate)))
        return x.like(x.value * (1 + deviation * self._normal(x, noise)))


@register(keras.layers.GaussianNoise)
class StackedGaussianNoise(NoiseLayer):
    """Addition of noise with one standard deviation a member."""

    numbers = ("stddev",)
    absent: ClassVar[dict[str, float]] = {"stddev": 0.0}

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        deviation = self._along(x, self.number("stddev"))
        return x.like(x.value + deviation * self._normal(x, noise))


@register(keras.layers.ActivityRegularization)
class StackedActivityRegularization(StackedLayer):
    """The identity; its coefficients reach the engine as the layer's activity regularizer."""

    ignored = ("l1", "l2")
    absent: ClassVar[dict[str, float]] = {"l1": 0.0}

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        return x
