"""`linear`: ridge, lasso, elastic net and logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from kregs.builders.arguments import (
    LINEAR_FIELDS,
    check_fields,
    check_model_name,
    check_outputs,
    check_shape,
)
from kregs.builders.layer_factory import LayerFactory
from kregs.builders.unapplied import mark_unapplied
from kregs.regularization import Regularization


def linear(
    input_shape: Sequence[int],
    outputs: int = 1,
    *,
    kernel_initializer: str | keras.initializers.Initializer = "zeros",
    regularization: Regularization | None = None,
    head_activation: str | Callable | None = None,
    use_bias: bool = True,
    seed: int | None = None,
    name: str = "linear",
) -> keras.Sequential:
    """Build a linear or logistic regression: one Dense layer, penalized by `l1` and `l2`.

    The bias is not penalized (unless `bias_l1` or `bias_l2` says so), as in scikit-learn. The
    same minimum as scikit-learn's, for n samples and one output, needs

    | scikit-learn | loss | kregs |
    |---|---|---|
    | `Ridge(alpha)` | `"mse"` | `l2 = alpha / n` |
    | `Lasso(alpha)` | `"mse"` | `proximal_l1 = 2 * alpha` (`l1` for weights near zero) |
    | `ElasticNet(alpha, l1_ratio=r)` | `"mse"` | `l1 = 2 * alpha * r`, `l2 = alpha * (1 - r)` |
    | `LogisticRegression(C)` | `"binary_crossentropy"` | `l2 = 1 / (2 * C * n)` |
    | the same with `l1_ratio=1` | `"binary_crossentropy"` | `l1 = 1 / (C * n)` |

    since Keras takes the mean of the squares and no factor 1/2: Ridge minimizes
    Σ(y - ŷ)² + alpha·‖w‖², Lasso Σ(y - ŷ)² / 2n + alpha·‖w‖₁. Gradient steps bring an `l1`
    weight near 0, not to exactly 0: end with a small learning rate and cut off what is below it.

    Args:
        input_shape: shape of one sample. More than one axis is flattened.
        outputs: number of outputs.
        kernel_initializer: the problem is convex, so zeros are as good a start as any;
            `"auto"` or a Keras initializer for another one.
        regularization: a `kregs.Regularization` with `l1`, `l2`, `bias_l1`, `bias_l2`,
            `max_norm`, `input_dropout`, `gaussian_noise`; there are no hidden layers for the rest.
        head_activation: `None` for regression, `"sigmoid"` or `"softmax"` for logistic regression.
        use_bias: whether there is an intercept.
        seed: integer, or `None` for random.
        name: the model's name.

    Returns:
        An uncompiled, built `keras.Sequential`: `(batch, *input_shape)` to `(batch, outputs)`.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import kregs
    >>> alpha, n = 1.0, 442
    >>> ridge = kregs.linear((10,), regularization=kregs.Regularization(l2=alpha / n))
    >>> ridge.count_params()
    11

    References:
        Hoerl, Kennard, "Ridge Regression", 1970; Tibshirani, "Regression Shrinkage and Selection
        via the Lasso", 1996; Zou, Hastie, "Regularization and Variable Selection via the Elastic
        Net", 2005.
    """
    shape = check_shape("input_shape", input_shape)
    outputs = check_outputs(outputs, head_activation)
    if not isinstance(use_bias, bool):
        raise TypeError(f"`use_bias` must be True or False. Received: use_bias={use_bias!r}")
    factory = LayerFactory(
        check_fields("linear", regularization, LINEAR_FIELDS),
        kernel_initializer=kernel_initializer,
        seed=seed,
    )
    layers = [keras.Input(shape, name="input")]
    if len(shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten"))
    layers += factory.input_noise()
    layers.append(factory.head(outputs, head_activation, use_bias=use_bias))
    return mark_unapplied(
        keras.Sequential(layers, name=check_model_name(name)), factory.regularization
    )
