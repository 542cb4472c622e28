"""Rules about callbacks: what they watch, and what is left of the best epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import ModelView, penalties_of
from kregs.inspection.audit.rules.penalties import acts

C = keras.callbacks


def _choosing(view: ModelView) -> Iterator[Any]:
    """Yield the callbacks that judge epochs by a metric."""
    for callback in view.training.callbacks:
        if isinstance(callback, (C.EarlyStopping, C.ReduceLROnPlateau)) or (
            isinstance(callback, C.ModelCheckpoint) and callback.save_best_only
        ):
            yield callback


@rule(
    "KR024",
    "Epochs judged by a loss that contains penalties",
    severities=["warning"],
    source="Keras: `val_loss` is the data's loss plus sum(model.losses)",
    fix="watch a metric of the data: val_accuracy, or val_data_loss, which kregs.compile_model "
    "logs",
)
def penalized_monitor(view: ModelView) -> Iterator[Hit]:
    """Penalties fall as training goes on and may do so while the fit of the validation data gets
    worse, or rise while it gets better: the epoch chosen is not the one that predicts best."""
    penalized = any(
        acts(penalty) and (name == "activity" or site.layer.trainable)
        for site in view.sites
        for name, penalty in penalties_of(site.layer).items()
    )
    for callback in _choosing(view):
        if penalized and callback.monitor == "val_loss":
            yield Hit(
                severity="warning",
                layers=(),
                what=f"{_name(callback)} watches val_loss of a model with penalties",
            )


@rule(
    "KR025",
    "Early stopping that keeps the last weights",
    severities=["warning"],
    source="Keras: restore_best_weights is False by default; Prechelt 1998",
    fix="restore_best_weights=True, as in kregs.early_stopping",
)
def last_weights(view: ModelView) -> Iterator[Hit]:
    """Training ends `patience` epochs after the best one, and the model is left with those later,
    more overfitted weights."""
    saved = any(
        isinstance(callback, C.ModelCheckpoint) and callback.save_best_only
        for callback in view.training.callbacks
    )
    for callback in view.training.callbacks:
        is_stopping = isinstance(callback, C.EarlyStopping)
        if is_stopping and not saved and not callback.restore_best_weights:
            yield Hit(
                severity="warning",
                layers=(),
                what=f"{_name(callback)} with restore_best_weights=False",
            )


@rule(
    "KR026",
    "Epochs judged on the training data",
    severities=["warning"],
    source="Goodfellow et al. 2016, section 7.8 (early stopping watches a validation set)",
    fix="watch a metric that begins with val_",
)
def training_monitor(view: ModelView) -> Iterator[Hit]:
    """The loss and metrics of the training data get better while the model overfits: the best epoch
    by them is the last."""
    for callback in _choosing(view):
        is_stopping = not isinstance(callback, C.ReduceLROnPlateau)
        if is_stopping and not callback.monitor.startswith("val_"):
            yield Hit(
                severity="warning",
                layers=(),
                what=f"{_name(callback)} watches {callback.monitor}",
            )


def _name(callback: Any) -> str:
    return next(
        base.__name__ for base in type(callback).__mro__ if not base.__name__.startswith("_")
    )
