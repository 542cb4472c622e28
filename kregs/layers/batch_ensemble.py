"""Dense layers of k networks inside of one: `BatchEnsembleDense` shares kernels, as in TabM."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kregs.layers.dense_weights import DenseWeights
from kregs.layers.resolving import check_features, initializer
from kregs.validation import check_flag, check_integer, check_seed


@keras.saving.register_keras_serializable(package="kregs")
class RandomSign(keras.initializers.Initializer):
    """Draws +1 or -1, each with probability 1/2: what makes the members of a BatchEnsemble differ.

    Args:
        seed: integer, or `None` for random.

    Example:

    >>> from kregs.layers import RandomSign
    >>> sorted(set(RandomSign(seed=0)((100,)).numpy().tolist()))
    [-1.0, 1.0]
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else check_seed("seed", seed)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Return signs of a shape."""
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed)
        return ops.cast(ops.where(draw < 0.5, -1.0, 1.0), dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"seed": self.seed}


class _MembersDense(DenseWeights):
    """What dense layers of k members share."""

    def __init__(self, units: int, members: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.members = check_integer("members", members, minimum=1)

    def _check_members(self, input_shape: tuple) -> None:
        if input_shape[1] != self.members:
            raise ValueError(
                f"`members` must be the input's second axis. Received: members={self.members}, "
                f"input of shape {tuple(input_shape)}"
            )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return `(batch, members, units)`."""
        return (input_shape[0], self.members, self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {**super().get_config(), "members": self.members}


@keras.saving.register_keras_serializable(package="kregs")
class BatchEnsembleDense(_MembersDense):
    """A dense layer of k members that share one kernel W.

    Member i computes `((x * alpha_i) W) * gamma_i + bias_i`: its own are a factor for each input,
    one for each output, and the bias. TabM begins with random signs for `alpha` of the first layer
    (`RandomSign`) and with 1 for all other factors.

    Args:
        units: outputs of each member.
        members: k.
        use_alpha, use_gamma, use_bias: whether members have these of their own.
        kernel_initializer, kernel_regularizer, kernel_constraint: of the shared kernel
            `(inputs, units)`.
        alpha_initializer: of the factors of inputs, `(members, inputs)`.
        gamma_initializer: of the factors of outputs, `(members, units)`.
        bias_initializer, bias_regularizer: of the biases `(members, units)`.

    Call arguments:
        inputs: floats of shape `(batch, members, inputs)`, or `(batch, inputs)` for all members.

    Output shape:
        `(batch, members, units)`.

    Raises:
        TypeError, ValueError: an argument is wrong, or does not fit the input.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import BatchEnsembleDense, RandomSign
    >>> layer = BatchEnsembleDense(3, members=4, alpha_initializer=RandomSign(seed=0))
    >>> layer(np.ones((5, 2), "float32")).shape, layer.kernel.shape
    (TensorShape([5, 4, 3]), TensorShape([2, 3]))

    References:
        Wen, Tran, Ba, "BatchEnsemble: an Alternative Approach to Efficient Ensemble and Lifelong
        Learning", 2020; Gorishniy, Kotelnikov, Babenko, "TabM: Advancing Tabular Deep Learning
        with Parameter-Efficient Ensembling", 2024, section 3.
    """

    def __init__(
        self,
        units: int,
        members: int,
        *,
        use_alpha: bool = True,
        use_gamma: bool = True,
        alpha_initializer: Any = "ones",
        gamma_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, members, **kwargs)
        self.use_alpha = check_flag("use_alpha", use_alpha)
        self.use_gamma = check_flag("use_gamma", use_gamma)
        self.alpha_initializer = initializer("alpha_initializer", alpha_initializer)
        self.gamma_initializer = initializer("gamma_initializer", gamma_initializer)
        self.alpha: Any = None
        self.gamma: Any = None

    def build(self, input_shape: tuple) -> None:
        """Make the kernel `(inputs, units)` and what each member has of its own."""
        rank = len(input_shape)
        inputs = check_features("BatchEnsembleDense", input_shape, rank=3 if rank == 3 else 2)
        if rank == 3:
            self._check_members(input_shape)
        self.kernel = self._add_kernel((inputs, self.units))
        if self.use_alpha:
            self.alpha = self.add_weight(
                name="alpha", shape=(self.members, inputs), initializer=self.alpha_initializer
            )
        if self.use_gamma:
            self.gamma = self.add_weight(
                name="gamma", shape=(self.members, self.units), initializer=self.gamma_initializer
            )
        if self.use_bias:
            self.bias = self._add_bias((self.members, self.units))

    def call(self, inputs: Any) -> Any:
        """Return what each member makes of its inputs, `(batch, members, units)`."""
        if len(inputs.shape) == 2:
            inputs = ops.expand_dims(inputs, 1)
        if self.alpha is not None:
            inputs = inputs * self.alpha
        elif inputs.shape[1] == 1:
            inputs = ops.repeat(inputs, self.members, axis=1)
        # one product of matrices: with an axis of members it would be one a row
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        outputs = ops.reshape(ops.matmul(rows, self.kernel), (-1, self.members, self.units))
        if self.gamma is not None:
            outputs = outputs * self.gamma
        return outputs if self.bias is None else outputs + self.bias

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, serialized."""
        return {
            **super().get_config(),
            "use_alpha": self.use_alpha,
            "use_gamma": self.use_gamma,
            "alpha_initializer": keras.initializers.serialize(self.alpha_initializer),
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }


@keras.saving.register_keras_serializable(package="kregs")
class EnsembleDense(_MembersDense):
    """k dense layers side by side, each with a kernel and bias of its own: the heads of TabM.

    Args:
        units: outputs of each member.
        members: k.
        use_bias: whether there are biases.
        kernel_initializer: draws each member's kernel `(inputs, units)` by itself, with a seed of
            its own where the initializer has one.
        kernel_regularizer: of all kernels, `(members, inputs, units)`.
        kernel_constraint: the same; counted from the front, the axis of members is the first.
        bias_initializer, bias_regularizer: of the biases `(members, units)`.

    Call arguments:
        inputs: floats of shape `(batch, members, inputs)`.

    Output shape:
        `(batch, members, units)`.

    Raises:
        TypeError, ValueError: an argument is wrong, or does not fit the input.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import EnsembleDense
    >>> EnsembleDense(3, members=4)(np.ones((5, 4, 2), "float32")).shape
    TensorShape([5, 4, 3])
    """

    def build(self, input_shape: tuple) -> None:
        """Make the kernels `(members, inputs, units)` and the biases."""
        inputs = check_features("EnsembleDense", input_shape, rank=3)
        self._check_members(input_shape)
        shape = (self.members, inputs, self.units)
        self.kernel = self._add_kernel(shape, self._draw_by_member)
        if self.use_bias:
            self.bias = self._add_bias((self.members, self.units))

    def _draw_by_member(self, shape: tuple, dtype: Any = None) -> Any:
        """Draw kernels one by one: Keras would take the axis of members for more inputs."""
        draws = []
        for member in range(shape[0]):
            draw = self.kernel_initializer
            if isinstance(draw, keras.initializers.Initializer):
                config = draw.get_config()
                if config.get("seed", ...) is not ...:
                    config["seed"] = _seed_of_member(config["seed"], member)
                    draw = type(draw).from_config(config)
            draws.append(draw(shape[1:], dtype=dtype))
        return ops.stack(draws)

    def call(self, inputs: Any) -> Any:
        """Return what each member makes of its inputs, `(batch, members, units)`."""
        outputs = ops.einsum("bki,kiu->bku", inputs, self.kernel)
        return outputs if self.bias is None else outputs + self.bias


def _seed_of_member(seed: Any, member: int) -> int | None:
    """A seed of each member's own; another one each time where there is none."""
    if not isinstance(seed, (int, np.integer)):
        return None
    return int(np.random.SeedSequence([int(seed), member]).generate_state(1)[0] >> 1)
