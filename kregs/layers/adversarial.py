"""`AdversarialInput`: marks the input that adversarial training perturbs."""

from __future__ import annotations

import types
from typing import Any

import keras

from kregs.validation import check_number


@keras.saving.register_keras_serializable(package="kregs")
class AdversarialInput(keras.layers.Layer):
    """The first layer of a model that is trained on its rows and on adversarial ones (FGSM).

    Adversarial rows are `x + epsilon * sign(gradient of the loss by x)`. The loss becomes
    `(1 - share) * loss(rows) + share * loss(adversarial rows)`. The layer itself changes nothing;
    `kregs.compile_model` compiles a model with it so, for `model.compile` wrap the loss:
    `kregs.AdversarialLoss(loss, model)`. A step runs the model three times: layers that count, such
    as moving statistics, see each.

    Args:
        epsilon: how far each input is moved, >= 0, in input units.
        share: weight of the adversarial rows, in [0, 1]; 0 leaves them out.

    Call arguments:
        inputs: floats of any shape.
        training: whether to note the input for the loss.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> import keras, kregs, numpy as np
    >>> layers = [keras.Input((4,)), kregs.layers.AdversarialInput(0.01), keras.layers.Dense(1)]
    >>> model = kregs.compile_model(keras.Sequential(layers), "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones(8), verbose=0)

    References:
        Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", 2015
        (sections 4 and 6).
    """

    def __init__(self, epsilon: float = 0.007, *, share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = check_number("epsilon", epsilon, minimum=0.0)
        self.share = check_number("share", share, minimum=0.0, maximum=1.0)
        self.supports_masking = True
        # what the loss needs to know of the batch: out of Keras's sight
        self.batch = types.SimpleNamespace(inputs=None, has_loss=False, is_noted=False)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the inputs."""
        if self.batch.is_noted:  # the loss itself runs the model
            return inputs
        self.batch.inputs = inputs if training else None
        if training and self.epsilon and self.share and not self.batch.has_loss:
            raise ValueError(
                f"layer {self.name!r} is for adversarial training, and the loss is not: compile "
                "the model by kregs.compile_model, or with loss=kregs.AdversarialLoss(loss, model)"
            )
        return inputs

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "epsilon": self.epsilon, "share": self.share}
