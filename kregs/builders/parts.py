"""The pieces all builders share: layers made from a `Regularization`, seeds, checks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from kregs.initializers import activation_name, initializer_for
from kregs.layers import DropBlock2D
from kregs.regularization import Regularization
from kregs.validation import check_integer, check_number, suggestion

CHANNELS_LAST = "channels_last"

_PENALTIES = frozenset({"l1", "l2", "bias_l1", "bias_l2", "max_norm"})
_INPUT = frozenset({"input_dropout", "gaussian_noise"})
_HIDDEN = frozenset({"activity_l1", "activity_l2", "dropout", "normalization"})

# what `check_fields` lets pass; a builder adds to these
LINEAR_FIELDS = _PENALTIES | _INPUT
DENSE_FIELDS = LINEAR_FIELDS | _HIDDEN
CONVOLUTION_FIELDS = DENSE_FIELDS | {"spatial_dropout"}


def check_fields(
    builder: str, regularization: Regularization | None, allowed: Iterable[str]
) -> Regularization:
    """Return the value (`None` becomes `Regularization()`), or raise for a field without meaning.

    Raises:
        TypeError: `regularization` is no `Regularization`.
        ValueError: a field that is set would be ignored by this builder.
    """
    if regularization is None:
        return Regularization()
    if not isinstance(regularization, Regularization):
        raise TypeError(
            "`regularization` must be a kregs.Regularization or None. "
            f"Received: regularization={regularization!r}"
        )
    default, allowed = Regularization().get_config(), set(allowed)
    for name, value in regularization.get_config().items():
        if value != default[name] and name not in allowed:
            raise ValueError(
                f"`regularization.{name}` has no meaning for {builder}(), which takes: "
                f"{', '.join(n for n in default if n in allowed)}. Received: {name}={value!r}"
            )
    return regularization


def check_shape(
    name: str, shape: Any, *, rank: int | None = None, variable: Sequence[int] = ()
) -> tuple[int | None, ...]:
    """Return a shape without its batch axis as a tuple of positive integers.

    Args:
        name: the argument's name, for the message.
        shape: what the caller passed.
        rank: how many axes it must have, or `None` for one or more.
        variable: the axes that may be `None`, which stands for any size.
    """
    axes = f"{rank} axes" if rank else "at least one axis"
    expected = f"a tuple of positive integers with {axes}, without the batch axis"
    if variable:
        expected += f" (axes {', '.join(map(str, variable))} may be None)"
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
    shape = tuple(shape)
    if len(shape) == 0 or (rank is not None and len(shape) != rank):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
    for axis, size in enumerate(shape):
        if size is None and axis in variable:
            continue
        if size is None:
            raise ValueError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
        check_integer(f"{name}[{axis}]", size, minimum=1)
    return tuple(None if size is None else int(size) for size in shape)


def check_sizes(name: str, sizes: Any, *, empty: bool = False) -> tuple[int, ...]:
    """Return `units`, `filters` and the like as a tuple of integers >= 1, not empty."""
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(
            f"`{name}` must be a sequence of integers >= 1, one per layer. "
            f"Received: {name}={sizes!r}"
        )
    checked = tuple(check_integer(f"{name}[{i}]", s, minimum=1) for i, s in enumerate(sizes))
    if not checked and not empty:
        raise ValueError(
            f"`{name}` must hold at least one integer >= 1. Received: {name}={sizes!r}"
        )
    return checked


def check_outputs(outputs: Any, head_activation: str | Callable | None) -> int:
    """Return `outputs`, or raise if it is no integer >= 1 or makes a constant softmax."""
    outputs = check_integer("outputs", outputs, minimum=1)
    if outputs == 1 and activation_name(head_activation) == "softmax":
        raise ValueError(
            "`head_activation` must not be 'softmax' with outputs=1, which is 1 for every input: "
            "use 'sigmoid' for two classes, None for regression. "
            f"Received: outputs={outputs}, head_activation={head_activation!r}"
        )
    return outputs


def image_input(
    input_shape: tuple[int | None, ...], rescaling: float | None
) -> list[keras.layers.Layer]:
    """Return the input of an image model and the factor its pixels are multiplied by."""
    layers = [keras.Input(input_shape, name="input")]
    if rescaling is not None:
        scale = check_number("rescaling", rescaling, above=0.0)
        layers.append(keras.layers.Rescaling(scale, name="rescaling"))
    return layers


def check_block_size(block_size: int | None, regularization: Regularization) -> None:
    """Raise unless `block_size` is an integer >= 1 that has a rate, or `None`."""
    if block_size is None:
        return
    check_integer("block_size", block_size, minimum=1)
    if not regularization.spatial_dropout:
        raise ValueError(
            "`block_size` is the side of the squares that `regularization.spatial_dropout` drops: "
            f"expected a rate > 0 with it. Received: block_size={block_size}, spatial_dropout=0.0"
        )


def full_precision() -> str:
    """Return the dtype of heads and penalties: float32, or float64 where that is the policy."""
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"


def kernel_regularizer(regularization: Regularization) -> keras.regularizers.Regularizer | None:
    return _l1_l2(regularization.l1, regularization.l2)


def bias_regularizer(regularization: Regularization) -> keras.regularizers.Regularizer | None:
    return _l1_l2(regularization.bias_l1, regularization.bias_l2)


def kernel_constraint(
    regularization: Regularization, *, rank: int = 2
) -> keras.constraints.Constraint | None:
    """Return the max-norm of the weights into each unit of a kernel with `rank` axes."""
    if regularization.max_norm is None:
        return None
    # the last axis counts the units or filters; all others lead into one of them
    axis = 0 if rank == 2 else list(range(rank - 1))
    return keras.constraints.MaxNorm(regularization.max_norm, axis=axis)


def _l1_l2(l1: float, l2: float) -> keras.regularizers.Regularizer | None:
    # L1L2 for either: its get_config() keeps the exact number, that of L1 is rounded to float32
    return keras.regularizers.L1L2(l1=l1, l2=l2) if l1 or l2 else None


class Seeds:
    """One seed per layer, made from a single integer and the layer's name.

    A layer's seed depends on nothing but the two: a model with dropout starts from the same
    weights as the model without it, so that a comparison shows the dropout and not the luck.

    Example:

    >>> seeds = Seeds(0)
    >>> seeds("dense_1") == Seeds(0)("dense_1"), seeds("dense_1") == seeds("dense_2")
    (True, False)
    >>> Seeds(None)("dense_1") is None
    True
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = None if seed is None else check_integer("seed", seed, minimum=0)

    def __call__(self, name: str) -> int | None:
        if self.seed is None:
            return None
        entropy = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
        return int(entropy.generate_state(1)[0] >> 1)  # below 2**31: an int32 holds it


class Parts:
    """Makes the layers of one model from its `Regularization`, initializer, activation and seed.

    What may be absent comes as a list of no or one layer, so that a builder reads
    `[dense, *parts.normalization(...), activation, *parts.dropout(...)]`.

    Args:
        regularization: what `check_fields` returned.
        activation: of hidden layers: a Keras name, a function, or a layer, which is copied.
        kernel_initializer: `"auto"` for what suits the activation, a Keras name, or an
            initializer, of which every layer gets its own copy.
        use_bias: of the layers before a normalization or activation; `None` for yes unless they
            are normalized.
        seed: integer, or `None` for random.
    """

    def __init__(
        self,
        regularization: Regularization,
        *,
        activation: Any = "relu",
        kernel_initializer: Any = "auto",
        use_bias: bool | None = None,
        seed: int | None = None,
    ) -> None:
        activation_name(activation)  # raises for what is no activation
        _check_initializer(kernel_initializer)
        if use_bias is not None and not isinstance(use_bias, bool):
            raise TypeError(f"`use_bias` must be True, False or None. Received: {use_bias!r}")
        self.regularization = regularization
        self.hidden_activation = activation
        self.kernel_initializer = kernel_initializer
        # the shift of the normalization does what a bias would do (Ioffe, Szegedy 2015, sec. 3.2)
        self.use_bias = regularization.normalization is None if use_bias is None else use_bias
        self.seeds = Seeds(seed)

    def initializer(self, name: str, activation: Any) -> keras.initializers.Initializer:
        """Return a fresh initializer for the kernel `name`, which feeds `activation`."""
        given = self.kernel_initializer
        seed = self.seeds(name)
        if isinstance(given, str) and given == "auto":
            return initializer_for(activation, seed=seed)
        initializer = keras.initializers.get(given)
        if not isinstance(initializer, keras.initializers.Initializer):
            return initializer  # a function of (shape, dtype)
        config = initializer.get_config()
        if "seed" in config:
            # the seed inside a given initializer is the model's, not every layer's
            own = config["seed"]
            config["seed"] = Seeds(own)(name) if isinstance(own, int) else seed
        return type(initializer).from_config(config)

    def weights(
        self, name: str, *, activation: Any = None, rank: int = 2, use_bias: bool | None = None
    ) -> dict[str, Any]:
        """Return the keyword arguments of a hidden Dense or convolution layer.

        Args:
            name: the layer's name, which decides its seed.
            activation: what follows the layer; default: the hidden activation.
            rank: number of axes of the kernel (2 for dense, 4 for Conv2D).
            use_bias: default: as for the whole model.
        """
        return {
            "name": name,
            "use_bias": self.use_bias if use_bias is None else use_bias,
            "kernel_initializer": self.initializer(
                name, self.hidden_activation if activation is None else activation
            ),
            "kernel_regularizer": kernel_regularizer(self.regularization),
            "bias_regularizer": bias_regularizer(self.regularization),
            "kernel_constraint": kernel_constraint(self.regularization, rank=rank),
        }

    def head(
        self, outputs: int, activation: Any, *, name: str = "head", use_bias: bool = True
    ) -> keras.layers.Dense:
        """Return the output layer: penalized like the others, computed in full precision."""
        options = self.weights(
            name, activation="linear" if activation is None else activation, use_bias=use_bias
        )
        return keras.layers.Dense(outputs, activation=activation, dtype=full_precision(), **options)

    def activation(self, name: str) -> keras.layers.Layer:
        given = self.hidden_activation
        if isinstance(given, keras.layers.Layer):
            return type(given).from_config({**given.get_config(), "name": name})
        return keras.layers.Activation(given, name=name)

    def normalization(self, name: str, channels: int) -> list[keras.layers.Layer]:
        """Return the normalization over the last axis, which has `channels` entries."""
        kind = self.regularization.normalization
        if kind is None:
            return []
        if kind == "batch":
            return [keras.layers.BatchNormalization(name=name)]
        if kind == "layer":
            return [keras.layers.LayerNormalization(name=name)]
        return [keras.layers.GroupNormalization(math.gcd(32, channels), name=name)]

    def activity_penalty(self, name: str) -> list[keras.layers.Layer]:
        """Return the penalty on what passes here, summed in float32: a float16 sum overflows."""
        l1, l2 = self.regularization.activity_l1, self.regularization.activity_l2
        if not (l1 or l2):
            return []
        return [
            keras.layers.ActivityRegularization(l1=l1, l2=l2, dtype=full_precision(), name=name)
        ]

    def dropout(
        self, name: str, *, rate: float | None = None, noise_shape: tuple | None = None
    ) -> list[keras.layers.Layer]:
        """Return dropout at `rate`; default: the rate of hidden layers."""
        rate = self.regularization.dropout if rate is None else rate
        if not rate:
            return []
        return [
            keras.layers.Dropout(rate, noise_shape=noise_shape, seed=self.seeds(name), name=name)
        ]

    def spatial_dropout(
        self, name: str, *, axes: int = 2, block_size: int | None = None
    ) -> list[keras.layers.Layer]:
        """Return dropout of whole channels, or with `block_size` of squares of them.

        Args:
            name: the layer's name.
            axes: how many axes (1 or 2) lie between the batch and the channels.
            block_size: side of the squares (DropBlock), for 2 axes.
        """
        rate, seed = self.regularization.spatial_dropout, self.seeds(name)
        if not rate:
            return []
        if axes == 1:
            return [keras.layers.SpatialDropout1D(rate, seed=seed, name=name)]
        if block_size is not None:
            return [DropBlock2D(rate, block_size=block_size, seed=seed, name=name)]
        return [
            keras.layers.SpatialDropout2D(rate, data_format=CHANNELS_LAST, seed=seed, name=name)
        ]

    def input_noise(self) -> list[keras.layers.Layer]:
        """Return the Gaussian noise and the dropout that belong directly after the input."""
        r = self.regularization
        noise: list[keras.layers.Layer] = []
        if r.gaussian_noise:
            seed = self.seeds("gaussian_noise")
            noise.append(
                keras.layers.GaussianNoise(r.gaussian_noise, seed=seed, name="gaussian_noise")
            )
        if r.input_dropout:
            noise += self.dropout("input_dropout", rate=r.input_dropout)
        return noise

    def after_dense(self, units: int, suffix: str, *, prefix: str = "") -> list[keras.layers.Layer]:
        """Return normalization, activation, activity penalty and dropout, in this order."""
        return [
            *self.normalization(f"{prefix}dense_normalization{suffix}", units),
            self.activation(f"{prefix}dense_activation{suffix}"),
            *self.activity_penalty(f"{prefix}dense_activity{suffix}"),
            *self.dropout(f"{prefix}dropout{suffix}"),
        ]

    def dense_block(self, units: int, suffix: str, *, prefix: str = "") -> list[keras.layers.Layer]:
        """Return a hidden Dense layer and what follows it."""
        dense = keras.layers.Dense(units, **self.weights(f"{prefix}dense{suffix}"))
        return [dense, *self.after_dense(units, suffix, prefix=prefix)]

    def convolution(
        self, filters: int, name: str, *, kernel_size: int, strides: int = 1, **options: Any
    ) -> keras.layers.Layer:
        """Return a Conv2D that pads to the same size; `options` go to `weights`."""
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            data_format=CHANNELS_LAST,
            **self.weights(name, rank=4, **options),
        )


def chain(x: Any, layers: Iterable[Callable]) -> Any:
    """Apply layers one after another, for Functional models."""
    for layer in layers:
        x = layer(x)
    return x


def _check_initializer(initializer: Any) -> None:
    if isinstance(initializer, str) and initializer == "auto":
        return
    try:
        found = keras.initializers.get(initializer)
    except ValueError:
        found = None
    if found is None:
        known = ["auto", *(n for n in dir(keras.initializers) if n[0].islower())]
        raise ValueError(
            "`kernel_initializer` must be 'auto', a Keras initializer or its name. "
            f"Received: kernel_initializer={initializer!r}.{suggestion(str(initializer), known)}"
        )
