"""The sequential engine: one trial after the other, each by the model's own `fit`."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import math
import statistics
import time
import traceback
from collections.abc import Iterator
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FailedTrialError, FatalError

from kregs.files import atomic_path, write_json
from kregs.reporting.progress import SearchProgress
from kregs.search.engine import TrialRecord, load_checkpoint, own_hyperparameters
from kregs.search.oracles import save_atomically
from kregs.search.randomness import cheap_collection, derived_seed, fresh_session

_MESSAGE_LENGTH = 300


class SequentialTuner(keras_tuner.Tuner):
    """A `keras_tuner.Tuner` whose trials are repeatable, and which wastes less time around them.

    Differences from keras-tuner's own tuners:

    - Every trial starts from the same seed, so that trials differ by their hyperparameters and not
      by luck: the same order of batches and, where the models are of one structure, the same
      initial weights.
    - The best epoch's weights are kept in memory and written once, at the end of the trial.
    - Epochs whose objective is NaN or infinite are never the best; a trial that has no others
      failed.
    - An epoch's `tuner/epochs` and the earlier trial's weights of Hyperband are honoured with any
      oracle, and the optimizer's state goes on too.
    - It prints nothing, and writes a `TrialRecord` into each trial's directory.

    Args:
        hypermodel, oracle, directory, project_name, executions_per_trial: as in
            `keras_tuner.Tuner`.
        seed: integer >= 0.
        progress: is told of trials and epochs.
        **kwargs: further arguments of `keras_tuner.Tuner`, such as `overwrite`.
    """

    def __init__(
        self,
        *,
        hypermodel: keras_tuner.HyperModel,
        oracle: keras_tuner.Oracle,
        directory: str,
        project_name: str,
        executions_per_trial: int = 1,
        seed: int = 0,
        progress: SearchProgress | None = None,
        **kwargs: Any,
    ) -> None:
        self._seed = seed
        self._progress = progress or SearchProgress(verbose=0)
        save_atomically(oracle)
        # keras-tuner prints that it reloads a project
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                oracle=oracle,
                hypermodel=hypermodel,
                directory=directory,
                project_name=project_name,
                executions_per_trial=executions_per_trial,
                **kwargs,
            )

    def _populate_initial_space(self) -> None:
        if not self.oracle.get_space().space:
            super()._populate_initial_space()

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Train trials until the oracle stops; arguments as in `keras.Model.fit`."""
        self.oracle.verbose = 0
        fit_kwargs.setdefault("verbose", 0)
        self.save()  # keras-tuner reloads only a project that has been saved
        with cheap_collection(), _no_retracing_warning():
            super().search(*fit_args, **fit_kwargs)

    def on_trial_begin(self, trial: Any) -> None:
        super().on_trial_begin(trial)
        self._progress.trial_started(
            trial.trial_id, own_hyperparameters(trial.hyperparameters.values)
        )

    def _try_run_and_update_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> None:
        started = time.perf_counter()
        record = TrialRecord(
            initial_epoch=trial.hyperparameters.values.get("tuner/initial_epoch", 0)
        )
        score = None
        try:
            results = self.run_trial(trial, *fit_args, **fit_kwargs)
            record.histories = [r for r in map(_history, results) if r]
            metrics, best_epoch = self._best(results)
            self.oracle.update_trial(trial.trial_id, metrics, step=best_epoch)
            trial.status = "COMPLETED"
            score = metrics[self.oracle.objective.name]
            if record.histories:
                record.best_epoch = record.initial_epoch + best_epoch + 1
        except FatalError:
            raise
        except Exception as error:
            # INVALID may be tried again, if the oracle allows for it
            trial.status = "FAILED" if isinstance(error, FailedTrialError) else "INVALID"
            trial.message = traceback.format_exc()
            record.status, record.message = "failed", _reason(error)
        record.seconds = time.perf_counter() - started
        record.write(self.get_trial_dir(trial.trial_id))
        self._progress.trial_ended(trial.trial_id, score, record.message)

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> list[Any]:
        """Train one trial's model, once per execution; return what each `fit` returned."""
        values = trial.hyperparameters.values
        if "tuner/epochs" in values:
            fit_kwargs["epochs"] = values["tuner/epochs"]
            fit_kwargs["initial_epoch"] = values["tuner/initial_epoch"]
        best = _BestEpoch(self.oracle.objective)
        epochs = _Epochs(self._progress, trial.trial_id, fit_kwargs.get("epochs"))
        given = fit_kwargs.pop("callbacks", None) or []
        results = []
        for execution in range(self.executions_per_trial):
            callbacks = self._deepcopy_callbacks(given)
            self._configure_tensorboard_dir(callbacks, trial, execution)
            seed = derived_seed(self._seed, execution)
            keras.utils.set_random_seed(seed)
            model = self._try_build(trial.hyperparameters)
            # once more: a build may draw random numbers, and the batches should not depend on it
            keras.utils.set_random_seed(seed)
            results.append(
                self.hypermodel.fit(
                    trial.hyperparameters,
                    model,
                    *fit_args,
                    callbacks=[*callbacks, epochs, best],
                    **fit_kwargs,
                )
            )
        write_json(self._get_build_config_fname(trial.trial_id), model.get_build_config())
        best.save(model, self._get_checkpoint_fname(trial.trial_id))
        return results

    def _try_build(self, hp: Any) -> keras.Model:
        fresh_session()
        gc.collect()
        model = self._build_hypermodel(hp)
        if not isinstance(model, keras.Model):
            raise TypeError(f"`build` returned no keras.Model but {type(model).__name__}")
        return model

    def _build_hypermodel(self, hp: Any) -> keras.Model:
        model = super()._build_hypermodel(hp)
        earlier = hp.values.get("tuner/trial_id")
        if earlier is not None:
            load_checkpoint(model, self.get_trial_dir(earlier), to_train=True)
        return model

    def load_model(self, trial: Any) -> keras.Model:
        """Return a trial's model with the weights of its best epoch."""
        model = self._try_build(trial.hyperparameters)
        load_checkpoint(model, self.get_trial_dir(trial.trial_id))
        return model

    def _best(self, results: list[Any]) -> tuple[dict[str, float], int]:
        """Return the metrics at the best epoch and its index, as means over executions."""
        objective = self.oracle.objective
        bests = [_best_of(result, objective) for result in results]
        names = set.intersection(*(set(metrics) for metrics, _ in bests))
        means = {name: float(np.mean([metrics[name] for metrics, _ in bests])) for name in names}
        return means, round(statistics.mean(epoch for _, epoch in bests))


@contextlib.contextmanager
def _no_retracing_warning() -> Iterator[None]:
    """Drop TensorFlow's advice not to trace so often: every trial is another model."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


class _BestEpoch(keras.callbacks.Callback):
    """Keeps the best epoch's weights and optimizer state, over all executions, in memory."""

    def __init__(self, objective: keras_tuner.Objective) -> None:
        super().__init__()
        self._objective = objective
        self._value: float | None = None
        self._weights: list[np.ndarray] | None = None
        self._optimizer: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {}).get(self._objective.name)
        if not _finite(value):
            return
        if self._value is None or self._objective.better_than(value, self._value):
            self._value = value
            self._weights = self.model.get_weights()
            self._optimizer = [v.value.numpy() for v in self.model.optimizer.variables]

    def save(self, model: keras.Model, path: str) -> None:
        """Write the kept weights; the model's present ones if its `fit` calls no callbacks."""
        if self._weights is not None:
            model.set_weights(self._weights)
            for variable, value in zip(model.optimizer.variables, self._optimizer, strict=True):
                variable.assign(value)
        with atomic_path(path) as temporary:
            model.save_weights(temporary)


class _Epochs(keras.callbacks.Callback):
    """Tells the progress display of epochs. It has no hook per batch: these cost time."""

    def __init__(self, progress: SearchProgress, trial_id: str, epochs: int | None) -> None:
        super().__init__()
        self._progress, self._trial_id, self._epochs = progress, trial_id, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.epoch_ended(self._trial_id, epoch + 1, self._epochs)


def _best_of(result: Any, objective: keras_tuner.Objective) -> tuple[dict[str, float], int]:
    """Return the metrics of the best epoch of one execution, and the epoch's index."""
    history = _history(result)
    if history is None:
        if isinstance(result, (int, float, np.number)):
            result = {objective.name: result}
        if not isinstance(result, dict) or objective.name not in result:
            raise TypeError(
                "`HyperModel.fit` must return what `model.fit` returns, the objective as a number, "
                f"or a dictionary with {objective.name!r}. Received: {result!r}"
            )
        history = {name: [float(value)] for name, value in result.items()}
    if objective.name not in history:
        raise ValueError(
            f"the objective {objective.name!r} was not logged. Logged: {', '.join(history)}"
        )
    values = history[objective.name]
    finite = [epoch for epoch, value in enumerate(values) if _finite(value)]
    if not finite:
        raise FailedTrialError(
            f"{objective.name} was never a finite number: {values[0]} after the first epoch"
        )
    best = (min if objective.direction == "min" else max)(finite, key=values.__getitem__)
    return {name: series[best] for name, series in history.items() if best < len(series)}, best


def _history(result: Any) -> dict[str, list[float]] | None:
    if not isinstance(result, keras.callbacks.History):
        return None
    return {name: [float(v) for v in series] for name, series in result.history.items()}


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _reason(error: Exception) -> str:
    """Return an exception in one line; TensorFlow's own reason is in the last line of many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):
        lines = [line for line in lines if "{{node" not in line and "[Op:" not in line][
            -1:
        ] or lines
    text = " ".join(lines)
    if len(text) > _MESSAGE_LENGTH:
        text = text[: _MESSAGE_LENGTH - 3] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
