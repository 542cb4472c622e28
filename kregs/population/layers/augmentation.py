"""Stacked image augmentation: Keras's own transformations, drawn with each member's seed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf

from kregs.population.layers.checks import check_channels_last
from kregs.population.registry import Context, StackedLayer, class_of, register
from kregs.population.stacked import Stacked


class _Backend:
    """What a preprocessing layer computes with, but for its random numbers."""

    def __init__(self, backend: Any, uniform: Callable) -> None:
        self._backend = backend
        self.random = SimpleNamespace(uniform=uniform)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


# each draws some uniform numbers an image, and nothing else
@register(
    keras.layers.RandomFlip, keras.layers.RandomRotation, keras.layers.RandomTranslation,
    keras.layers.RandomZoom, keras.layers.RandomContrast,
    keras.layers.RandomBrightness, keras.layers.RandomHue, keras.layers.RandomSaturation,
)  # fmt: skip
class StackedAugmentation(StackedLayer):
    """K members' images are K times the images, each with its own member's draws."""

    accelerated = False
    arguments = ("training",)  # Keras sets it to True by itself; `fit` and `predict` overrule it

    def __init__(self, layer: Any, *args: Any) -> None:
        super().__init__(layer, *args)
        # a layer of its own, for its backend is replaced
        self._copy = class_of(layer).from_config(layer.get_config())
        self._keras_backend = self._copy.backend

    @classmethod
    def check(cls, layer) -> None:
        check_channels_last(layer)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        noise = context.noise
        if not context.training or noise is None:
            return self.output(value)
        shape = tf.shape(value)
        batch = shape[1] if value.shape[1] is None else value.shape[1]
        draws = 0

        def uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, **_: Any):
            nonlocal draws
            stream = self.stream if draws == 0 else self.further_stream(draws)
            draws += 1
            drawn = noise.uniform([batch, *shape[1:]], stream)
            drawn = tf.cast(drawn, dtype or keras.config.floatx())
            drawn = tf.reshape(drawn, [-1, *shape[1:]])
            return minval + drawn * (maxval - minval)

        self._copy.backend = _Backend(self._keras_backend, uniform)
        images = tf.reshape(value, tf.concat([[-1], shape[2:]], axis=0))
        images.set_shape([None, *value.shape[2:]])
        transformation = self._copy.get_random_transformation(images, training=True, seed=0)
        y = self._copy.transform_images(images, transformation, training=True)
        y = tf.reshape(y, shape)
        y.set_shape(value.shape)
        return self.output(y)
