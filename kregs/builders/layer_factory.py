"""`LayerFactory`: Keras layers, regularizers and seeds made from a `Regularization`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from kregs.initializers import activation_name, initializer_for
from kregs.layers import DropBlock2D
from kregs.regularization import Regularization
from kregs.validation import check_number, check_seed, suggestion

CHANNELS_LAST = "channels_last"


def image_input(
    input_shape: tuple[int | None, ...], rescaling: float | None
) -> list[keras.layers.Layer]:
    """Return the input of an image model and the factor its pixels are multiplied by.

    Args:
        input_shape: (height, width, channels).
        rescaling: the factor, or `None` for no such layer.

    Example:

    >>> [layer.name for layer in image_input((8, 8, 1), 1 / 255)]
    ['input', 'rescaling']
    """
    layers = [keras.Input(input_shape, name="input")]
    if rescaling is not None:
        scale = check_number("rescaling", rescaling, above=0.0)
        layers.append(keras.layers.Rescaling(scale, name="rescaling"))
    return layers


def full_precision() -> str:
    """Return the dtype of heads and penalties: float32, or float64 where that is the policy.

    Example:

    >>> full_precision()
    'float32'
    """
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"


def kernel_regularizer(regularization: Regularization) -> keras.regularizers.Regularizer | None:
    """Return the penalty on kernels, `None` where there is none.

    Example:

    >>> kernel_regularizer(Regularization(l2=0.1)).get_config()
    {'l1': 0.0, 'l2': 0.1}
    """
    return _l1_l2(regularization.l1, regularization.l2)


def bias_regularizer(regularization: Regularization) -> keras.regularizers.Regularizer | None:
    """Return the penalty on biases, `None` where there is none.

    Example:

    >>> bias_regularizer(Regularization(l2=0.1)) is None
    True
    """
    return _l1_l2(regularization.bias_l1, regularization.bias_l2)


def kernel_constraint(
    regularization: Regularization, *, rank: int = 2
) -> keras.constraints.Constraint | None:
    """Return the max-norm of the weights into each unit of a kernel with `rank` axes.

    Example:

    >>> kernel_constraint(Regularization(max_norm=3), rank=4).get_config()
    {'max_value': 3.0, 'axis': [0, 1, 2]}
    """
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
        self.seed = None if seed is None else check_seed("seed", seed)

    def __call__(self, name: str) -> int | None:
        if self.seed is None:
            return None
        entropy = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())])
        return int(entropy.generate_state(1)[0] >> 1)  # below 2**31: an int32 holds it


class LayerFactory:
    """Makes the layers of one model from its `Regularization`, initializer, activation and seed.

    What may be absent comes as a list of no or one layer, so that a builder reads
    `[dense, *factory.normalization(...), activation, *factory.dropout(...)]`.

    Args:
        regularization: what `check_fields` returned.
        activation: of hidden layers: a Keras name, a function, or a layer, which is copied.
        kernel_initializer: `"auto"` for what suits the activation, a Keras name, or an
            initializer, of which every layer gets its own copy.
        use_bias: of the layers before a normalization or activation; `None` for yes unless they
            are normalized.
        seed: integer, or `None` for random.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> factory = LayerFactory(Regularization(dropout=0.5), seed=0)
    >>> [layer.name for layer in factory.dense_block(8, "_1")]
    ['dense_1', 'dense_activation_1', 'dropout_1']
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
        """Return a fresh initializer for the kernel `name`, which feeds `activation`.

        Example:

        >>> factory = LayerFactory(Regularization(), seed=0)
        >>> type(factory.initializer("dense_1", "relu")).__name__
        'HeNormal'
        """
        seed = self.seeds(name)
        if isinstance(self.kernel_initializer, str) and self.kernel_initializer == "auto":
            return initializer_for(activation, seed=seed)
        initializer = keras.initializers.get(self.kernel_initializer)
        if not isinstance(initializer, keras.initializers.Initializer):
            return initializer  # a function of (shape, dtype)
        config = initializer.get_config()
        if "seed" in config:
            # the seed inside the user's initializer is the model's, not every layer's
            model_seed = config["seed"]
            config["seed"] = Seeds(model_seed)(name) if isinstance(model_seed, int) else seed
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

        Example:

        >>> factory = LayerFactory(Regularization(l2=0.1), seed=0)
        >>> factory.weights("dense_1")["kernel_regularizer"].get_config()
        {'l1': 0.0, 'l2': 0.1}
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
        """Return the output layer: penalized like the others, computed in full precision.

        Example:

        >>> factory = LayerFactory(Regularization(l2=0.1), seed=0)
        >>> factory.head(3, "softmax").units
        3
        """
        options = self.weights(
            name, activation="linear" if activation is None else activation, use_bias=use_bias
        )
        return keras.layers.Dense(outputs, activation=activation, dtype=full_precision(), **options)

    def activation(self, name: str) -> keras.layers.Layer:
        """Return the layer of the hidden activation: a copy of the user's, or Keras's.

        Example:

        >>> factory = LayerFactory(Regularization(), seed=0)
        >>> factory.activation("a").get_config()["activation"]
        'relu'
        """
        activation = self.hidden_activation
        if isinstance(activation, keras.layers.Layer):
            return type(activation).from_config({**activation.get_config(), "name": name})
        return keras.layers.Activation(activation, name=name)

    def normalization(self, name: str, channels: int) -> list[keras.layers.Layer]:
        """Return the normalization over the last axis, which has `channels` entries.

        Example:

        >>> factory = LayerFactory(Regularization(normalization="group"), seed=0)
        >>> factory.normalization("n", 48)[0].groups
        16
        """
        kind = self.regularization.normalization
        if kind is None:
            return []
        if kind == "batch":
            return [keras.layers.BatchNormalization(name=name)]
        if kind == "layer":
            return [keras.layers.LayerNormalization(name=name)]
        return [keras.layers.GroupNormalization(math.gcd(32, channels), name=name)]

    def activity_penalty(self, name: str) -> list[keras.layers.Layer]:
        """Return the penalty on what passes here, summed in float32: a float16 sum overflows.

        Example:

        >>> factory = LayerFactory(Regularization(), seed=0)
        >>> factory.activity_penalty("a")
        []
        """
        l1, l2 = self.regularization.activity_l1, self.regularization.activity_l2
        if not (l1 or l2):
            return []
        return [
            keras.layers.ActivityRegularization(l1=l1, l2=l2, dtype=full_precision(), name=name)
        ]

    def dropout(
        self, name: str, *, rate: float | None = None, noise_shape: tuple | None = None
    ) -> list[keras.layers.Layer]:
        """Return dropout at `rate`; default: the rate of hidden layers.

        Example:

        >>> factory = LayerFactory(Regularization(dropout=0.5), seed=0)
        >>> [layer.rate for layer in factory.dropout("d")]
        [0.5]
        """
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

        Example:

        >>> factory = LayerFactory(Regularization(spatial_dropout=0.2), seed=0)
        >>> [type(layer).__name__ for layer in factory.spatial_dropout("s", axes=1)]
        ['SpatialDropout1D']
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
        """Return the Gaussian noise and the dropout that belong directly after the input.

        Example:

        >>> factory = LayerFactory(Regularization(gaussian_noise=0.1, input_dropout=0.2), seed=0)
        >>> [layer.name for layer in factory.input_noise()]
        ['gaussian_noise', 'input_dropout']
        """
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
        """Return normalization, activation, activity penalty and dropout, in this order.

        Example:

        >>> factory = LayerFactory(Regularization(dropout=0.5), seed=0)
        >>> [layer.name for layer in factory.after_dense(8, "_1")]
        ['dense_activation_1', 'dropout_1']
        """
        return [
            *self.normalization(f"{prefix}dense_normalization{suffix}", units),
            self.activation(f"{prefix}dense_activation{suffix}"),
            *self.activity_penalty(f"{prefix}dense_activity{suffix}"),
            *self.dropout(f"{prefix}dropout{suffix}"),
        ]

    def dense_block(self, units: int, suffix: str, *, prefix: str = "") -> list[keras.layers.Layer]:
        """Return a hidden Dense layer and what follows it.

        Example:

        >>> factory = LayerFactory(Regularization(), seed=0)
        >>> [layer.name for layer in factory.dense_block(8, "_1")]
        ['dense_1', 'dense_activation_1']
        """
        dense = keras.layers.Dense(units, **self.weights(f"{prefix}dense{suffix}"))
        return [dense, *self.after_dense(units, suffix, prefix=prefix)]

    def convolution(
        self, filters: int, name: str, *, kernel_size: int, strides: int = 1, **options: Any
    ) -> keras.layers.Layer:
        """Return a Conv2D that pads to the same size; `options` go to `weights`.

        Example:

        >>> factory = LayerFactory(Regularization(max_norm=3), seed=0)
        >>> factory.convolution(8, "c", kernel_size=3).padding
        'same'
        """
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            data_format=CHANNELS_LAST,
            **self.weights(name, rank=4, **options),
        )


def chain(x: Any, layers: Iterable[Callable]) -> Any:
    """Apply layers one after another, for Functional models.

    Example:

    >>> chain(1, [lambda x: x + 1, lambda x: 10 * x])
    20
    """
    for layer in layers:
        x = layer(x)
    return x


def _check_initializer(initializer: Any) -> None:
    if isinstance(initializer, str) and initializer == "auto":
        return
    try:
        resolved = keras.initializers.get(initializer)
    except ValueError:
        resolved = None
    if resolved is None:
        known = ["auto", *(n for n in dir(keras.initializers) if n[0].islower())]
        raise ValueError(
            "`kernel_initializer` must be 'auto', a Keras initializer or its name. "
            f"Received: kernel_initializer={initializer!r}.{suggestion(str(initializer), known)}"
        )
