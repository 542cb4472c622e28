"""Stacked forms of kregs's own layers."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from kregs.layers import AdversarialInput, DropBlock2D, FlatCosineDropout, RowMix, TiedDense
from kregs.layers.flat_cosine_dropout import flat_cosine
from kregs.layers.row_mix import cut_columns
from kregs.population.layers.noise import NoiseLayer
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked, per_member
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


@register(RowMix)
class StackedRowMix(NoiseLayer):
    """Rows mixed within each member's own batch, by numbers of its own; see `Context.mix`."""

    numbers = ("mixup", "cutmix", "cutout", "cutout_ratio")
    absent: ClassVar[dict[str, float]] = {"mixup": 0.0, "cutmix": 0.0, "cutout": 0.0}

    def add_noise(self, x: Stacked, noise: Noise, context: Context) -> Stacked:
        value = x.member_first()
        draws = tf.unstack(noise.uniform([4], self.stream), axis=1)
        mixup, cutmix, cutout, ratio = map(self.number, self.numbers)
        partner = self._partners(x, noise, context)
        others = tf.gather(value, partner, batch_dims=1)
        weight = beta_quantile(mixup, draws[0])
        rank = len(value.shape)  # member-first, which a convolution's output is not
        share = per_member(tf.cast(weight, value.dtype), rank)
        mixed = share * value + (1 - share) * others
        value = tf.where(per_member(mixup > 0, rank), mixed, value)
        if len(value.shape) == 3:  # of no other the layer cuts columns
            columns, kept = self._cut(value, noise, 2, draws[1], cutmix, draws[2])
            value = tf.where(columns, others, value)
            weight = tf.where(mixup > 0, weight, tf.cast(kept, weight.dtype))
            columns, _ = self._cut(value, noise, 3, ratio, cutout, draws[3])
            value = tf.where(columns, tf.zeros([], value.dtype), value)
        context.mix = partner, weight
        return self.output(value)

    def _partners(self, x: Stacked, noise: Noise, context: Context) -> tf.Tensor:
        """A permutation of each member's real rows, which come first, `(K, batch)`."""
        order = noise.normal(self._shape(x)[:1], self.further_stream(1))
        if context.rows is not None:
            order = tf.where(context.rows > 0, order, tf.fill([], order.dtype.max))
        return tf.argsort(order, axis=1, stable=True)

    def _cut(
        self, value: tf.Tensor, noise: Noise, number: int, share: Any, probability: Any, draw: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Which columns of each member are cut, `(K, 1, columns)`, and the share of the others."""
        count = value.shape[-1]
        cut = cut_columns(share, count) * tf.cast(draw < tf.cast(probability, draw.dtype), tf.int32)
        order = noise.normal([count], self.further_stream(number))
        places = tf.argsort(tf.argsort(order, axis=1), axis=1)
        return (places < cut[:, None])[:, None, :], 1.0 - tf.cast(cut, tf.float32) / count


def beta_quantile(alpha: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Return numbers of Beta(alpha, alpha) where its distribution function is `uniform`.

    Found by halving, so that members with vectors of `alpha` draw with one uniform number each.
    Where `alpha` is 0 it is 1.
    """
    alpha = tf.cast(alpha, uniform.dtype)
    # below it the distribution is at 0 and 1 to all digits
    safe = tf.maximum(alpha, 1e-3)

    def halve(times: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tuple:
        middle = (low + high) / 2
        below = tf.math.betainc(safe, safe, middle) < uniform
        return times + 1, tf.where(below, middle, low), tf.where(below, high, middle)

    bounds = tf.zeros_like(uniform), tf.ones_like(uniform)
    _, low, high = tf.while_loop(
        lambda times, *_: times < 24, halve, (tf.constant(0), *bounds), maximum_iterations=24
    )
    return tf.where(alpha > 0, (low + high) / 2, tf.ones_like(low))


@register(AdversarialInput)
class StackedAdversarialInput(StackedLayer):
    """The identity; the program makes the adversarial rows, see `Context.adversarial`."""

    numbers = ("epsilon", "share")
    absent: ClassVar[dict[str, float]] = {"epsilon": 0.0, "share": 0.0}

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        if context.training:
            context.adversarial = self.number("epsilon"), self.number("share")
        return x


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
