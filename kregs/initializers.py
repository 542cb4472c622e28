"""`initializer_for`: which kernel initializer (He, LeCun, Glorot) suits which activation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kregs.validation import check_seed, suggestion

if TYPE_CHECKING:
    import keras

# He: half of the variance is lost where the unit is off. LeCun: what SELU's fixed point needs.
_FAMILY = {
    **dict.fromkeys(
        (
            "relu", "relu6", "leaky_relu", "elu", "celu", "gelu", "silu", "swish", "mish",
            "squareplus", "hard_silu", "hard_swish",
        ),
        "HeNormal",
    ),
    "selu": "LecunNormal",
}  # fmt: skip
# activations that are layers of their own
_LAYER_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "PReLU": "leaky_relu"}


def initializer_for(
    activation: str | Callable | None, *, seed: int | None = None
) -> keras.initializers.Initializer:
    """Return a fresh kernel initializer that keeps the signal's variance through `activation`.

    He for the ReLU family, GELU and SiLU; LeCun for SELU; Glorot for tanh, sigmoid, softmax,
    linear and whatever is not known.

    Args:
        activation: an activation's Keras name, the function itself, or `None` for linear.
        seed: integer in [0, 2**32), or `None` for a random one.

    Returns:
        A new `keras.initializers.Initializer`: one instance shared by two layers would give them
        the same weights.

    Raises:
        TypeError: `activation` is neither a name nor callable.
        ValueError: `activation` is a name that Keras does not know.

    Example:

    >>> initializer_for("relu").__class__.__name__
    'HeNormal'
    >>> initializer_for("tanh").__class__.__name__
    'GlorotUniform'

    References:
        He et al., "Delving Deep into Rectifiers", 2015; Glorot, Bengio, "Understanding the
        difficulty of training deep feedforward neural networks", 2010; Klambauer et al.,
        "Self-Normalizing Neural Networks", 2017.
    """
    import keras

    if seed is not None:
        seed = check_seed("seed", seed)
    family = _FAMILY.get(activation_name(activation), "GlorotUniform")
    return getattr(keras.initializers, family)(seed=seed)


def activation_name(activation: str | Callable | None, *, argument: str = "activation") -> str:
    """Return the Keras name of an activation given by name, function, layer or `None`.

    Args:
        activation: what the caller passed.
        argument: the argument's name, for the message.

    Raises:
        TypeError, ValueError: as `initializer_for`.

    Example:

    >>> import keras
    >>> activation_name(None), activation_name(keras.activations.gelu)
    ('linear', 'gelu')
    """
    import keras

    if activation is None:
        return "linear"
    if isinstance(activation, str):
        try:
            keras.activations.get(activation)
        except ValueError:
            known = [n for n in dir(keras.activations) if n[0].islower()]
            raise ValueError(
                f"`{argument}` must be a Keras activation. "
                f"Received: {argument}={activation!r}.{suggestion(activation, known)}"
            ) from None
        return activation
    if isinstance(activation, keras.layers.Layer):
        config: dict[str, Any] = activation.get_config()
        inner = config.get("activation")
        if isinstance(inner, str):
            return inner
        class_name = type(activation).__name__
        return _LAYER_ACTIVATIONS.get(class_name, class_name.lower())
    if callable(activation) and not inspect.isclass(activation):
        return getattr(activation, "__name__", type(activation).__name__)
    raise TypeError(
        f"`{argument}` must be a name, a function, a layer or None. "
        f"Received: {argument}={activation!r} of type {type(activation).__name__}"
    )
