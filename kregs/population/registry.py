"""`StackedLayer`, what a layer does for K members at once, and the registry of these forms."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from kregs.population.stacked import Stacked
from kregs.population.threefry import Noise


class NotStackable(ValueError):
    """The models cannot be trained as one; the message says why."""


@dataclasses.dataclass
class Context:
    """What a stacked layer needs to know of the step it runs in.

    Args:
        training: whether noise is drawn and batch statistics are used.
        noise: the step's random numbers; `None` outside of training.
        rows: which rows of the batch are real, float tensor of shape `(K, batch)`; `None` if all.
        penalties: what layers add to the loss, `(K,)` each.
        mix: the partner of each row, int `(K, batch)`, and the weight of its own label, `(K,)`,
            where rows are mixed; `None` if they are not.
        adversarial: how far adversarial rows are from their own, and their weight in the loss,
            `(K,)` each; `None` where there are none.
        updates: (variable, new value) of moving statistics, assigned after the step in this order.
    """

    training: bool
    noise: Noise | None = None
    rows: tf.Tensor | None = None
    penalties: list[tf.Tensor] = dataclasses.field(default_factory=list)
    updates: list[tuple[tf.Variable, tf.Tensor]] = dataclasses.field(default_factory=list)

    mix: tuple[tf.Tensor, tf.Tensor] | None = None
    adversarial: tuple[tf.Tensor, tf.Tensor] | None = None

    def value_of(self, variable: tf.Variable) -> tf.Tensor:
        """Return what a variable of `updates` will be, where the step goes by several times."""
        noted = [value for updated, value in self.updates if updated is variable]
        return noted[-1] if noted else tf.convert_to_tensor(variable)


@dataclasses.dataclass(frozen=True)
class Argument:
    """Stands in a call's arguments for the input of this position."""

    position: int


class Call:
    """A layer as one call uses it, or an operation, where that is more than the layer on inputs.

    Args:
        operation: the layer or operation; all else is asked of it.
        arguments: what the call sets beside tensors, such as `{"reverse": True}`.
        output: what the call returns, a `keras.KerasTensor`.
    """

    def __init__(self, operation: Any, arguments: dict[str, Any], output: Any) -> None:
        self.operation = operation
        self.arguments = arguments
        self.output = output
        self.weights = getattr(operation, "weights", [])
        self.trainable_weights = getattr(operation, "trainable_weights", [])
        self.activity_regularizer = getattr(operation, "activity_regularizer", None)

    def __getattr__(self, name: str) -> Any:
        if name == "operation":  # not there yet: copying and pickling ask early
            raise AttributeError(name)
        return getattr(self.operation, name)


def class_of(layer: Any) -> Any:
    """Return the class of a layer, or of the layer that is called."""
    return type(layer.operation if isinstance(layer, Call) else layer)


class StackedLayer:
    """The stacked form of one Keras layer. Subclass it and decorate with `register`.

    Args:
        layer: a member's layer, whose config all members share.
        members: K.
        weights: the stacked variables by the `id` of the layer's own.
        numbers: vectors of K by attribute name.
        stream: tells the layer's random numbers from other layers'.

    Attributes:
        numbers: names of the layer's attributes that may differ between members; each becomes a
            vector of K, `self.number(name)`.
        ignored: further config entries that do not change what the layer computes.
        arguments: names of call arguments that the form knows. A tensor comes as a further input of
            `call`, anything else is found in `self.set_arguments`.
        absent: where a member lacks the layer and the layer is the identity for some number, that
            number, by attribute name. Such a layer may stand in some members only.
        accelerated: whether XLA runs it well on a CPU.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[tuple[str, ...]] = ()
    arguments: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[dict[str, float]] = {}
    accelerated: ClassVar[bool] = True

    def __init__(
        self,
        layer: keras.layers.Layer,
        members: int,
        weights: dict[int, tf.Variable],
        numbers: dict[str, tf.Variable],
        stream: int,
    ) -> None:
        self.layer = layer
        self.members = members
        self.stream = stream
        self.set_arguments = layer.arguments if isinstance(layer, Call) else {}
        self._weights = weights
        self._numbers = numbers

    @classmethod
    def check(cls, layer: keras.layers.Layer) -> None:
        """Raise `NotStackable` if this configuration of the layer has no stacked form."""

    @classmethod
    def parts(cls, layer: keras.layers.Layer) -> tuple[keras.layers.Layer, ...]:
        """Return the layers that this one calls with its inputs, if it only merges their outputs.

        Then `call` gets these outputs in place of the inputs.
        """
        return ()

    @classmethod
    def held(cls, layer: keras.layers.Layer, input_shape: tuple[int | None, ...]) -> int:
        """Return how many numbers a row keeps for the gradient: by default those of its output.

        Args:
            input_shape: of the first input, without the batch.
        """
        return math.prod(size or 1 for size in layer.output.shape[1:])

    def weight(self, name: str) -> tf.Variable:
        """Return the stacked weight, `(K, *shape)`, of an attribute, such as "cell.kernel"."""
        return self._weights[id(operator.attrgetter(name)(self.layer))]

    def further_stream(self, number: int) -> int:
        """Return a stream of noise beside `self.stream`; `number` is 1 or more."""
        return self.stream + (number << 16)  # above all layers' own

    def number(self, name: str) -> tf.Tensor:
        """Return the vector of K of an attribute that may differ."""
        return self._numbers[name]

    def call(self, *args: Any, **kwargs: Any) -> Stacked:
        """Do for K members what the layer does for one.

        Implement it as `call(self, x, *, context)`, or with several inputs.
        """
        raise NotImplementedError

    def output(self, value: tf.Tensor) -> Stacked:
        """Wrap a member-first tensor."""
        return Stacked(value, self.members)


_FORMS: dict[type, type[StackedLayer]] = {}
_fallback: list[type[StackedLayer]] = []  # for all others


def fall_back_on(form: type[StackedLayer]) -> type[StackedLayer]:
    """Take the decorated form for every layer and operation that has none of its own."""
    _fallback[:] = [form]
    return form


def register(*layer_classes: type) -> Callable[[type[StackedLayer]], type[StackedLayer]]:
    """Register the decorated `StackedLayer` as the stacked form of Keras layer classes.

    Args:
        *layer_classes: subclasses of `keras.layers.Layer` or `keras.Operation`. A subclass of a
            registered class is not covered by it: it may compute something else.

    Raises:
        TypeError: something is no such class, or the form is no `StackedLayer`.

    Example:

    >>> import keras, tensorflow as tf
    >>> from kregs.population import StackedLayer, register
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @register(Scale)
    ... class StackedScale(StackedLayer):
    ...     def call(self, x, *, context):
    ...         return self.output(x.member_first() * self.weight("scale")[:, None])
    """
    for layer_class in layer_classes:
        if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Operation)):
            raise TypeError(
                f"`register` expects subclasses of keras.layers.Layer. Received: {layer_class!r}"
            )

    def decorate(form: type[StackedLayer]) -> type[StackedLayer]:
        if not (isinstance(form, type) and issubclass(form, StackedLayer)):
            raise TypeError(f"`register` decorates a subclass of StackedLayer. Received: {form!r}")
        for layer_class in layer_classes:
            _FORMS[layer_class] = form
        return form

    return decorate


def form_of(layer: Any) -> type[StackedLayer]:
    """Return the stacked form of a layer: that of its class, or the one that fits any.

    Raises:
        NotStackable: it has no form.
    """
    form = _FORMS.get(class_of(layer))
    if form is not None:
        try:
            form.check(layer)
            return form
        except NotStackable:
            if not _fallback:
                raise
    if not _fallback:
        raise NotStackable(
            f"layer {layer.name!r} is a {class_of(layer).__name__}, which has no stacked form; "
            "kregs.population.register adds one"
        )
    _fallback[0].check(layer)
    return _fallback[0]


def is_by_member(layer: Any) -> bool:
    """Return whether a layer or operation has no form of its own and is called once a member."""
    return bool(_fallback) and form_of(layer) is _fallback[0]
