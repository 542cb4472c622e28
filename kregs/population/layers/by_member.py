"""Any layer or operation without a stacked form: called once a member, inside of the one step.

The members' weights lie in the stacked variables as ever, so that optimizer, penalties and
callbacks know nothing of it. It is traced once, whatever K is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kregs.population.fingerprint import is_library
from kregs.population.keras_internals import global_generator_state, states_changed_beside
from kregs.population.registry import Argument, Context, NotStackable, StackedLayer, fall_back_on
from kregs.population.stacked import Stacked


class InPhase(keras.layers.Layer):
    """Calls a function in training or not: what layers inside of layers ask for is set from here.

    Args:
        function: called with the tensors.
    """

    def __init__(self, function: Callable) -> None:
        super().__init__(autocast=False, dtype="float32")
        self._function = function

    def call(self, tensors, training=None):
        return self._function(tensors)


@fall_back_on
class ByMember(StackedLayer):
    """The Keras layer itself, called for one member after the other.

    What a layer draws at random is its own generator's, or Keras's global one, begun anew in each
    step from the member's seed and the number of the step: it is not what `fit` draws.
    """

    accelerated = False

    @classmethod
    def check(cls, layer: Any) -> None:
        if getattr(layer, "stateful", False):
            raise NotStackable(f"layer {layer.name!r} keeps its state between batches")

    def __init__(self, layer, members, weights, numbers, stream) -> None:
        super().__init__(layer, members, weights, numbers, stream)
        self._operation = layer.operation
        by_id = {id(variable): variable for variable in layer.weights}
        self._variables = list(by_id.values())
        self._trained = list(layer.trainable_weights)
        trained = set(map(id, self._trained))
        self._updated = [v for v in self._variables if id(v) not in trained]
        # states of generators of random numbers are variables, but no weights
        self._generators = [
            v for v in getattr(self._operation, "variables", []) if id(v) not in by_id
        ]

    def call(self, *inputs: Stacked, context: Context) -> Stacked:
        values = [x.member_first() for x in inputs]
        weights = [context.value_of(self._weights[id(v)]) for v in self._variables]
        generators = list(self._generators)
        if not is_library(type(self._operation).__module__):
            generators.append(global_generator_state())
        states = self._random_states(generators, context)
        rows = () if context.rows is None else (context.rows,)
        parts = (values, weights, states, rows)

        def one(values, weights, states, rows):
            variables = [*self._variables, *generators]
            return self._of_member(values, variables, [*weights, *states], rows, context.training)

        # traced by itself first: how many losses it has is known only then
        traced = tf.function(one, autograph=False).get_concrete_function(
            *tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), parts)
        )
        signature = tf.nest.map_structure(
            lambda t: tf.TensorSpec(t.shape, t.dtype), traced.structured_outputs
        )
        output, losses, new_values = tf.map_fn(
            lambda member_parts: traced(*tf.nest.flatten(member_parts)),
            parts,
            fn_output_signature=signature,
            parallel_iterations=1,
        )
        context.penalties.extend(losses)
        for variable, value in zip(self._updated, new_values, strict=True):
            if context.training:
                context.updates.append((self._weights[id(variable)], value))
        return self.output(output)

    def _random_states(self, generators: list[Any], context: Context) -> list[tf.Tensor]:
        """A state of each generator for each member, `(K, 2)`."""
        states = []
        for number, variable in enumerate(generators, start=1):
            if context.noise is None:
                state = tf.convert_to_tensor(variable.value)[None]
                states.append(tf.repeat(state, self.members, axis=0))
            else:
                words = context.noise.words(2, self.further_stream(number))
                states.append(tf.cast(words, variable.dtype))
        return states

    def _of_member(self, values, variables, contents, rows, training: bool):
        """Call the layer for one member; return its output, added losses and updated weights."""
        batch = tf.shape(values[0])[0]
        if rows:
            # it is shown its real rows, which come first: it may look at the batch as a whole
            real = tf.maximum(tf.reduce_sum(tf.cast(rows[0] > 0, tf.int32)), 1)
            values = [_first_rows(value, real) for value in values]
        mapping = list(zip(variables, contents, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True) as scope, self._no_penalty():
            phase = InPhase(self._call)
            before = [scope.get_current_value(variable) for variable in self._trained]
            output = phase(values, training=training)
            after = [scope.get_current_value(variable) for variable in self._trained]
            updated = [scope.get_current_value(variable) for variable in self._updated]
            losses = [tf.cast(loss, tf.float32) for loss in scope.losses]
        if any(new is not old for new, old in zip(after, before, strict=True)):
            raise NotStackable(
                f"layer {self._operation.name!r} changes its own trained weights when it is called"
            )
        if states_changed_beside(scope, variables):
            raise NotStackable(
                f"layer {self._operation.name!r} changes variables that are none of its weights"
            )
        output = tf.convert_to_tensor(output)
        if rows:
            missing = batch - real
            output = tf.pad(output, [[0, missing]] + [[0, 0]] * (len(output.shape) - 1))
        return output, losses, [tf.convert_to_tensor(value) for value in updated]

    def _call(self, tensors: list[tf.Tensor]) -> Any:
        def fill(value: Any) -> Any:
            return tensors[value.position] if isinstance(value, Argument) else value

        args, kwargs = (
            keras.tree.map_structure(fill, self.set_arguments[kind]) for kind in ("args", "kwargs")
        )
        return self._operation(*args, **kwargs)

    @contextlib.contextmanager
    def _no_penalty(self) -> Iterator[None]:
        """Take the layer's own activity penalty away: the stacked model adds it."""
        regularizer = getattr(self._operation, "activity_regularizer", None)
        if regularizer is None:
            yield
            return
        self._operation.activity_regularizer = None
        try:
            yield
        finally:
            self._operation.activity_regularizer = regularizer


def _first_rows(value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    rows = value[:count]
    rows.set_shape([None, *value.shape[1:]])
    return rows
