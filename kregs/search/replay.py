"""What callbacks did to the trainings of a search, done again where there are no validation rows.

Early stopping has become the number of epochs. Whatever else acts on a training acts again:
schedules of the learning rate, averages of the weights, callbacks of one's own. One that watches a
validation metric cannot; it is mostly there for the learning rate, so that the recorded one is
used.
"""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from kregs.search.checkpoints import learning_rate_value

# these end a training, write or show, but change nothing in it
_PASSIVE = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.TerminateOnNaN,
    keras.callbacks.TensorBoard,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.History,
)
# these look at no metric but their `monitor`; a class derived from them may
_NO_OTHER_METRIC = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.SwapEMAWeights,
)
_HOOKS = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def acts_on_training(callback: Any) -> bool:
    """Whether a callback may change what a training does, not only when it ends.

    Example:

    >>> acts_on_training(keras.callbacks.ReduceLROnPlateau())
    True
    >>> acts_on_training(keras.callbacks.EarlyStopping())
    False
    """
    return not isinstance(callback, _PASSIVE)


def replayed(
    callbacks: Iterable[keras.callbacks.Callback] | None, rates: Sequence[float]
) -> list[keras.callbacks.Callback]:
    """Return callbacks for a training without validation rows.

    Args:
        callbacks: the search's, which are copied; `None` if they are not known: the recorded
            learning rates are used then.
        rates: recorded learning rates by epoch; empty if there are none.

    Returns:
        Copies of those that act on a training and watch no validation metric, and one that sets the
        recorded learning rates if one that does was left out, or may be. A callback that asks for a
        validation metric in the end of its first epoch is left out from there on, with a warning:
        before, it cannot have acted by one.
    """
    recorded = _RecordedRates(rates, active=callbacks is None)
    may_act = recorded.active
    copies: list[keras.callbacks.Callback] = []
    for callback in filter(acts_on_training, callbacks or ()):
        monitor = str(getattr(callback, "monitor", None))
        if monitor.startswith("val_"):
            recorded.active = may_act = True
            if not isinstance(callback, keras.callbacks.ReduceLROnPlateau):
                _warn(callback, monitor)
            continue
        callback = copy.deepcopy(callback)
        if type(callback) not in _NO_OTHER_METRIC:
            _without_validation(callback, recorded)
            may_act = True
        copies.append(callback)
    # the last to set the learning rate of an epoch
    return [*copies, recorded] if may_act and rates else copies


def unknown_to_replay(words: Iterable[str]) -> list[str]:
    """Return those of a protocol's callbacks that a record of learning rates does not replace.

    Example:

    >>> unknown_to_replay(["StrictEarlyStopping(patience=5)", "SwapEMAWeights"])
    ['SwapEMAWeights']
    """
    rates = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    known = {callback.__name__ for callback in (*_PASSIVE, *rates)}
    names = (word.split("(")[0] for word in words)
    return [name for name in names if name.removeprefix("Strict") not in known]


def median_rate(rates: Iterable[float]) -> float:
    """Return the median of learning rates; of two in the middle, the geometric mean.

    Example:

    >>> median_rate([0.1, 1e-3, 0.1]), median_rate([0.25, 0.0625])
    (0.1, 0.125)
    """
    in_order = sorted(rates)
    low, high = in_order[(len(in_order) - 1) // 2], in_order[len(in_order) // 2]
    return low if low == high else math.sqrt(low * high)


class LoggedRates(keras.callbacks.Callback):
    """Logs each epoch's learning rate, as Keras's own callbacks that change it do."""

    only_learning_rate = True  # a population need not show it a model

    def __init__(self) -> None:
        super().__init__()
        self._rate: float | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._rate = learning_rate_value(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and self._rate is not None:
            logs["learning_rate"] = self._rate


class _RecordedRates(keras.callbacks.Callback):
    """Sets each epoch's learning rate to the recorded one; the last holds for further epochs."""

    only_learning_rate = True

    def __init__(self, rates: Sequence[float], *, active: bool) -> None:
        super().__init__()
        self._rates = list(rates)
        self.active = active

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # a schedule goes on by itself
        if self.active and self._rates and learning_rate_value(self.model) is not None:
            self.model.optimizer.learning_rate = self._rates[min(epoch, len(self._rates) - 1)]


class _AsksForValidation(Exception):
    """A callback asked for a metric on validation rows where there are none."""


class _TrainingLogs(dict):
    """Logs without validation metrics, which say so when they are asked for one."""

    def _check(self, name: Any) -> None:
        if isinstance(name, str) and name.startswith("val_") and not super().__contains__(name):
            raise _AsksForValidation(name)

    def __getitem__(self, name: Any) -> Any:
        self._check(name)
        return super().__getitem__(name)

    def __contains__(self, name: Any) -> bool:
        self._check(name)
        return super().__contains__(name)

    def get(self, name: Any, default: Any = None) -> Any:
        self._check(name)
        return super().get(name, default)


def _without_validation(callback: keras.callbacks.Callback, recorded: _RecordedRates) -> None:
    """Let a callback end with its first look at a validation metric, and `recorded` begin."""
    for name in ("on_epoch_end", "on_train_end"):
        # no closure: a deep copy of the callbacks, one for each model, must refer to itself
        hook = functools.partial(_guarded, callback, getattr(callback, name), recorded)
        setattr(callback, name, hook)


def _guarded(
    callback: keras.callbacks.Callback,
    hook: Callable[..., None],
    recorded: _RecordedRates,
    *arguments: Any,
) -> None:
    """Call a callback's hook; see `_without_validation`."""
    *epoch, logs = arguments  # as Keras calls them: the logs are the last
    try:
        hook(*epoch, _TrainingLogs(logs or {}))
    except _AsksForValidation as asked:
        for name in _HOOKS:
            setattr(callback, name, _nothing)
        recorded.active = True
        _warn(callback, str(asked))


def _nothing(*arguments: Any, **named: Any) -> None:
    """What a callback that is left out does."""


def _warn(callback: keras.callbacks.Callback, metric: str) -> None:
    warnings.warn(
        f"{type(callback).__name__} watches {metric!r}, and a training on all rows has no "
        "validation rows: it is left out there, and the learning rates recorded in the search are "
        "used in its place",
        stacklevel=2,
    )
