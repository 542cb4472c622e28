"""What a `.keras` file does not hold of how a model was compiled: `Population.save` notes it."""

from __future__ import annotations

from typing import Any

import keras

from kregs.population.keras_internals import (
    decays_weight,
    set_not_decayed,
    user_loss_weights,
    user_metrics,
)
from kregs.population.objective import label_smoothings_of
from kregs.training.label_smoothing import with_smoothing
from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import unwrapped


def check_savable(model: keras.Model) -> None:
    """Raise if how a model was compiled can be put back from no file.

    Raises:
        ValueError: its optimizer is one of `kregs.proximal`.
    """
    if is_proximal(unwrapped(model.optimizer)):
        raise ValueError(
            "the population has optimizers made by kregs.proximal, whose proximal step no file "
            "holds: save each model by itself, and compile it again where it is loaded. "
            f"Received: optimizer={model.optimizer!r}"
        )


def beside_file(model: keras.Model) -> dict[str, Any]:
    """Return what of how a model was compiled a `.keras` file does not hold."""
    decays = [decays_weight(model.optimizer, weight) for weight in model.trainable_variables]
    return {"decays": decays, "smoothings": label_smoothings_of(model)}


def put_back(model: keras.Model, *, decays: list[bool], smoothings: list[float]) -> None:
    """Let a loaded model be compiled as it was where its file does not say so."""
    pairs = zip(model.trainable_variables, decays, strict=True)
    set_not_decayed(model.optimizer, [weight for weight, decayed in pairs if not decayed])
    present = label_smoothings_of(model)
    if present == tuple(smoothings):
        return
    losses = [
        loss if before == after else with_smoothing(loss, after)
        for loss, before, after in zip(
            keras.tree.flatten(model.loss), present, smoothings, strict=True
        )
    ]
    model.compile(
        model.optimizer,
        keras.tree.pack_sequence_as(model.loss, losses),
        loss_weights=user_loss_weights(model),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile,
        **user_metrics(model),
    )
