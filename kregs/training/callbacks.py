"""`early_stopping`, strict about the metric it monitors, and `default_callbacks`."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import keras

from kregs.logs import numbers_of
from kregs.validation import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_path,
    suggestion,
)

_SMALLER_IS_BETTER = re.compile(
    r"loss|error|crossentropy|divergence|hinge|log_?cosh|perplexity|false_(positives|negatives)"
    r"|(^|_)(r?mse|mae|mape|msle|rmsle|nll|brier|ece)($|_)"
)
_LARGER_IS_BETTER = re.compile(
    r"accuracy|precision|recall|sensitivity|specificity|similarity|true_(positives|negatives)"
    r"|score|(^|_)(acc|auc|f1|r2|iou|dice|mean_io_u)($|_)"
)


class _StrictEarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's early stopping, except that a monitor missing from the logs is an error.

    Epochs without validation (`validation_freq`) are passed over, as Keras does.
    """

    _was_logged, _unvalidated = False, 0  # in this training: the monitor; epochs before it

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._was_logged, self._unvalidated = False, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = numbers_of(logs or {})  # parts of an array metric have names, too
        if self.monitor in logs:
            self._was_logged = True
            super().on_epoch_end(epoch, logs)
        elif not self._was_logged:
            if not self._is_of_validation() or _validated(logs):
                raise self._missing(logs)
            self._last_logs, self._unvalidated = logs, self._unvalidated + 1
            if self._unvalidated == 2:  # whoever forgot the data should not wait for the end
                warnings.warn(
                    f"early stopping waits for {self.monitor!r}: two epochs had no validation. "
                    "Without validation data it cannot stop",
                    stacklevel=2,
                )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        ended_early = self.model is not None and self.model.stop_training
        if self._unvalidated and not self._was_logged and not ended_early:
            raise self._missing(self._last_logs)

    def _is_of_validation(self) -> bool:
        return self.monitor.startswith("val_")

    def _missing(self, logs: dict[str, Any]) -> ValueError:
        hint = (
            " There are no validation metrics: pass validation data to `fit`."
            if self._is_of_validation() and not _validated(logs)
            else suggestion(self.monitor, logs)
        )
        return ValueError(
            f"`monitor` must be one of the logged metrics: {', '.join(logs)}. "
            f"Received: monitor={self.monitor!r}.{hint}"
        )


def _validated(logs: dict[str, Any]) -> bool:
    """Whether an epoch's logs have metrics of validation rows."""
    return any(name.startswith("val_") for name in logs)


def early_stopping(
    monitor: str = "val_data_loss",
    *,
    patience: int = 10,
    min_delta: float = 0.0,
    restore_best_weights: bool = True,
    start_from_epoch: int = 0,
    mode: str | None = None,
    baseline: float | None = None,
    verbose: int = 0,
) -> keras.callbacks.EarlyStopping:
    """Return Keras's `EarlyStopping`, strict about its monitor and restoring the best weights.

    `val_data_loss` is what `kregs.compile_model` logs. Keras's `val_loss` contains the penalties,
    which may fall while the fit of the validation data gets worse.

    Args:
        monitor: the metric to watch. If it is not in the logs, the end of the first epoch that is
            validated raises a `ValueError` with the nearest name, where Keras only warns; without
            any validation the end of the training does, after a warning in the second epoch.
        patience: epochs without improvement before training stops.
        min_delta: change that counts as improvement.
        restore_best_weights: whether training ends with the best epoch's weights.
        start_from_epoch: epochs to wait before watching.
        mode: `"min"`, `"max"`, or `None`: inferred from the name (losses and errors: `"min"`;
            accuracy, AUC and the like: `"max"`).
        baseline: value that must be beaten.
        verbose: 1 prints when training stops.

    Returns:
        A `keras.callbacks.EarlyStopping`; it can be deep-copied, as keras-tuner does.

    Raises:
        TypeError: a number has the wrong type.
        ValueError: a number is out of bounds, or `mode` is not given and cannot be inferred.

    Example:

    >>> early_stopping().mode, early_stopping("val_accuracy").mode
    ('min', 'max')
    """
    if not isinstance(monitor, str) or not monitor:
        raise TypeError(f"`monitor` must be a metric's name. Received: monitor={monitor!r}")
    mode = check_choice("mode", mode, (None, "min", "max")) or _mode_of(monitor)
    stopping = _StrictEarlyStopping(
        monitor=monitor,
        min_delta=check_number("min_delta", min_delta, minimum=0.0),
        patience=check_integer("patience", patience, minimum=0),
        mode=mode,
        baseline=None if baseline is None else check_number("baseline", baseline),
        restore_best_weights=check_flag("restore_best_weights", restore_best_weights),
        start_from_epoch=check_integer("start_from_epoch", start_from_epoch, minimum=0),
        verbose=check_choice("verbose", verbose, (0, 1, 2)),
    )
    stopping.mode = mode  # Keras keeps it only as a comparison
    return stopping


def _mode_of(monitor: str) -> str:
    name = monitor.lower().removeprefix("val_")
    smaller, larger = _SMALLER_IS_BETTER.search(name), _LARGER_IS_BETTER.search(name)
    if bool(smaller) == bool(larger):
        raise ValueError(
            f"`mode` must be 'min' or 'max': it cannot be inferred from monitor={monitor!r}. "
            "Received: mode=None"
        )
    return "min" if smaller else "max"


def default_callbacks(
    *,
    monitor: str = "val_data_loss",
    patience: int = 10,
    min_delta: float = 0.0,
    restore_best_weights: bool = True,
    mode: str | None = None,
    csv: str | os.PathLike | None = None,
    tensorboard: str | os.PathLike | None = None,
) -> list[keras.callbacks.Callback]:
    """Return the callbacks for an ordinary training run.

    Args:
        monitor, patience, min_delta, restore_best_weights, mode: as in `kregs.early_stopping`.
        csv: file to which every epoch's metrics are written, or `None`.
        tensorboard: directory for TensorBoard's logs, or `None`.

    Returns:
        A list: stop on NaN, early stopping, and a CSV and a TensorBoard logger if asked for.

    Raises:
        TypeError, ValueError: as `kregs.early_stopping`.

    Example:

    >>> [type(callback).__name__.lstrip("_") for callback in default_callbacks(csv="log.csv")]
    ['TerminateOnNaN', 'StrictEarlyStopping', 'CSVLogger']
    """
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        early_stopping(
            monitor,
            patience=patience,
            min_delta=min_delta,
            restore_best_weights=restore_best_weights,
            mode=mode,
        ),
    ]
    if csv is not None:
        callbacks.append(keras.callbacks.CSVLogger(os.fspath(check_path("csv", csv))))
    if tensorboard is not None:
        callbacks.append(
            keras.callbacks.TensorBoard(log_dir=os.fspath(check_path("tensorboard", tensorboard)))
        )
    return callbacks
