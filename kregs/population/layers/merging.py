"""Stacked Add, Multiply, Concatenate and the like: several inputs into one, member by member."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.keras_internals import merge
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


@register(
    keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average,
    keras.layers.Maximum, keras.layers.Minimum,
)  # fmt: skip
class StackedMerge(StackedLayer):
    """Number by number: any layout that the inputs share."""

    def call(self, *inputs: Stacked, context: Context) -> Stacked:
        if len({len(x.value.shape) - (not x.packed) for x in inputs}) != 1:
            raise NotStackable(f"layer {self.layer.name!r} merges inputs of different ranks")
        if all(x.packed for x in inputs):
            shapes = {tuple(x.value.shape[1:]) for x in inputs}
            if len(shapes) == 1:
                return inputs[0].like(merge(self.layer, [x.value for x in inputs]))
        return self.output(merge(self.layer, [x.member_first() for x in inputs]))


@register(keras.layers.Concatenate)
class StackedConcatenate(StackedLayer):
    """Concatenation, member by member."""

    def call(self, *inputs: Stacked, context: Context) -> Stacked:
        axis = self.layer.axis
        values = [x.member_first() for x in inputs]
        return self.output(tf.concat(values, axis if axis < 0 else axis + 1))
