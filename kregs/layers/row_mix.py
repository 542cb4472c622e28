"""`RowMix`: MixUp, CutMix and CutOut of the rows of a table, batch by batch while training."""

from __future__ import annotations

import types
from typing import Any

import keras
from keras import ops

from kregs.layers.seeded import SeededLayer
from kregs.validation import check_number


@keras.saving.register_keras_serializable(package="kregs")
class RowMix(SeededLayer):
    """Mixes the rows of a batch with one another, or sets columns to 0, while training.

    - MixUp: each row becomes `w * row + (1 - w) * partner`, with one `w` from Beta(`mixup`,
      `mixup`) a batch.
    - CutMix: with probability `cutmix` a batch gets `max(1, int(u * columns))` columns, chosen at
      random, from the partners; u is uniform in [0, 1], and `w` is the share of the other columns.
    - CutOut: with probability `cutout` a batch has `max(1, int(cutout_ratio * columns))` columns,
      chosen at random, set to 0.

    Partners are a random permutation of the rows. The label is mixed by the loss, which for each
    row becomes `w * loss(label) + (1 - w) * loss(label of the partner)`: of a crossentropy this is
    the loss of mixed labels, so that class numbers need no one-hot. `kregs.compile_model` compiles
    a model with such a layer so; for `model.compile` wrap the loss: `kregs.MixedLoss(loss, model)`.
    Metrics of the training compare with the labels as they are.

    Columns should be encoded and scaled before, so that 0 means nothing. A saved file loads once
    `kregs.layers` is imported.

    Args:
        mixup: α of MixUp's Beta(α, α), >= 0; 0 leaves it out.
        cutmix: probability of CutMix, in [0, 1]; 0 leaves it out.
        cutout: probability of CutOut, in [0, 1]; 0 leaves it out.
        cutout_ratio: share of the columns that CutOut sets to 0, in [0, 1].
        seed: integer, or `None` for random.

    Call arguments:
        inputs: floats of shape `(batch, columns)`.
        training: whether to mix; without it the layer returns its input.

    Output shape:
        The input's.

    Raises:
        TypeError, ValueError: an argument is wrong, both `mixup` and `cutmix` are above 0, or
            columns are to be cut from what is no table.

    Example:

    >>> import keras, kregs, numpy as np
    >>> mix = kregs.layers.RowMix(mixup=0.2, seed=0)
    >>> model = keras.Sequential([keras.Input((4,)), mix, keras.layers.Dense(3, "softmax")])
    >>> model = kregs.compile_model(model, "sparse_categorical_crossentropy")
    >>> history = model.fit(np.ones((8, 4)), np.arange(8) % 3, verbose=0)

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; Yun et al., "CutMix",
        2019; DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with
        Cutout", 2017; on rows: Kadra et al., "Well-tuned Simple Nets Excel on Tabular Datasets",
        2021 (appendix).
    """

    def __init__(
        self,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        cutout: float = 0.0,
        cutout_ratio: float = 0.2,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.mixup = check_number("mixup", mixup, minimum=0.0)
        self.cutmix = check_number("cutmix", cutmix, minimum=0.0, maximum=1.0)
        self.cutout = check_number("cutout", cutout, minimum=0.0, maximum=1.0)
        self.cutout_ratio = check_number("cutout_ratio", cutout_ratio, minimum=0.0, maximum=1.0)
        if self.mixup and self.cutmix:
            raise ValueError(
                "`mixup` and `cutmix` both mix labels: one of them must be 0. "
                f"Received: mixup={mixup!r}, cutmix={cutmix!r}"
            )
        self.supports_jit = not self.mixup  # XLA has no gamma distribution, which Beta is made of
        # what the loss needs to know of the batch that was mixed last: out of Keras's sight
        self.batch = types.SimpleNamespace(partner=None, weight=None, has_loss=False)

    def build(self, input_shape: tuple) -> None:
        """Check that columns are cut from tables only: there are no weights."""
        if (self.cutmix or self.cutout) and (len(input_shape) != 2 or input_shape[1] is None):
            raise ValueError(
                "`cutmix` and `cutout` need (batch, columns), with a known number of columns. "
                f"Received: input of shape {tuple(input_shape)}"
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the rows, mixed and cut while training."""
        self.batch.partner = self.batch.weight = None
        if not training:
            return inputs
        if (self.mixup or self.cutmix) and not self.batch.has_loss:
            raise ValueError(
                f"layer {self.name!r} mixes rows, and nothing mixes their labels: compile the "
                "model by kregs.compile_model, or with loss=kregs.MixedLoss(loss, model)"
            )
        if self.mixup or self.cutmix:
            partner = keras.random.shuffle(
                ops.arange(ops.shape(inputs)[0]), seed=self.seed_generator
            )
            others = ops.take(inputs, partner, axis=0)
            if self.mixup:
                weight = keras.random.beta(
                    (), self.mixup, self.mixup, dtype="float32", seed=self.seed_generator
                )
                share = ops.cast(weight, inputs.dtype)
                inputs = share * inputs + (1 - share) * others
            else:
                columns, weight = self._cut(inputs.shape[1], self._uniform(), self.cutmix)
                inputs = ops.where(columns, others, inputs)
            self.batch.partner, self.batch.weight = partner, weight
        if self.cutout:
            columns, _ = self._cut(inputs.shape[1], self.cutout_ratio, self.cutout)
            inputs = ops.where(columns, ops.zeros_like(inputs), inputs)
        return inputs

    def _uniform(self, shape: tuple = ()) -> Any:
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def _cut(self, count: int, share: Any, probability: float) -> tuple[Any, Any]:
        """Return which columns are cut, with a probability, and the share of the others."""
        cut = cut_columns(share, count) * ops.cast(self._uniform() < probability, "int32")
        places = keras.random.shuffle(ops.arange(count, dtype="int32"), seed=self.seed_generator)
        return places < cut, 1.0 - ops.cast(cut, "float32") / count

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("mixup", "cutmix", "cutout", "cutout_ratio")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def cut_columns(share: Any, count: int) -> Any:
    """Return how many of the columns a share of them is: at least 1.

    Example:

    >>> [int(cut_columns(share, 5)) for share in (0.05, 0.5, 1.0)]
    [1, 2, 5]
    """
    return ops.maximum(1, ops.cast(ops.floor(ops.cast(share, "float32") * count), "int32"))
