"""Trains one run at a time by Keras's own `fit`, or by that of the user's hypermodel."""

from __future__ import annotations

import collections
import dataclasses
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FatalError

from kregs.population.registry import NotStackable
from kregs.search.checkpoints import restore, state_of
from kregs.search.keras_tuner_internals import callbacks_of_run, hooks_of_tuner
from kregs.search.runs import Histories, Run, RunJob, RunOutcome, RunState
from kregs.search.trainers import ListenerError, TrainerSettings


class FitTrainer:
    """Trains one job after the other by `HyperModel.fit`, which is `model.fit` unless overridden.

    Every run starts from its own seed: the same order of batches and, where the models are of one
    structure, the same initial weights. The weights of the epoch that counts stay in memory.

    Args:
        settings: about the search.
        args, kwargs: of `fit`.
    """

    def __init__(
        self, settings: TrainerSettings, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._settings = settings
        self._args, self._kwargs = args, {"verbose": 0, **kwargs}
        self._callbacks = self._kwargs.pop("callbacks", None) or []

    def run(self, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """See `Trainer.run`."""
        while jobs:
            job = jobs.popleft()
            if job.cancelled:
                continue
            began = time.perf_counter()
            try:
                outcome = self._train(job)
            except FatalError:
                raise
            except ListenerError as error:
                raise error.reason from None
            except Exception as error:
                outcome = RunOutcome(error=error)
            outcome.job = job
            outcome.seconds = time.perf_counter() - began
            yield outcome

    def _train(self, job: RunJob) -> RunOutcome:
        settings, values = self._settings, job.trial.hyperparameters.values
        fit = dict(self._kwargs)
        if "tuner/epochs" in values:  # Hyperband
            fit |= {"epochs": job.epochs, "initial_epoch": job.first_epoch}
        callbacks = callbacks_of_run(settings.tuner, self._callbacks, job.trial, job.run.number)
        best_epoch, halves = _BestEpoch(settings), _HalvesHistory(job.run, fit)
        gc.collect()
        model = job.build()
        if job.start is not None:
            restore(model, job.start)
        optimizer = model.optimizer
        if model.built and optimizer is not None and not optimizer.built:
            # else Keras traces the first step twice
            optimizer.build(model.trainable_variables)
        # a build may draw random numbers, which the batches should not depend on
        keras.utils.set_random_seed(job.seed)
        result = settings.tuner.hypermodel.fit(
            job.trial.hyperparameters,
            model,
            *self._args,
            callbacks=[
                *callbacks,
                *hooks_of_tuner(settings.tuner, job.trial),
                halves,
                _ReportEpochs(settings, job),
                best_epoch,
            ],
            **_rows_of(job.run, fit),
        )
        return outcome_of(result, settings.objective, best_epoch, halves.histories, model)


def outcome_of(
    result: Any,
    objective: keras_tuner.Objective,
    best_epoch: _BestEpoch | None = None,
    halves: Sequence[Histories] = (),
    model: keras.Model | None = None,
) -> RunOutcome:
    """Return what a `fit`, or a user's own `run_trial`, has returned as an outcome.

    Args:
        result: a History, a number, or a dictionary with the objective.
        objective: of the search.
        best_epoch: the callback that kept the weights of the epoch that counts.
        halves: histories on the halves of the validation rows.
        model: what was trained.

    Raises:
        TypeError: `result` is something else.
    """
    outcome = RunOutcome(halves=list(halves), model=model)
    if best_epoch is not None:
        outcome.best_epoch, outcome.best_value = best_epoch.epoch, best_epoch.value
        outcome.state = best_epoch.state
    if model is not None and outcome.state is None:
        outcome.state = state_of(model)  # a `fit` that calls no callbacks
    if isinstance(result, RunOutcome):
        return result
    if isinstance(result, keras.callbacks.History):
        outcome.history = {
            name: [float(value) for value in values] for name, values in result.history.items()
        }
        return outcome
    outcome.by_epoch = False
    if isinstance(result, (int, float, np.number)):
        result = {objective.name: result}
    if not isinstance(result, dict) or objective.name not in result:
        raise TypeError(
            "`HyperModel.fit` must return what `model.fit` returns, the objective as a number, "
            f"or a dictionary with {objective.name!r}. Received: {result!r}"
        )
    outcome.history = {name: [float(value)] for name, value in result.items()}
    return outcome


class _BestEpoch(keras.callbacks.Callback):
    """Keeps the weights and the optimizer state of the epoch that counts in memory."""

    def __init__(self, settings: TrainerSettings) -> None:
        super().__init__()
        self._settings = settings
        self.value = math.inf
        self.epoch = -1
        self.state: RunState | None = None
        self._epochs = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        objective = self._settings.objective
        value = float((logs or {}).get(objective.name, math.nan))
        value = -value if objective.direction == "max" else value
        last = self._settings.score_at == "last_epoch"
        if math.isfinite(value) and (last or value < self.value):
            self.value, self.epoch = value, self._epochs
            self.state = state_of(self.model)
        self._epochs += 1


class _HalvesHistory(keras.callbacks.Callback):
    """Evaluates each half of the validation rows after every epoch, if the run has halves."""

    def __init__(self, run: Run, fit: dict[str, Any]) -> None:
        super().__init__()
        self.histories: list[Histories] = []
        self._batch_size = fit.get("validation_batch_size") or fit.get("batch_size")
        self._parts = [
            keras.tree.map_structure(lambda array, rows=rows: array[rows], fit["validation_data"])
            for rows in run.halves or ()
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.histories = self.histories or [{} for _ in self._parts]
        for history, part in zip(self.histories, self._parts, strict=True):
            x, y, *weight = part
            values = self.model.evaluate(
                x,
                y,
                batch_size=self._batch_size,
                sample_weight=weight[0] if weight else None,
                verbose=0,
                return_dict=True,
            )
            for name, value in values.items():
                history.setdefault(f"val_{name}", []).append(float(value))


class _ReportEpochs(keras.callbacks.Callback):
    """Tells whoever listens of epochs. It has no hook for batches: these cost time."""

    def __init__(self, settings: TrainerSettings, job: RunJob) -> None:
        super().__init__()
        self._settings, self._job = settings, job

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        control = _ModelControl(self.model)
        self._settings.tell(self._job, epoch + 1, dict(logs or {}), control)


@dataclasses.dataclass(frozen=True)
class _ModelControl:
    """See `RunControl`: a run that Keras's `fit` trains."""

    model: keras.Model

    def stop(self) -> None:
        self.model.stop_training = True

    def state(self) -> RunState:
        return state_of(self.model)

    def restore(self, state: RunState) -> None:
        learning_rate = self.model.optimizer.learning_rate
        value = learning_rate.numpy() if hasattr(learning_rate, "assign") else None
        restore(self.model, state)
        if value is not None:  # for Keras it is part of the state, here it is the run's own
            learning_rate.assign(value)

    def change(self, model: keras.Model) -> None:
        raise NotStackable("`fit` has traced the model's numbers: they cannot be changed any more")


def _rows_of(run: Run, fit: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` with a fold's rows in place of all."""
    if run.split is None:
        return fit
    parts = {name: fit[name] for name in ("x", "y", "sample_weight") if fit.get(name) is not None}

    def taken(rows: np.ndarray) -> dict[str, Any]:
        return keras.tree.map_structure(lambda array: array[rows], parts)

    held_out = tuple(taken(run.split.validation).values())
    return {**fit, **taken(run.split.train), "validation_data": held_out}
