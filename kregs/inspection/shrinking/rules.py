"""What a layer does with single channels: constant outputs, read inputs, channels that are one.

A channel is one position of a tensor's last axis: a unit of a dense layer, a filter of a
convolution. Its value is a number where it is the same for every input and position, else NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kregs.layers import DropBlock2D

L = keras.layers

# functions of each number alone; softmax, for one, is not
ELEMENTWISE = {
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus",
    "swish", "tanh", "tanh_shrink", "threshold",
}  # fmt: skip

Masks = list[np.ndarray]


class Rule:
    """One layer's part in the removal of channels; the base class knows nothing and lets none go.

    Args:
        layer: the layer, or an operation such as that of `x + y`.
        reason: why channels that it reads or makes must stay; empty if they need not.
    """

    has_units = False  # whether its output channels are units, filters or columns of its own
    one_size = True  # whether all calls of the layer must lose the same channels
    training = False  # whether its constants are those of training

    def __init__(self, layer: Any, reason: str = "") -> None:
        self.layer = layer
        self.reason = reason or f"{layer.name} ({type(layer).__name__}) needs all of its channels"

    @property
    def lets_go(self) -> bool:
        """Whether channels that it reads or makes can go at all."""
        return type(self) is not Rule

    def ties(self, inputs: Masks, outputs: Masks) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs of arrays: channels that can only go together, by their numbers."""
        yield from ()

    def values(self, inputs: Masks, outputs: Masks) -> Masks:
        """Return the constants of the outputs.

        Args:
            inputs: the constants of each input.
            outputs: arrays of the outputs' sizes.
        """
        return [np.full(len(output), np.nan) for output in outputs]

    def reads(self, values: Masks, used: Masks) -> Masks:
        """Return which channels of each input change a channel of the output that is used.

        Args:
            values: the constants of each input; only their sizes matter here.
            used: which channels of each output are used.
        """
        return [np.ones(len(value), bool) for value in values]

    def absorbs(self, values: Masks) -> Masks:
        """Return which channels of each input may go though they are read.

        That is so where the channel goes on into the output and goes there, too, or where it is a
        constant for the layer's bias.
        """
        return [np.zeros(len(value), bool) for value in values]

    def with_own(self, used: np.ndarray) -> np.ndarray:
        """Return which output channels are used if the layer itself reads them, as a state."""
        return used

    def holds(self, values: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Return which output channels must stay for the layer's own sake."""
        return np.zeros(len(used), bool)

    def config(self, config: dict[str, Any], kept: Masks) -> dict[str, Any]:
        """Return the config of the layer with the output channels `kept`."""
        return config

    def weights(
        self, kept_inputs: Masks, kept_outputs: Masks, values: Masks
    ) -> dict[str, np.ndarray]:
        """Return the smaller layer's weights by their attribute.

        Args:
            kept_inputs, kept_outputs: which channels of each input and output stay.
            values: constants of each input, those that the layer's bias takes; else NaN.
        """
        return {}


class Through(Rule):
    """A layer without weights through which each channel goes by itself, perhaps to many outputs.

    Args:
        layer: the layer.
        function: what becomes of a constant.
    """

    one_size = False

    def __init__(self, layer: Any, function: Callable[[np.ndarray], Any] | None = None) -> None:
        super().__init__(layer)
        self.function = function

    def ties(self, inputs, outputs):
        yield inputs[0][self.sources(len(inputs[0]), len(outputs[0]))], outputs[0]

    def sources(self, inputs: int, outputs: int) -> np.ndarray:
        """Return which input channel each output channel is made of."""
        return np.arange(outputs) % inputs

    def values(self, inputs, outputs):
        values = inputs[0][self.sources(len(inputs[0]), len(outputs[0]))]
        return [values if self.function is None else on_constants(self.function, values)]

    def reads(self, values, used):
        sources = self.sources(len(values[0]), len(used[0]))
        return [np.bincount(sources, used[0], minlength=len(values[0])) > 0]

    def absorbs(self, values):
        return [np.ones(len(value), bool) for value in values]


class FixedThrough(Through):
    """A layer through which each channel goes by itself, but which has a fixed number of them."""

    def values(self, inputs, outputs):
        return Rule.values(self, inputs, outputs)

    def holds(self, values, used):
        return np.ones(len(used), bool)


class Reshape(Through):
    """`Reshape` that keeps the channels last, or spreads them over a longer last axis."""

    one_size = True

    def config(self, config, kept):
        shape = [*config["target_shape"][:-1], int(kept[0].sum())]
        return {**config, "target_shape": shape}


class PReLU(Through):
    """`PReLU`: a slope a channel, and a position; or one for all channels."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.one_size = layer.alpha.shape[-1] != 1

    def values(self, inputs, outputs):
        alpha = _array(self.layer.alpha)
        slopes = alpha.reshape(-1, alpha.shape[-1])
        same = (slopes == slopes[0]).all(axis=0)
        (values,) = inputs
        negative = np.where(same, slopes[0] * values, np.nan)
        return [np.where(values >= 0, values, negative)]

    def weights(self, kept_inputs, kept_outputs, values):
        return {"alpha": _array(self.layer.alpha)[..., kept_outputs[0]]}


class BatchNormalization(Through):
    """`BatchNormalization` as it is in inference: a factor and a shift a channel.

    Args:
        layer: the layer.
        training: whether it takes the statistics of each batch instead.
    """

    one_size = True
    _WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")

    def __init__(self, layer: Any, *, training: bool = False) -> None:
        super().__init__(layer)
        self.training = training
        variance = _array(layer.moving_variance)
        gamma = _array(layer.gamma) if layer.scale else np.ones(len(variance))
        beta = _array(layer.beta) if layer.center else np.zeros(len(variance))
        self.factor = gamma / np.sqrt(variance + layer.epsilon)
        self.shift = beta - self.factor * _array(layer.moving_mean)

    def values(self, inputs, outputs):
        normalized = self.factor * inputs[0] + self.shift
        return [np.where(self.factor == 0, self.shift, np.nan if self.training else normalized)]

    def reads(self, values, used):
        return [used[0] & (self.factor != 0)]

    def weights(self, kept_inputs, kept_outputs, values):
        present = [name for name in self._WEIGHTS if getattr(self.layer, name, None) is not None]
        return {name: _array(getattr(self.layer, name))[kept_outputs[0]] for name in present}


class DepthwiseConvolution(Through):
    """`DepthwiseConv1D` and `2D`: each channel is convolved by itself."""

    one_size = has_units = True

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        kernel = _array(layer.kernel)
        kernel = kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1])
        self.is_zero = (kernel == 0).all(axis=0)
        self.sums = kernel.sum(axis=0, dtype=float)
        self.bias = _array(layer.bias) if layer.use_bias else np.zeros(len(self.sums))

    def sources(self, inputs, outputs):
        return np.arange(outputs) // (outputs // inputs)

    def values(self, inputs, outputs):
        values = inputs[0][self.sources(len(inputs[0]), len(outputs[0]))]
        if pads(self.layer):
            values = np.where(values == 0, values, np.nan)
        sums = np.where(self.is_zero, self.bias, values * self.sums + self.bias)
        return [on_constants(self.layer.activation, sums)]

    def reads(self, values, used):
        return super().reads(values, [used[0] & ~self.is_zero])

    def weights(self, kept_inputs, kept_outputs, values):
        weights = {"kernel": _array(self.layer.kernel)[..., kept_inputs[0], :]}
        if self.layer.use_bias:
            weights["bias"] = _array(self.layer.bias)[kept_outputs[0]]
        return weights


class Merge(Rule):
    """`Add` and its like: a channel of every input makes one of the output.

    Args:
        layer: the layer or operation.
        function: of the list of the inputs' constants.
    """

    one_size = False

    def __init__(self, layer: Any, function: Callable[[Sequence[np.ndarray]], np.ndarray]) -> None:
        super().__init__(layer)
        self.function = function

    def ties(self, inputs, outputs):
        for channels in inputs:
            yield channels, outputs[0]

    def values(self, inputs, outputs):
        return [self.function(inputs)]

    def reads(self, values, used):
        return [used[0] for _ in values]

    def absorbs(self, values):
        return [np.ones(len(value), bool) for value in values]


class Concatenate(Rule):
    """`Concatenate` along the channels."""

    one_size = False

    def ties(self, inputs, outputs):
        yield np.concatenate(inputs), outputs[0]

    def values(self, inputs, outputs):
        return [np.concatenate(inputs)]

    def reads(self, values, used):
        return np.split(used[0], np.cumsum([len(value) for value in values])[:-1])

    def absorbs(self, values):
        return [np.ones(len(value), bool) for value in values]


class Units(Rule):
    """A layer whose output channels are weighted sums of its input channels, with a bias."""

    has_units = True
    size_field = "units"

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.function = layer.activation
        self.pads = pads(layer)
        self.is_connected = self.connected()  # (inputs, outputs)
        self.mixes = not is_elementwise(self.function)
        if self.mixes:
            self.reason = _mixing(layer).reason

    def connected(self) -> np.ndarray:
        """Return whether any weight leads from an input channel to an output channel."""
        kernel = self.kernel()
        return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))

    def sums(self, rows: np.ndarray) -> np.ndarray:
        """Return the sums over space of the weights that lead from these input channels."""
        kernel = self.kernel()[..., rows, :]
        return kernel.sum(axis=tuple(range(kernel.ndim - 2)), dtype=float)

    def kernel(self) -> np.ndarray:
        """Return the kernel with the inputs before the outputs at its end."""
        return _array(self.layer.kernel)

    def values(self, inputs, outputs):
        if self.mixes:
            return super().values(inputs, outputs)
        (values,) = inputs
        known = self.absorbs(inputs)[0]
        bias = _array(self.layer.bias) if self.layer.use_bias else np.zeros(len(outputs[0]))
        sums = bias + values[known] @ self.sums(known)
        is_constant = ~self.is_connected[~known].any(axis=0)
        return [on_constants(self.function, np.where(is_constant, sums, np.nan))]

    def reads(self, values, used):
        needed = np.ones_like(used[0]) if self.mixes else used[0]
        return [self.is_connected[:, needed].any(axis=1)]

    def holds(self, values, used):
        return np.full(len(used), self.mixes)

    def absorbs(self, values):
        is_constant = np.isfinite(values[0])
        return [is_constant & (values[0] == 0) if self.pads else is_constant]

    def config(self, config, kept):
        return {**config, self.size_field: int(kept[0].sum())}

    def weights(self, kept_inputs, kept_outputs, values):
        rows, columns = kept_inputs[0], kept_outputs[0]
        weights = self.kernels(rows, columns)
        absorbed = np.isfinite(values[0]) & ~rows
        shift = values[0][absorbed] @ self.sums(absorbed)
        if self.layer.use_bias:
            weights["bias"] = (_array(self.layer.bias) + shift)[columns]
        elif shift[columns].any():
            weights["bias"] = shift[columns]
        return weights

    def kernels(self, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
        """Return the kernels that lead from some inputs to some outputs."""
        return {"kernel": _array(self.layer.kernel)[..., rows, :][..., columns]}


class Convolution(Units):
    """`Conv1D`, `2D` and `3D`."""

    size_field = "filters"


class TransposedConvolution(Convolution):
    """`Conv1DTranspose`, `2D` and `3D`: what an input adds depends on the position."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.pads = True

    def kernel(self):
        return np.swapaxes(_array(self.layer.kernel), -1, -2)

    def kernels(self, rows, columns):
        return {"kernel": _array(self.layer.kernel)[..., columns, :][..., rows]}


class SeparableConvolution(Convolution):
    """`SeparableConv1D` and `2D`: a depthwise convolution, then weighted sums."""

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        depthwise = _array(self.layer.depthwise_kernel)
        depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
        pointwise = _array(self.layer.pointwise_kernel)
        return depthwise, pointwise.reshape(*depthwise.shape[1:], -1)

    def connected(self):
        depthwise, pointwise = self._parts()
        return ((depthwise != 0).any(axis=0)[..., None] & (pointwise != 0)).any(axis=1)

    def sums(self, rows):
        depthwise, pointwise = self._parts()
        sums = depthwise[:, rows].sum(axis=0, dtype=float)
        return np.einsum("im,imo->io", sums, pointwise[rows])

    def kernels(self, rows, columns):
        depthwise = _array(self.layer.depthwise_kernel)
        pointwise = _array(self.layer.pointwise_kernel)
        return {
            "depthwise_kernel": depthwise[..., rows, :],
            "pointwise_kernel": pointwise[..., np.repeat(rows, depthwise.shape[-1]), :][
                ..., columns
            ],
        }


class Embedding(Rule):
    """`Embedding`: each column of the table is a channel."""

    has_units = True

    def values(self, inputs, outputs):
        table = _array(self.layer.embeddings)
        return [np.where((table == table[0]).all(axis=0), table[0], np.nan)]

    def config(self, config, kept):
        return {**config, "output_dim": int(kept[0].sum())}

    def weights(self, kept_inputs, kept_outputs, values):
        return {"embeddings": _array(self.layer.embeddings)[:, kept_outputs[0]]}


class Recurrent(Units):
    """`SimpleRNN`, `GRU` and `LSTM`: a unit is read by the next step, too."""

    def __init__(self, layer: Any) -> None:
        # how many gates there are, and through which the input enters
        self.gates, self.candidate = {L.SimpleRNN: (1, 0), L.GRU: (3, 2), L.LSTM: (4, 2)}[
            type(layer)
        ]
        super().__init__(layer)
        recurrent = self._by_gate(_array(layer.cell.recurrent_kernel))
        self.is_recurrent = (recurrent != 0).any(axis=1)  # (units, units)

    def _by_gate(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(*kernel.shape[:-1], self.gates, -1)

    def connected(self):
        return (self._by_gate(_array(self.layer.cell.kernel)) != 0).any(axis=1)

    def values(self, inputs, outputs):
        cell = self.layer.cell
        weights = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
        parts = [self._by_gate(_array(w))[..., self.candidate, :] for w in weights]
        parts = [part.reshape(-1, part.shape[-1]) for part in parts]
        is_zero = ~np.concatenate(parts).any(axis=0)
        # from a state of 0 it stays there, whatever the other gates do
        stays = float(on_constants(self.function, np.zeros(1))[0]) == 0
        return [np.where(is_zero & stays, 0.0, np.nan)]

    def with_own(self, used):
        while True:  # a unit is used by the next step of a used one
            more = used | self.is_recurrent[:, used].any(axis=1)
            if (more == used).all():
                return used
            used = more

    def reads(self, values, used):
        return super().reads(values, [self.with_own(used[0])])

    def holds(self, values, used):
        return self.with_own(used) & ~used & (values != 0)

    def weights(self, kept_inputs, kept_outputs, values):
        cell, rows, units = self.layer.cell, kept_inputs[0], kept_outputs[0]
        columns = np.tile(units, self.gates)
        kernel = _array(cell.kernel)
        absorbed = np.isfinite(values[0]) & ~rows
        shift = values[0][absorbed] @ kernel[absorbed].astype(float)
        weights = {
            "kernel": kernel[rows][:, columns],
            "recurrent_kernel": _array(cell.recurrent_kernel)[units][:, columns],
        }
        if cell.use_bias:
            bias = _array(cell.bias).astype(float)
            bias[(0,) if bias.ndim == 2 else ()] += shift  # of the input, then of the state
            weights["bias"] = bias[..., columns]
        return {f"cell.{name}": value for name, value in weights.items()}

    def absorbs(self, values):
        (absorbs,) = super().absorbs(values)
        return [absorbs if self.layer.use_bias else absorbs & (values[0] == 0)]


# ---- which rule a layer has ---------------------------------------------------------------

_IDENTITIES = (
    L.Identity, L.Dropout, L.AlphaDropout, L.GaussianDropout, L.GaussianNoise,
    L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, DropBlock2D,
    L.ActivityRegularization, L.Flatten, L.RepeatVector,
    L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D,
    L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D,
    L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D,
    L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D,
    L.UpSampling1D, L.UpSampling2D, L.UpSampling3D,
    L.Cropping1D, L.Cropping2D, L.Cropping3D,
)  # fmt: skip
# in training they multiply each number by a random one
_FACTORS = (
    L.Dropout, L.GaussianDropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D,
    DropBlock2D,
)  # fmt: skip
_PADDINGS = (L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D)
_ACTIVATIONS = (L.ReLU, L.LeakyReLU, L.ELU)
_CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
_SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
_RECURRENT = (L.SimpleRNN, L.GRU, L.LSTM)
_MERGES: dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]] = {
    "Add": sum,  # type: ignore[dict-item]
    "Subtract": lambda values: values[0] - values[1],
    "Multiply": lambda values: np.prod(values, axis=0),
    "Average": lambda values: np.mean(values, axis=0),
    "Maximum": lambda values: np.max(values, axis=0),
    "Minimum": lambda values: np.min(values, axis=0),
}


def rule_for(
    layer: Any, inputs: Sequence[Any], outputs: Sequence[Any], *, training: bool = False
) -> Rule:
    """Return what is known of a layer, or a rule by which all its channels stay.

    Args:
        layer: a layer or operation; a subclass of a known one is not known.
        inputs, outputs: the symbolic tensors of one of its calls.
        training: whether this call is in training mode whatever the model is in.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> x = keras.Input((3,))
    >>> type(rule_for(layer, [x], [layer(x)])).__name__
    'Units'
    """
    kind = type(layer)
    words = f"{layer.name} ({kind.__name__})"
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    if any(len(shape) < 2 or shape[-1] is None for shape in shapes) and kind is not L.Embedding:
        return Rule(layer, f"{words} has a last axis of unknown size")
    if len(outputs) != 1:
        return Rule(layer, f"{words} has several outputs")
    if getattr(layer, "data_format", None) == "channels_first":
        return Rule(layer, f"{words} has its channels first")
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return Rule(layer, f"{words} is quantized or has LoRA weights")
    if _is_merge(layer):
        sizes = {(len(shape), shape[-1]) for shape in shapes}
        # an operation such as x + 1 has its number among its arguments, not among its inputs
        if len(inputs) < 2 or len(sizes) > 1:
            return Rule(layer, f"{words} merges tensors with different channels")
        return Merge(layer, _MERGES[kind.__name__])
    if kind is L.Concatenate:
        is_last = layer.axis in (-1, len(shapes[0]) - 1)
        return Concatenate(layer) if is_last else Merge(layer, _the_same)
    if len(inputs) != 1:
        return Rule(layer, f"{words} has several inputs")
    activation = getattr(layer, "activation", None)
    (before,), after = shapes[:-1], shapes[-1]
    if kind is L.Flatten or kind is L.Reshape:
        if after[-1] % before[-1]:
            return Rule(layer, f"{words} mixes channels with positions")
        return Reshape(layer) if kind is L.Reshape else Through(layer)
    if kind is L.Permute:
        last = len(before) - 1
        return Through(layer) if layer.dims[-1] == last else Rule(layer)
    if kind is L.Dropout and (layer.noise_shape or (None,))[-1] not in (None, 1):
        return FixedThrough(layer)
    if kind is L.Normalization and layer.axis in ((-1,), (len(before) - 1,), ()):
        return FixedThrough(layer)
    if training and kind in (L.GaussianNoise, L.AlphaDropout):
        return Through(layer, lambda values: np.full_like(values, np.nan))
    if kind in _PADDINGS or (training and kind in _FACTORS):
        return Through(layer, lambda values: np.where(values == 0, values, np.nan))
    if kind in _IDENTITIES:
        return Through(layer)
    if kind is L.Activation:
        return Through(layer, activation) if is_elementwise(activation) else _mixing(layer)
    if kind in _ACTIVATIONS:
        return Through(layer, layer.call)
    if kind is L.Rescaling and np.ndim(layer.scale) == np.ndim(layer.offset) == 0:
        return Through(layer, lambda values: values * layer.scale + layer.offset)
    if kind is L.PReLU:
        return PReLU(layer)
    if kind is L.BatchNormalization:
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        last = axis in (-1, len(before) - 1)
        if not last:
            return Rule(layer, f"{words} has another axis")
        return BatchNormalization(layer, training=training)
    if training and (
        getattr(layer, "dropout", False) or getattr(layer, "recurrent_dropout", False)
    ):
        return Rule(layer, f"{words} is called with training=True")
    return _rule_with_units(layer, words)


def _rule_with_units(layer: Any, words: str) -> Rule:
    kind = type(layer)
    if kind is L.Dense:
        return Units(layer)
    if kind in _CONVOLUTIONS:
        if layer.groups != 1:
            return Rule(layer, f"{words} has groups of channels")
        return Convolution(layer)
    if kind in _TRANSPOSED:
        return TransposedConvolution(layer)
    if kind in _DEPTHWISE:
        known = is_elementwise(layer.activation)
        return DepthwiseConvolution(layer) if known else _mixing(layer)
    if kind in _SEPARABLE:
        return SeparableConvolution(layer)
    if kind is L.Embedding:
        return Embedding(layer)
    if kind in _RECURRENT and not layer.stateful:
        gate = getattr(layer, "recurrent_activation", keras.activations.linear)
        known = is_elementwise(layer.activation) and is_elementwise(gate)
        return Recurrent(layer) if known else _mixing(layer)
    return Rule(layer)


def _mixing(layer: Any) -> Rule:
    name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    return Rule(layer, f"{layer.name} has the activation {name}, which may mix its channels")


def _is_merge(layer: Any) -> bool:
    """Whether it is a merging layer or the operation of `x + y`, which Keras keeps private."""
    kind = type(layer)
    return kind.__name__ in _MERGES and kind.__module__.startswith("keras.")


def _the_same(values: Sequence[np.ndarray]) -> np.ndarray:
    first = values[0]
    return np.where(np.all([value == first for value in values], axis=0), first, np.nan)


def is_elementwise(function: Any) -> bool:
    """Whether an activation is a function of each number alone, as far as that is known.

    Example:

    >>> is_elementwise(keras.activations.relu), is_elementwise(keras.activations.softmax)
    (True, False)
    """
    name = getattr(function, "__name__", "")
    return name in ELEMENTWISE and getattr(keras.activations, name, None) is function


def pads(layer: Any) -> bool:
    """Whether a convolution reads zeros beyond the edge.

    Example:

    >>> pads(L.Conv2D(1, 3, padding="same")), pads(L.Conv2D(1, 1, padding="same"))
    (True, False)
    """
    padding = getattr(layer, "padding", "valid")
    return padding != "valid" and max(getattr(layer, "kernel_size", (1,))) > 1


def on_constants(function: Callable[[np.ndarray], Any], values: np.ndarray) -> np.ndarray:
    """Return a function's values where there are constants, else NaN.

    Example:

    >>> on_constants(keras.activations.relu, np.array([-1.0, np.nan, 2.0]))
    array([ 0., nan,  2.])
    """
    result = np.full(values.shape, np.nan)
    known = np.isfinite(values)
    if known.any():
        result[known] = keras.ops.convert_to_numpy(function(values[known]))
    return np.where(np.isfinite(result), result, np.nan)


def _array(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)
