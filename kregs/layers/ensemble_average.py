"""`EnsembleAverage`: what k members say as one; in training the loss is the mean of theirs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kregs.layers.resolving import check_features
from kregs.validation import check_choice

# what a head computes, and the loss that goes with it
ACTIVATIONS = ("softmax", "sigmoid", None)


@keras.saving.register_keras_serializable(package="kregs")
class EnsembleAverage(keras.layers.Layer):
    """Averages the probabilities (or targets) of k members; each is trained by its own loss.

    Members that are trained by the loss of their average learn to lean on each other; TabM trains
    them by the average of their losses. This layer brings that about under Keras's own losses: in
    training it returns the activation of the members' mean z̄ of their z_i, and adds to the loss by
    how much the mean of the losses is more than the loss of z̄, which does not depend on the targets
    (the mean over rows of, for each row):

    - softmax, with categorical crossentropy, sparse or not: mean of `logsumexp(z_i)` minus
      `logsumexp(z̄)`;
    - sigmoid, with binary crossentropy: mean of `softplus(z_i)` minus `softplus(z̄)`;
    - `None`, with the mean squared error: the variance of the z_i.

    So `loss` in training is exactly the mean of the k losses, label smoothing and soft labels
    included; with sample weights what is added is not weighted: weigh rows so that the mean weight
    is 1. Outside of training the layer returns the mean of the k activations.

    Args:
        activation: `"softmax"`, `"sigmoid"` or `None`.

    Call arguments:
        inputs: floats of shape `(batch, members, outputs)`, before the activation.
        training: whether to add to the loss.

    Output shape:
        `(batch, outputs)`.

    Raises:
        ValueError: the activation is another, or the input has another rank.

    Example:

    >>> import numpy as np
    >>> from kregs.layers import EnsembleAverage
    >>> layer = EnsembleAverage(None)
    >>> z = np.array([[[1.0], [3.0]]], "float32")
    >>> float(layer(z)[0, 0]), len(layer.losses)
    (2.0, 0)
    >>> float(layer(z, training=True)[0, 0]), float(layer.losses[0])
    (2.0, 1.0)

    References:
        Gorishniy, Kotelnikov, Babenko, "TabM: Advancing Tabular Deep Learning with
        Parameter-Efficient Ensembling", 2024, section 3; Wood et al., "A Unified Theory of
        Diversity in Ensemble Learning", 2023, section 4 (the loss of the average and the rest).
    """

    def __init__(self, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = check_choice("activation", activation, ACTIVATIONS)

    def build(self, input_shape: tuple) -> None:
        """Check the rank: there are no weights."""
        check_features("EnsembleAverage", input_shape, rank=3)

    def activate(self, z: Any) -> Any:
        """Return the activation of the last axis."""
        return z if self.activation is None else getattr(ops, self.activation)(z)

    def diversity(self, z: Any) -> Any:
        """Return by how much the mean loss of members is more than the loss of their mean.

        Args:
            z: `(..., members, outputs)`.

        Returns:
            `(...)`, of each row.
        """
        if self.activation == "softmax":
            each = ops.logsumexp(z, axis=-1)
            return ops.mean(each, axis=-1) - ops.logsumexp(ops.mean(z, axis=-2), axis=-1)
        if self.activation == "sigmoid":
            gap = ops.mean(ops.softplus(z), axis=-2) - ops.softplus(ops.mean(z, axis=-2))
            return ops.mean(gap, axis=-1)
        deviation = z - ops.mean(z, axis=-2, keepdims=True)
        return ops.mean(ops.square(deviation), axis=(-2, -1))

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the average, `(batch, outputs)`."""
        if not training:
            return ops.mean(self.activate(inputs), axis=-2)
        self.add_loss(ops.mean(self.diversity(inputs)))
        return self.activate(ops.mean(inputs, axis=-2))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return `(batch, outputs)`."""
        return (input_shape[0], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "activation": self.activation}
