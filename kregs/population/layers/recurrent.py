"""Stacked recurrent layers: LSTM, GRU, SimpleRNN and Bidirectional, one loop over time for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from kregs.population.layers.activations import apply_activation
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked, batched_product, per_member

Project = Callable[..., tf.Tensor]


@dataclasses.dataclass
class _Drop:
    """How dropout scales a value before it meets the kernels.

    Args:
        apart: whether any member's gates drop apart, a bool tensor.
        scales: of each gate, `(K, batch, size)`.
    """

    apart: tf.Tensor
    scales: Sequence[tf.Tensor]


class _Gates:
    """The products of a value with the kernels of all gates, each of which may drop its own.

    Args:
        kernels: one a gate, `(K, size, units)`.
        groups: how many gates each product makes.
        drop: dropout of the value; `None`: none.
    """

    def __init__(
        self, kernels: list[tf.Tensor], groups: tuple[int, ...], drop: _Drop | None
    ) -> None:
        ends = [sum(groups[: i + 1]) for i in range(len(groups))]
        slices = [slice(end - n, end) for n, end in zip(groups, ends, strict=True)]
        self._apart: tf.Tensor | None = None if drop is None else drop.apart
        self._kernels = [kernels[group] for group in slices]
        self._joined = [tf.concat(group_kernels, -1) for group_kernels in self._kernels]
        self._scales = [] if drop is None else [drop.scales[group] for group in slices]

    def product(self, value: tf.Tensor, group: int = 0) -> tf.Tensor:
        """Return `(K, batch, ..., gates * units)` of one group for `(K, batch, ..., size)`."""
        joined = self._joined[group]
        if self._apart is None:
            return batched_product(value, joined)

        def scaled(scale: tf.Tensor) -> tf.Tensor:
            return value * (scale if len(value.shape) == 3 else scale[:, :, None])

        scales = self._scales[group]

        def each() -> tf.Tensor:
            pairs = zip(scales, self._kernels[group], strict=True)
            return tf.concat(
                [batched_product(scaled(scale), kernel) for scale, kernel in pairs], -1
            )

        # one product is faster than several; a gate's share of it is the same
        return tf.cond(self._apart, each, lambda: batched_product(scaled(scales[0]), joined))


class _Recurrent(StackedLayer):
    """The loop, the masks of steps and the dropout, which all recurrent layers share.

    Attributes:
        products: how many gates each product of the state with the recurrent kernel makes.
        states: how many tensors a step hands to the next; the first one is the output.
    """

    numbers = ("dropout", "recurrent_dropout")
    ignored = ("unroll", "unit_forget_bias")
    arguments = ("mask",)
    # XLA saves a seventh of the arithmetic's time, but uses one core and compiles for seconds
    accelerated = False
    products: ClassVar[tuple[int, ...]]
    states: ClassVar[int] = 1

    @classmethod
    def check(cls, layer) -> None:
        for option in ("stateful", "return_state"):
            if getattr(layer, option):
                raise NotStackable(f"layer {layer.name!r} has {option}=True")
        if max(layer.dropout, layer.recurrent_dropout) >= 1:
            raise NotStackable(f"layer {layer.name!r} drops everything")
        together = layer.dropout and not layer.recurrent_dropout
        if together and getattr(layer.cell, "implementation", 2) == 1:  # one draw a gate
            raise NotStackable(f"layer {layer.name!r} has implementation=1")

    @classmethod
    def held(cls, layer: Any, input_shape: tuple[int | None, ...]) -> int:
        # each step keeps the gates before and after activation, and the states
        gates = sum(cls.products)
        return (input_shape[0] or 1) * layer.units * (2 * gates + cls.states)

    @property
    def _gates(self) -> int:
        return sum(self.products)

    def _step(self, x: tf.Tensor, states: tuple, project: Project) -> tuple:
        """Return the next states.

        Args:
            x: the projected input `(K, batch, gates * units)`.
            states: `(K, batch, units)` each.
            project: multiplies a state with the recurrent kernel, the gates of one product.
        """
        raise NotImplementedError

    def _input_bias(self) -> tf.Tensor:
        """The bias of the projected input, `(K, gates * units)`."""
        return self.weight("cell.bias")

    def call(self, x: Stacked, mask: Stacked | None = None, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        cell = self.layer.cell
        batch = tf.shape(value)[1] if value.shape[1] is None else value.shape[1]
        drop_input, drop_state = self._draw(context, [batch, value.shape[-1]], value.dtype)
        kernel = _Gates(self._split("cell.kernel"), (self._gates,), drop_input)
        inputs = kernel.product(value)
        if cell.use_bias:
            inputs = inputs + tf.cast(self._input_bias(), value.dtype)[:, None, None]
        inputs = tf.transpose(inputs, [2, 0, 1, 3])
        masks = None if mask is None else tf.transpose(mask.member_first(), [2, 0, 1])
        # split outside of the loop, or the kernel's gradient is put together in every step
        project = _Gates(self._split("cell.recurrent_kernel"), self.products, drop_state)
        zero = tf.zeros([self.members, batch, cell.units], value.dtype)
        return self.output(self._loop(inputs, masks, zero, project.product))

    def _split(self, name: str) -> list[tf.Tensor]:
        kernel = tf.cast(self.weight(name), self.layer.compute_dtype)
        return tf.split(kernel, self._gates, -1)

    def _draw(
        self, context: Context, shape: list, dtype: tf.DType
    ) -> tuple[_Drop | None, _Drop | None]:
        """Return how dropout scales the input and the state."""
        noise = context.noise if context.training else None
        if noise is None:
            return None, None
        batch, channels = shape

        def scales(name: str, size: int, stream: int) -> tf.Tensor:
            rate = self.number(name)
            kept = noise.kept([batch, self._gates, size], stream, rate)
            return tf.where(
                kept, tf.cast(per_member(1 / (1 - rate), 4), dtype), tf.zeros([], dtype)
            )

        of_input = scales("dropout", channels, self.stream)
        of_state = scales("recurrent_dropout", self.layer.cell.units, self.further_stream(1))
        # as Keras: the gates share a draw where the state is not dropped
        apart = self.number("recurrent_dropout") > 0
        of_input = tf.where(per_member(apart, 4), of_input, of_input[:, :, :1])
        any_apart = tf.reduce_any(apart)
        return (
            _Drop(any_apart, tf.unstack(of_input, axis=2)),
            _Drop(any_apart, tf.unstack(of_state, axis=2)),
        )

    def _loop(
        self, inputs: tf.Tensor, masks: tf.Tensor | None, zero: tf.Tensor, project: Project
    ) -> tf.Tensor:
        layer = self.layer
        steps = tf.shape(inputs)[0] if inputs.shape[0] is None else inputs.shape[0]

        def array(value: tf.Tensor) -> tf.TensorArray:
            return tf.TensorArray(value.dtype, steps, element_shape=value.shape[1:]).unstack(value)

        step_inputs = array(inputs)
        step_masks = None if masks is None else array(masks)
        sequence = layer.return_sequences
        # XLA takes no array that is never written
        outputs = (tf.TensorArray(zero.dtype, steps, element_shape=zero.shape),) * sequence

        def body(step: tf.Tensor, states: tuple, outputs: tuple) -> tuple:
            now = steps - 1 - step if layer.go_backwards else step
            new = self._step(step_inputs.read(now), states, project)
            output = new[0]
            if step_masks is not None:
                kept = step_masks.read(now)[:, :, None]
                new = tuple(tf.where(kept, a, b) for a, b in zip(new, states, strict=True))
                output = tf.where(kept, output, tf.zeros([], output.dtype))
                output = output if layer.zero_output_for_mask else new[0]
            return step + 1, new, tuple(array.write(step, output) for array in outputs)

        _, states, outputs = tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (tf.constant(0), (zero,) * self.states, outputs),
            maximum_iterations=steps,
        )
        if sequence:
            return tf.transpose(outputs[0].stack(), [1, 2, 0, 3])
        if masks is not None and layer.zero_output_for_mask:
            kept = masks[0 if layer.go_backwards else -1][:, :, None]
            return tf.where(kept, states[0], tf.zeros([], zero.dtype))
        return states[0]


@register(keras.layers.SimpleRNN)
class StackedSimpleRNN(_Recurrent):
    """The state is the activation of the input and the state, both projected."""

    products = (1,)

    def _step(self, x: tf.Tensor, states: tuple, project: Project) -> tuple:
        return (apply_activation(self.layer.cell.activation, x + project(states[0])),)


@register(keras.layers.LSTM)
class StackedLSTM(_Recurrent):
    """K long short-term memories."""

    products = (4,)
    states = 2

    def _step(self, x: tf.Tensor, states: tuple, project: Project) -> tuple:
        cell = self.layer.cell
        h, c = states
        i, f, g, o = tf.split(x + project(h), 4, -1)
        i, f, o = (apply_activation(cell.recurrent_activation, gate) for gate in (i, f, o))
        c = f * c + i * apply_activation(cell.activation, g)
        return o * apply_activation(cell.activation, c), c


@register(keras.layers.GRU)
class StackedGRU(_Recurrent):
    """K gated recurrent units; `reset_after` says where the reset gate stands."""

    products: ClassVar[tuple[int, ...]] = (3,)

    def __init__(self, layer: Any, *args: Any) -> None:
        super().__init__(layer, *args)
        self.products = (3,) if layer.cell.reset_after else (2, 1)  # type: ignore[misc]

    def _input_bias(self) -> tf.Tensor:
        bias = self.weight("cell.bias")
        return bias[:, 0] if self.layer.cell.reset_after else bias

    def _step(self, x: tf.Tensor, states: tuple, project: Project) -> tuple:
        cell = self.layer.cell
        (h,) = states
        x_z, x_r, x_h = tf.split(x, 3, -1)
        product = project(h, 0)
        if cell.reset_after and cell.use_bias:
            product = product + tf.cast(self.weight("cell.bias"), product.dtype)[:, 1, None]
        z, r, *after = tf.split(product, self.products[0], -1)
        z, r = (apply_activation(cell.recurrent_activation, gate) for gate in (x_z + z, x_r + r))
        product = r * after[0] if after else project(r * h, 1)
        return (z * h + (1 - z) * apply_activation(cell.activation, x_h + product),)


@register(keras.layers.Bidirectional)
class StackedBidirectional(StackedLayer):
    """Merges what its two layers, which are stacked by themselves, give."""

    ignored = ("layer", "backward_layer")
    arguments = ("mask",)

    @classmethod
    def check(cls, layer) -> None:
        if layer.merge_mode is None:
            raise NotStackable(f"layer {layer.name!r} has merge_mode=None")

    @classmethod
    def parts(cls, layer) -> tuple:
        return layer.forward_layer, layer.backward_layer

    def call(self, forward: Stacked, backward: Stacked, *, context: Context) -> Stacked:
        a, b = forward.member_first(), backward.member_first()
        if self.layer.return_sequences:
            b = tf.reverse(b, [2])
        mode = self.layer.merge_mode
        if mode == "concat":
            return self.output(tf.concat([a, b], -1))
        if mode == "mul":
            return self.output(a * b)
        return self.output((a + b) / 2 if mode == "ave" else a + b)
