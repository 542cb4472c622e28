"""`ShakeShake` and `ShakeDrop`: residual branches with random weights, others backward."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.layers.seeded import SeededLayer
from kregs.validation import check_choice, check_number

LEVELS = ("batch", "sample")
MODES = ("shake", "even", "keep")


@keras.saving.register_keras_serializable(package="kregs")
class ShakeShake(SeededLayer):
    """The sum of two branches by random weights: `a * first + (1 - a) * second`.

    While training, `a` is drawn from [0, 1] anew for the forward pass, and for the gradient `b`
    takes its place. In inference both branches count the same. Put it before the `Add` of a
    residual block that has two branches.

    Args:
        forward: `"shake"` draws `a`; `"even"` sets it to 0.5.
        backward: `"shake"` draws `b`; `"even"` sets it to 0.5; `"keep"` takes `a`.
        level: `"sample"` draws for each row, `"batch"` for all at once.
        seed: integer, or `None` for random.

    Call arguments:
        inputs: a list of two tensors of one shape, `(batch, ...)`.
        training: whether to draw.

    Output shape:
        That of each input.

    Raises:
        TypeError, ValueError: an argument is wrong, or the inputs are not two of one shape.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import ShakeShake
    >>> ShakeShake()([np.zeros((1, 2)), np.ones((1, 2))]).numpy().tolist()
    [[0.5, 0.5]]

    References:
        Gastaldi, "Shake-Shake regularization", 2017 (section 2.2 and table 1: even, shake, keep;
        image and batch level); even forward and backward: Kadra et al., "Well-tuned Simple Nets
        Excel on Tabular Datasets", 2021, as its code has it.
    """

    def __init__(
        self,
        *,
        forward: str = "shake",
        backward: str = "shake",
        level: str = "sample",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.forward = check_choice("forward", forward, MODES[:2])
        self.backward = check_choice("backward", backward, MODES)
        self.level = check_choice("level", level, LEVELS)

    def build(self, input_shape: Any) -> None:
        """Check that there are two inputs of one shape: there are no weights."""
        shapes = [tuple(shape) for shape in input_shape]
        if len(shapes) != 2 or shapes[0][1:] != shapes[1][1:]:
            raise ValueError(
                "`ShakeShake` needs a list of two tensors of one shape. "
                f"Received: inputs of shapes {input_shape}"
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the weighted sum."""
        first, second = inputs
        if not training:
            return 0.5 * first + 0.5 * second
        a = self._weight(first, self.forward)
        b = a if self.backward == "keep" else self._weight(first, self.backward)
        return shaken(a * first + (1 - a) * second, b * first + (1 - b) * second)

    def _weight(self, like: Any, mode: str) -> Any:
        if mode == "even":
            return ops.cast(0.5, like.dtype)
        return drawn(like, self.level, 0.0, 1.0, self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Return the shape of one input."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("forward", "backward", "level")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="kregs")
class ShakeDrop(SeededLayer):
    """A residual branch that some batches see with a random weight, and another one backward.

    While training, a batch has the branch as it is with probability `1 - rate`; else it is
    multiplied by a number drawn from `alpha`, and its gradient by one drawn from `beta`. In
    inference it is multiplied by its mean, `1 - rate + rate * mean(alpha)`. With `alpha` and `beta`
    of (0, 0) it is stochastic depth, of whole batches.

    Args:
        rate: probability of drawing, in [0, 1]: 1 - p of the paper, which lets it grow linearly
            with the depth of the branch, to 0.5.
        alpha: (low, high) of the factor of the output.
        beta: (low, high) of the factor of the gradient.
        level: `"sample"` draws factors for each row, `"batch"` for all at once. Whether they are
            drawn is the batch's.
        seed: integer, or `None` for random.

    Call arguments:
        inputs: `(batch, ...)`.
        training: whether to draw.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import ShakeDrop
    >>> ShakeDrop(0.5)(np.ones((1, 2))).numpy().tolist()
    [[0.5, 0.5]]

    References:
        Yamada, Iwamura, Akiba, Kise, "ShakeDrop Regularization for Deep Residual Learning", 2019
        (equation 6; alpha in [-1, 1], beta in [0, 1]); alpha = beta = 0.5: Kadra et al.,
        "Well-tuned Simple Nets Excel on Tabular Datasets", 2021, as its code has it.
    """

    def __init__(
        self,
        rate: float,
        *,
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
        level: str = "sample",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.rate = check_number("rate", rate, minimum=0.0, maximum=1.0)
        self.alpha = _check_range("alpha", alpha)
        self.beta = _check_range("beta", beta)
        self.level = check_choice("level", level, LEVELS)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the branch, shaken while training."""
        if not training:
            return inputs * ops.cast(1 - self.rate + self.rate * sum(self.alpha) / 2, inputs.dtype)
        drawing = keras.random.uniform((), dtype="float32", seed=self.seed_generator) < self.rate
        alpha, beta = (
            ops.where(drawing, drawn(inputs, self.level, *bounds, self.seed_generator), 1.0)
            for bounds in (self.alpha, self.beta)
        )
        return shaken(ops.cast(alpha, inputs.dtype) * inputs, ops.cast(beta, inputs.dtype) * inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("rate", "alpha", "beta", "level")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def shaken(forward: Any, backward: Any) -> Any:
    """Return a tensor of the first's values that has the second's gradient.

    Example:

    >>> float(shaken(ops.convert_to_tensor(2.0), ops.convert_to_tensor(3.0)))
    2.0
    """
    return ops.stop_gradient(forward - backward) + backward


def drawn(like: Any, level: str, low: float, high: float, seed: Any) -> Any:
    """Return uniform numbers for each row of a tensor, or one, which broadcast along it."""
    shape = [1] * len(like.shape)
    if level == "sample":
        shape[0] = ops.shape(like)[0]
    return ops.cast(keras.random.uniform(shape, low, high, dtype="float32", seed=seed), like.dtype)


def _check_range(name: str, bounds: Any) -> tuple[float, float]:
    try:
        low, high = bounds
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be (low, high). Received: {name}={bounds!r}") from None
    low, high = check_number(f"{name}[low]", low), check_number(f"{name}[high]", high)
    if low > high:
        raise ValueError(f"`{name}` must be (low, high), low <= high. Received: {name}={bounds!r}")
    return low, high
