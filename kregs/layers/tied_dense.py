"""`TiedDense`: one kernel used in both directions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.layers.dense_weights import DenseWeights
from kregs.validation import check_flag


@keras.saving.register_keras_serializable(package="kregs")
class TiedDense(DenseWeights):
    """A dense layer that also runs backwards through the same kernel, transposed.

    Forwards it is `inputs @ kernel + bias`, backwards `inputs @ transpose(kernel) +
    reverse_bias`. A model uses it twice: the encoder calls it, the decoder calls it with
    `reverse=True` (as `keras_hub.layers.ReversibleEmbedding` does). There is one kernel, so it is
    saved, counted and penalized once.

    Args:
        units: outputs forwards, inputs backwards.
        use_bias: whether there is a bias forwards, of shape `(units,)`.
        use_reverse_bias: whether there is a bias backwards, of shape `(inputs,)`.
        kernel_initializer, kernel_regularizer, kernel_constraint: of the kernel, of shape
            `(inputs, units)`.
        bias_initializer, bias_regularizer: of both biases.

    Call arguments:
        inputs: floats of shape `(batch, inputs)`; backwards `(batch, units)`.
        reverse: whether to run backwards. The first call must run forwards.

    Output shape:
        `(batch, units)`; backwards `(batch, inputs)`.

    Raises:
        TypeError, ValueError: `units` is no integer >= 1, or the first call runs backwards.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import TiedDense
    >>> layer = TiedDense(2)
    >>> code = layer(np.ones((5, 3), "float32"))
    >>> layer(code, reverse=True).shape, len(layer.weights)
    (TensorShape([5, 3]), 3)

    References:
        Vincent et al., "Stacked Denoising Autoencoders", JMLR 11, 2010, section 2.1 (tied
        weights).
    """

    def __init__(self, units: int, *, use_reverse_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.use_reverse_bias = check_flag("use_reverse_bias", use_reverse_bias)
        self.reverse_bias: Any = None

    def build(self, input_shape: tuple) -> None:
        """Make the kernel `(inputs, units)` and the biases, for the forward direction."""
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(
                "`TiedDense` needs a known number of inputs. "
                f"Received: input of shape {tuple(input_shape)}"
            )
        self.kernel = self._add_kernel((inputs, self.units))
        if self.use_bias:
            self.bias = self._add_bias((self.units,))
        if self.use_reverse_bias:
            self.reverse_bias = self._add_bias((inputs,), "reverse_bias")

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Return the product with the kernel or, with `reverse`, with its transpose."""
        kernel = ops.transpose(self.kernel) if reverse else self.kernel
        if inputs.shape[-1] != kernel.shape[0]:
            # a first call with reverse=True builds the kernel for the wrong side
            direction = "backwards" if reverse else "forwards"
            raise ValueError(
                f"`TiedDense` expected {kernel.shape[0]} inputs {direction}. "
                f"Received: input of shape {tuple(inputs.shape)}"
            )
        outputs = ops.matmul(inputs, kernel)
        bias = self.reverse_bias if reverse else self.bias
        return outputs if bias is None else ops.add(outputs, bias)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {**super().get_config(), "use_reverse_bias": self.use_reverse_bias}
