"""TensorBoard logs of members: what Keras's callback writes, and keras-tuner's HParams."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf

from kregs.search.keras_tuner_internals import tensorboard_hyperparameters


def is_plain_tensorboard(callback: Any) -> bool:
    """Whether a callback is a TensorBoard that logs metrics by epoch and nothing else."""
    return (
        type(callback) is keras.callbacks.TensorBoard
        and not callback.histogram_freq
        and not callback.write_images
        and not callback.embeddings_freq
        and callback.update_freq == "epoch"
        and not getattr(callback, "_should_trace", False)
    )


def write_tensorboard(
    callback: Any,
    folder: str,
    trial: Any,
    history: dict[str, list[float]],
    logged_epochs: Mapping[str, Sequence[int]] = MappingProxyType({}),
    first_epoch: int = 0,
) -> None:
    """Write one execution's history as Keras would have, and its hyperparameters.

    Args:
        callback: the user's `keras.callbacks.TensorBoard`.
        folder: where keras-tuner puts this execution's logs.
        trial: the keras-tuner trial.
        history: metric name to a list with one number for each epoch in which it was logged.
        logged_epochs: see `RunOutcome`.
        first_epoch: as in `fit`, its `initial_epoch`.
    """
    # TensorBoard's plugin imports TensorFlow's summaries: only who logs pays for it
    from tensorboard.plugins.hparams import api as hparams_api

    for part, prefix in (("train", ""), ("validation", "val_")):
        values_by_name = {
            name.removeprefix("val_"): values
            for name, values in history.items()
            if name.startswith("val_") == bool(prefix)
        }
        if not values_by_name:
            continue
        writer = tf.summary.create_file_writer(os.path.join(folder, part))
        with writer.as_default():
            for name, values in values_by_name.items():
                epochs = logged_epochs.get(prefix + name, range(len(values)))
                for epoch, value in zip(epochs, values, strict=True):
                    tf.summary.scalar(f"epoch_{name}", value, step=first_epoch + epoch)
        writer.close()
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default():
        hparams_api.hparams(
            tensorboard_hyperparameters(trial.hyperparameters, hparams_api),
            trial_id=trial.trial_id,
        )
    writer.close()
