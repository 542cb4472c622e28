"""Stacked ShakeShake and ShakeDrop: every member draws the weights of its branches by its seed."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from kregs.layers.shake import ShakeDrop, ShakeShake, shaken
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked, per_member
from kregs.population.threefry import Noise


class _Shaking(StackedLayer):
    ignored: ClassVar[tuple[str, ...]] = ("seed",)

    def _uniform(self, value: tf.Tensor, noise: Noise, number: int) -> tf.Tensor:
        """Numbers in [0, 1] for each row of each member, or one a member, along a tensor."""
        batch = tf.shape(value)[1] if value.shape[1] is None else value.shape[1]
        rows = batch if self.layer.level == "sample" else 1
        drawn = noise.uniform([rows], self.further_stream(number))
        shape = [self.members, -1] + [1] * (len(value.shape) - 2)
        return tf.cast(tf.reshape(drawn, shape), value.dtype)


@register(ShakeShake)
class StackedShakeShake(_Shaking):
    """Two branches, weighted for each member by itself."""

    def call(self, first: Stacked, second: Stacked, *, context: Context) -> Stacked:
        one, other = first.member_first(), second.member_first()
        noise = context.noise
        if not context.training or noise is None:
            return self.output(0.5 * one + 0.5 * other)

        def weight(mode: str, number: int) -> Any:
            even = tf.constant(0.5, one.dtype)
            return even if mode == "even" else self._uniform(one, noise, number)

        a = weight(self.layer.forward, 1)
        b = a if self.layer.backward == "keep" else weight(self.layer.backward, 2)
        return self.output(shaken(a * one + (1 - a) * other, b * one + (1 - b) * other))


@register(ShakeDrop)
class StackedShakeDrop(_Shaking):
    """A branch that is shaken at each member's own rate."""

    numbers = ("rate",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        rank, noise = len(value.shape), context.noise
        rate = self.number("rate")
        if not context.training or noise is None:
            mean = 1 - rate + rate * sum(self.layer.alpha) / 2
            return self.output(value * per_member(tf.cast(mean, value.dtype), rank))
        kept = per_member(noise.kept([1], self.stream, rate)[:, 0], rank)

        def factor(bounds: tuple[float, float], number: int) -> tf.Tensor:
            low, high = bounds
            drawn = low + (high - low) * self._uniform(value, noise, number)
            return tf.where(kept, tf.ones([], value.dtype), drawn)

        alpha, beta = factor(self.layer.alpha, 1), factor(self.layer.beta, 2)
        return self.output(shaken(alpha * value, beta * value))
