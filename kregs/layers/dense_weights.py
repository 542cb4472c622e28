"""`DenseWeights`: the arguments and weights that layers with a kernel and biases share."""

from __future__ import annotations

from typing import Any

import keras

from kregs.layers.resolving import constraint, initializer, regularizer
from kregs.validation import check_flag, check_integer


class DenseWeights(keras.layers.Layer):
    """The base of layers that multiply with a kernel and add a bias.

    Args:
        units: outputs.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint: as in `keras.layers.Dense`.
    """

    def __init__(
        self,
        units: int,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = check_integer("units", units, minimum=1)
        self.use_bias = check_flag("use_bias", use_bias)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self.bias_initializer = initializer("bias_initializer", bias_initializer)
        self.kernel_regularizer = regularizer("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = regularizer("bias_regularizer", bias_regularizer)
        self.kernel_constraint = constraint("kernel_constraint", kernel_constraint)
        self.bias: Any = None

    def _add_kernel(self, shape: tuple[int, ...], initializer: Any = None) -> Any:
        return self.add_weight(
            name="kernel",
            shape=shape,
            initializer=initializer or self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )

    def _add_bias(self, shape: tuple[int, ...], name: str = "bias") -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
        }
