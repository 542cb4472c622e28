"""Stacked forms of kregs's own layers."""

from __future__ import annotations

from typing import ClassVar

import keras
import tensorflow as tf

from kregs.layers import DropBlock2D, FlatCosineDropout, TiedDense
from kregs.layers.flat_cosine_dropout import flat_cosine
from kregs.population.layers.noise import NoiseLayer
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked
from kregs.population.threefry import Noise


@register(DropBlock2D)
class StackedDropBlock2D(NoiseLayer):
    """Dropout of squares; what is left is scaled by the mean over each member's own batch."""

    numbers = ("rate",)
    absent: ClassVar[dict[str, float]] = {"rate": 0.0}
    accelerated = False

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        batch, height, width, channels = self._shape(x)
        side = min(self.layer.block_size, height, width)
        corners = [batch, height - side + 1, width - side + 1, channels]
        rate = tf.cast(self.number("rate"), tf.float32)
        probability = rate * height * width / (side**2 * corners[1] * corners[2])
        kept = noise.kept(corners, self.stream, probability)
        corner = Stacked(1.0 - tf.cast(kept, tf.float32), self.members).channels_packed()
        border = [side - 1, side - 1]
        corner = tf.pad(corner, [[0, 0], border, border, [0, 0]])
        keep = 1.0 - tf.nn.max_pool2d(corner, side, 1, "VALID")
        scale = 1.0 / tf.maximum(self._means(keep, context.rows), keras.config.epsilon())
        packed = Stacked(keep, self.members, packed=True)
        kept_blocks = packed.value if x.packed else packed.member_first()
        return x.like(x.value * tf.cast(kept_blocks, x.value.dtype) * self._along(x, scale))

    def _means(self, packed: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
        """The mean of each member's real rows, `(K,)`."""
        by_row = tf.reduce_mean(packed, [1, 2])
        by_row = tf.reduce_mean(
            tf.reshape(by_row, [-1, self.members, packed.shape[-1] // self.members]), 2
        )
        if rows is None:
            return tf.reduce_mean(by_row, 0)
        weight = tf.cast(tf.transpose(rows), by_row.dtype)
        return tf.reduce_sum(by_row * weight, 0) / tf.maximum(tf.reduce_sum(weight, 0), 1.0)


@register(FlatCosineDropout)
class StackedFlatCosineDropout(NoiseLayer):
    """Dropout whose rate, schedule and count of steps are each member's own."""

    numbers = ("rate", "steps", "flat")

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        counter = self.weight("step")
        step = context.value_of(counter)
        context.updates.append((counter, step + 1))
        part = tf.cast(step, self.number("steps").dtype) / self.number("steps")
        rate = self.number("rate") * flat_cosine(part, self.number("flat"))
        kept = self._like(x, noise.kept(self._shape(x), self.stream, rate))
        scaled = x.value / (1 - self._along(x, rate))
        return x.like(tf.where(kept, scaled, tf.zeros([], scaled.dtype)))


@register(TiedDense)
class StackedTiedDense(StackedLayer):
    """One kernel a member, used in both directions."""

    arguments = ("reverse",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        reverse = self.set_arguments.get("reverse", False)
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        kernel = tf.cast(self.weight("kernel"), value.dtype)
        y = tf.matmul(value, kernel, transpose_b=reverse)
        name = "reverse_bias" if reverse else "bias"
        if getattr(self.layer, name) is not None:
            y = y + tf.cast(self.weight(name), y.dtype)[:, None, :]
        return self.output(y)
