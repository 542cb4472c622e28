"""`StackedModel`: K models as one: variables, forward pass, penalties, constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.graph import in_order_of_inputs, input_source
from kregs.population.layout import ACTIVITY_NUMBERS, ConstraintKey, Layout, Settings
from kregs.population.registry import Context, StackedLayer, form_of
from kregs.population.restraints import by_member, other_regularizer
from kregs.population.stacked import Stacked, per_member, sum_by_member


class StackedModel:
    """K models of one layout; every weight has a leading member axis, every number is a vector.

    Args:
        layout: the members' common structure.
        members: K.

    Attributes:
        weights: variables `(K, *shape)`, in the layout's order.
        trainable: which of them are trained, by position.
        dtype: of numbers and penalties: float64 if any weight is.
        smoothing: label smoothing of each member, `(K,)` for each loss.
        forms: of all layers.
        compiled: whether training steps are compiled with XLA; set by the program.
    """

    def __init__(self, layout: Layout, members: int) -> None:
        self.layout = layout
        self.members = members
        self.weights = [
            tf.Variable(tf.zeros([members, *variable.shape], variable.dtype), trainable=False)
            for variable in layout.weights
        ]
        self.trainable = [i for i, trainable in enumerate(layout.trainable) if trainable]
        has_float64 = any(weight.dtype == tf.float64 for weight in self.weights)
        self.dtype = tf.float64 if has_float64 else tf.as_dtype(keras.config.floatx())

        def vector() -> tf.Variable:
            return tf.Variable(np.zeros(members), dtype=self.dtype, trainable=False)

        self._numbers = {key: vector() for key in layout.settings[0].layers}
        self._penalties = {
            (int(i), int(power)): vector()
            for i, power in np.argwhere(layout.penalized)
            if layout.trainable[i]
        }
        # whether a member has a constraint, and its bound
        self._constrained = {key: vector() for key in layout.constraints}
        self._bounds = {key: vector() for key in layout.constraints}
        self.smoothing = [vector() for _ in layout.settings[0].smoothing]
        self.forms: list[type[StackedLayer]] = []
        self.compiled = False
        self._build_layers()

    def _build_layers(self) -> None:
        layout = self.layout
        by_variable = {id(v): w for v, w in zip(layout.weights, self.weights, strict=True)}

        def keyed(layer: Any, key: tuple) -> tuple[StackedLayer, tuple]:
            form = form_of(layer)
            self.forms.append(form)
            numbers = {name: self._numbers[(*key, name)] for name in form.numbers}
            stream = len(self.forms)  # from 1
            return form(layer, self.members, by_variable, numbers, stream), key

        self._layers = {
            id(layer): keyed(layer, ("layer", position))
            for position, layer in enumerate(layout.template.layers)
        }
        self._chains = [
            [keyed(place.example, ("optional", edge, i)) for i, place in enumerate(places)]
            if layout.groups[edge] == edge
            else []
            for edge, places in enumerate(layout.places)
        ]

    def forward(self, x: Any, context: Context) -> list[tf.Tensor]:
        """Return what each output predicts; penalties of activities go to the context.

        Args:
            x: an input, or a structure of several, `(K, batch, ...)` each.

        Returns:
            `(K, batch, ...)` each, in the order of `model.outputs`.

        Raises:
            ValueError: an input does not fit the model.
        """
        template = self.layout.template
        graph = template.graph
        arrays = in_order_of_inputs(template.model, x)
        outputs: dict[int, Stacked] = {
            input_source(position): Stacked(_as_input(value, tensor), self.members)
            for position, (value, tensor) in enumerate(
                zip(arrays, template.model.inputs, strict=True)
            )
        }
        after_chain: dict[int, Stacked] = {}
        edges = iter(enumerate(graph.edges()))

        def read() -> Stacked:
            index, edge = next(edges)
            group = self.layout.groups[index]
            if group not in after_chain:
                value = outputs[edge.source]
                for layer, key in self._chains[group]:
                    value = self._call(layer, key, (value,), context)
                after_chain[group] = value
            return after_chain[group]

        for position, node in enumerate(graph.nodes):
            inputs = tuple(read() for _ in node.inputs)
            layer, key = self._layers[id(node.layer)]
            outputs[position] = self._call(layer, key, inputs, context)
        return [read().member_first() for _ in graph.outputs]

    def _call(
        self, layer: StackedLayer, key: tuple, inputs: tuple[Stacked, ...], context: Context
    ) -> Stacked:
        output = layer.call(*inputs, context=context)
        for name, power in zip(ACTIVITY_NUMBERS, (tf.abs, tf.square), strict=True):
            if (*key, name) in self.layout.active_numbers:
                total, count = self._activity(power, output.member_first(), context.rows)
                context.penalties.append(self._numbers[(*key, name)] * total / count)
        regularizer = other_regularizer(layer.layer.activity_regularizer)
        if regularizer is not None:
            context.penalties.append(self._other_activity(regularizer, output, context.rows))
        return output

    def _other_activity(
        self, regularizer: Any, output: Stacked, rows: tf.Tensor | None
    ) -> tf.Tensor:
        """What a regularizer without a stacked form makes of each member's real rows, `(K,)`."""
        value = output.member_first()
        if rows is None:
            return by_member(regularizer, value) / tf.cast(tf.shape(value)[1], value.dtype)

        def of_real_rows(parts: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            count = tf.maximum(tf.reduce_sum(tf.cast(parts[1] > 0, tf.int32)), 1)
            amount = tf.convert_to_tensor(regularizer(parts[0][:count]))
            return tf.cast(amount, value.dtype) / tf.cast(count, value.dtype)

        return tf.map_fn(of_real_rows, (value, rows), fn_output_signature=value.dtype)

    def _activity(
        self, power: Any, value: tf.Tensor, rows: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of each member's activities, `(K,)`, and over how many rows."""
        value = tf.cast(value, self.dtype)  # half precision overflows a sum
        rank = len(value.shape)
        amount = power(value)
        if rows is None:
            count = tf.cast(tf.shape(value)[1], self.dtype)
        else:
            rows = tf.cast(rows, self.dtype)
            real = tf.reshape(rows, tf.concat([tf.shape(rows), [1] * (rank - 2)], 0)) > 0
            amount = tf.where(real, amount, tf.zeros([], self.dtype))
            count = tf.maximum(tf.reduce_sum(rows, 1), 1.0)
        return sum_by_member(amount, compiled=self.compiled), count

    def weight_penalties(self) -> list[tf.Tensor]:
        """Return the l1 and l2 terms of all weights, `(K,)` each."""
        terms = []
        for (index, power), coefficient in self._penalties.items():
            weight = self.weights[index]
            amount = tf.square(weight) if power == 1 else tf.abs(weight)
            total = sum_by_member(amount, compiled=self.compiled)
            terms.append(tf.cast(coefficient, total.dtype) * total)
        for index, regularizer in self.layout.other_regularizers.items():
            terms.append(by_member(regularizer, tf.convert_to_tensor(self.weights[index])))
        return terms

    def constrain(self, alive: tf.Tensor | None) -> None:
        """Project the constrained weights.

        Args:
            alive: of which members, bool `(K,)`; `None` for all.
        """
        for key in self.layout.constraints:
            weight = self.weights[key[0]]
            rank = len(weight.shape)
            # each member has at most one constraint a weight, so their order does not matter
            bound = self._constrained[key] > 0
            which = bound if alive is None else tf.logical_and(bound, alive)
            weight.assign(tf.where(per_member(which, rank), self._projected(key), weight))
        for index, constraint in self.layout.other_constraints.items():
            weight = self.weights[index]
            projected = by_member(constraint, tf.convert_to_tensor(weight))
            if alive is not None:
                projected = tf.where(per_member(alive, len(weight.shape)), projected, weight)
            weight.assign(projected)

    def _projected(self, key: ConstraintKey) -> tf.Tensor:
        """Project a weight of all members, whether they have the constraint or not."""
        index, kind, axes = key
        value = tf.convert_to_tensor(self.weights[index])
        rank = len(value.shape)
        if kind == "non_negative":
            return tf.where(value >= 0, value, tf.zeros_like(value))
        stacked_axes = [axis % (rank - 1) + 1 for axis in axes]
        norms = tf.sqrt(tf.reduce_sum(tf.square(value), stacked_axes, keepdims=True))
        if kind == "unit_norm":
            return value * (tf.ones_like(norms) / (keras.config.epsilon() + norms))
        bound = per_member(tf.cast(self._bounds[key], value.dtype), rank)
        return value * (tf.minimum(norms, bound) / (keras.config.epsilon() + norms))

    def settings_variables(self) -> list[tf.Variable]:
        """Return the variables that hold members' numbers, `(K,)` each, in a fixed order."""
        return [
            *self._numbers.values(),
            *self._penalties.values(),
            *self._constrained.values(),
            *self._bounds.values(),
            *self.smoothing,
        ]

    def settings_values(self, settings: Sequence[Settings]) -> list[Sequence[float]]:
        """Return what members' numbers are, in the order of `settings_variables`."""
        return [
            *([s.layers[key] for s in settings] for key in self._numbers),
            *([s.penalties[key] for s in settings] for key in self._penalties),
            *([float(key in s.constraints) for s in settings] for key in self._constrained),
            *([s.constraints.get(key, np.inf) for s in settings] for key in self._bounds),
            *zip(*(s.smoothing for s in settings), strict=True),
        ]


def _as_input(value: tf.Tensor, tensor: keras.KerasTensor) -> tf.Tensor:
    """Give an input the type of the model's, and its rank as Keras does: an axis of 1 more or less.

    Args:
        value: `(K, batch, ...)`.
        tensor: the model's, `(batch, ...)`.
    """
    rank, wanted = len(value.shape) - 1, len(tensor.shape)
    if rank == wanted - 1 and tensor.shape[-1] == 1:
        value = value[..., None]
    elif rank == wanted + 1 and value.shape[-1] == 1:
        value = tf.squeeze(value, -1)
    if not value.shape[2:].is_compatible_with(tensor.shape[1:]):
        raise ValueError(
            f"`x` must have rows of shape {tuple(tensor.shape[1:])} for the input "
            f"{tensor.name!r}. Received: {tuple(value.shape[2:])}"
        )
    return tf.cast(value, keras.backend.standardize_dtype(tensor.dtype))
