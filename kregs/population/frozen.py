"""The frozen part that models begin with, such as a backbone: computed once for all members.

No member trains it and nothing in it is random, so that what it makes of a row is the same in every
epoch and for every member whose weights there are equal. Its outputs are computed once and take the
place of the data; what is trained is the rest, the head.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import keras
import numpy as np

from kregs.layers import AdversarialInput
from kregs.population.fingerprint import config_of, is_library, structure_of_config
from kregs.population.keras_internals import (
    all_layers,
    calls_of,
    has_mask,
    inner_functional,
    user_loss_weights,
    user_metrics,
)


@dataclasses.dataclass(frozen=True)
class FrozenPart:
    """A model in two parts.

    Args:
        trunk: the frozen part, a model of the inputs.
        head: the rest, a model of the trunk's output, which shares the model's weights, optimizer,
            loss and metrics.
        digest: equal for trunks that compute the same.
    """

    trunk: keras.Model
    head: keras.Model
    digest: str


def frozen_part(model: keras.Model) -> FrozenPart | None:
    """Split the frozen part off a compiled model.

    Args:
        model: a Sequential or Functional with one input and one output; others have no such part.

    Returns:
        The parts, or `None` where nothing with weights is frozen before what trains.

    Example:

    >>> import keras
    >>> base = keras.layers.Dense(3, trainable=False)
    >>> model = keras.Sequential([keras.Input((2,)), base, keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> parts = frozen_part(model)
    >>> parts.head.input_shape, len(parts.head.weights)
    ((None, 3), 2)
    """
    try:
        functional = inner_functional(model)
    except ValueError:  # not built, or with steps of its own
        return None
    if functional is None or not model.compiled:
        return None
    if not all(isinstance(shape, tuple) for shape in (model.input_shape, model.output_shape)):
        return None  # several, or one in a dictionary
    cut = _where_training_begins(functional)
    if cut is None:
        return None
    trunk = keras.Model(functional.inputs[0], cut)
    head = keras.Model(cut, functional.outputs[0])
    if not trunk.weights or {id(v) for v in trunk.weights} & {id(v) for v in head.weights}:
        return None
    head.compile(
        optimizer=model.optimizer,
        loss=model.loss,
        loss_weights=user_loss_weights(model),
        auto_scale_loss=False,
        **user_metrics(model),
    )
    return FrozenPart(trunk, head, _digest(trunk))


def _where_training_begins(functional: Any) -> Any:
    """Return the one tensor that all that trains reads of what is frozen, or `None`."""
    frozen = {id(tensor): tensor for tensor in functional.inputs}
    read: dict[int, Any] = {}
    for call in calls_of(functional):
        tensors = call.input_tensors
        if all(id(tensor) in frozen for tensor in tensors) and _is_frozen(call):
            frozen |= {id(tensor): tensor for tensor in call.outputs}
        else:
            read |= {id(tensor): tensor for tensor in tensors if id(tensor) in frozen}
    read |= {id(tensor): tensor for tensor in functional.outputs if id(tensor) in frozen}
    inputs = {id(tensor) for tensor in functional.inputs}
    if len(read) != 1 or inputs & read.keys():
        return None
    (cut,) = read.values()
    return cut


def _is_frozen(call: Any) -> bool:
    """Return whether what an operation makes of a row never changes: all in it must be Keras's."""
    operation = call.operation
    if len(call.outputs) != 1 or any(map(has_mask, [*call.input_tensors, *call.outputs])):
        return False
    if not isinstance(operation, keras.Model):
        return _never_changes(operation)
    models = [operation, *(each for each in all_layers(operation) if isinstance(each, keras.Model))]
    if not all(map(_shows_its_layers, models)):
        return False
    return all(_never_changes(each) for each in all_layers(operation))


def _shows_its_layers(model: keras.Model) -> bool:
    try:
        return inner_functional(model) is not None
    except ValueError:
        return False


def _never_changes(layer: Any) -> bool:
    # adversarial rows are made by the gradient of what comes after
    changing = (keras.layers.Lambda, keras.layers.RNN, AdversarialInput)
    if isinstance(layer, changing) or not is_library(type(layer).__module__):
        return False
    if not isinstance(layer, keras.layers.Layer):
        return True  # an operation without weights
    weights = {id(variable) for variable in layer.weights}
    draws = any(id(variable) not in weights for variable in layer.variables)
    return not (layer.trainable_weights or draws or layer.activity_regularizer is not None)


def _digest(trunk: keras.Model) -> str:
    """What is equal for trunks that compute the same: the graph of its layers, and its weights."""
    digest = hashlib.blake2b(repr(_structure(inner_functional(trunk))).encode())
    for variable in trunk.weights:
        array = np.ascontiguousarray(variable.numpy())
        digest.update(str((array.shape, array.dtype)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _structure(functional: Any) -> tuple:
    """All calls in a Functional, models inside resolved: what is called, how, and with what."""
    numbers = {id(tensor): number for number, tensor in enumerate(functional.inputs)}

    def known(value: Any) -> Any:
        return f"tensor {numbers[id(value)]}" if isinstance(value, keras.KerasTensor) else value

    calls = []
    for call in calls_of(functional):
        operation = call.operation
        if isinstance(operation, keras.Model):
            computed: Any = _structure(inner_functional(operation))
        else:
            computed = structure_of_config(config_of(operation))
        arguments = call.arguments
        given = keras.tree.map_structure(known, (arguments.args, arguments.kwargs))
        calls.append((type(operation).__name__, computed, given))
        for tensor in call.outputs:
            numbers[id(tensor)] = len(numbers)
    return tuple(calls), tuple(numbers[id(tensor)] for tensor in functional.outputs)
