"""Trains one run at a time by Keras's own `fit`, or by that of the user's hypermodel."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
from keras_tuner.errors import FatalError, FatalTypeError, FatalValueError

from kregs.logs import numbers_of
from kregs.population.callbacks import counters_of, set_counters
from kregs.population.registry import NotStackable
from kregs.search.checkpoints import (
    go_on,
    last_state_of,
    learning_rate_value,
    restore,
    state_of,
)
from kregs.search.judging.scorer import ScoreCallback, Scorer
from kregs.search.keras_tuner_internals import callbacks_of_run, hooks_of_tuner
from kregs.search.objective import is_unset, scorer_of
from kregs.search.own_fit import by_name, has_stock_fit, replaced_fit
from kregs.search.replay import LoggedRates, acts_on_training
from kregs.search.runs import (
    Histories,
    Run,
    RunJob,
    RunOutcome,
    RunState,
    histories_of,
)
from kregs.search.searched_fit import fit_arguments
from kregs.search.trainers import ListenerError, TrainerSettings
from kregs.search.trainers.batches import OrderedBatches
from kregs.search.trainers.feeds import rows_of
from kregs.validation import in_words


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
        hypermodel = settings.tuner.hypermodel
        fit = {**self._kwargs, **fit_arguments(hypermodel, job.trial.hyperparameters)}
        if "tuner/epochs" in values:  # Hyperband
            fit |= {"epochs": values["tuner/epochs"], "initial_epoch": job.first_epoch}
        callbacks = callbacks_of_run(settings.tuner, self._callbacks, job.trial, job.run.number)
        stock = self._has_stock_fit
        if stock:  # what is given by position is given by name
            fit = by_name(self._args, fit)
        fit = rows_of(job.run, fit)
        scorer = scorer_of(settings.objective)
        held_out = None if scorer is None else _held_out_rows(fit, scorer)
        best_epoch, halves = _BestEpoch(settings), _HalvesHistory(settings, job.run, fit)
        gc.collect()
        model = job.build()
        if job.start is not None:
            go_on(model, job.start)
        optimizer = getattr(model, "optimizer", None)  # its `fit` may compile it
        if model.built and optimizer is not None and not optimizer.built:
            # else Keras traces the first step twice
            optimizer.build(model.trainable_variables)
        # a build may draw random numbers, which the batches should not depend on
        keras.utils.set_random_seed(job.seed)
        batches, last = OrderedBatches(job.seed), _LastEpoch(job, callbacks)
        averages = _Averages(callbacks)
        scores = []
        if scorer is not None and held_out is not None:
            scores = [ScoreCallback(scorer, *held_out, averages=averages.swaps)]
        rates = [LoggedRates()] if any(map(acts_on_training, callbacks)) else []
        ordered: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if type(model).fit is keras.Model.fit and settings.tuner.distribution_strategy is None:
            ordered = replaced_fit(model, functools.partial(_fit_in_order, model, batches))
        logs = _EpochLogs()
        with ordered:
            result = hypermodel.fit(
                job.trial.hyperparameters,
                model,
                *(() if stock else self._args),
                callbacks=[
                    batches, last.before, *scores, *callbacks,
                    *hooks_of_tuner(settings.tuner, job.trial), *rates, averages, halves,
                    best_epoch, averages.swapped_back, _ReportEpochs(settings, job), last, logs,
                ],
                **fit,
            )  # fmt: skip
        outcome = outcome_of(result, settings.objective, best_epoch, halves.histories, model)
        if len({len(values) for values in outcome.history.values()}) > 1:  # `validation_freq`
            outcome.logged_epochs = logs.logged_epochs
        outcome.crossed = halves.crossed
        if job.may_go_on:
            outcome.last = last.state or last_state_of(model)  # a `fit` that calls no callbacks
        return outcome

    @property
    def _has_stock_fit(self) -> bool:
        tuner = self._settings.tuner
        return has_stock_fit(tuner.hypermodel) and tuner.distribution_strategy is None


def _fit_in_order(
    model: keras.Model, batches: OrderedBatches, *args: Any, **kwargs: Any
) -> keras.callbacks.History:
    """Call a model's own `fit`: the batches in the order of a population's."""
    fit = by_name(args, kwargs)
    if any(callback is batches for callback in fit.get("callbacks") or ()):
        fit = batches.arguments(fit)
    return type(model).fit(model, **fit)


class RunHistory(keras.callbacks.History):
    """What `fit` of a run has returned, as Keras tells it, with the outcome beside it.

    Args:
        outcome: of the run.
    """

    def __init__(self, outcome: RunOutcome) -> None:
        super().__init__()
        self.outcome = outcome
        self.history = outcome.history
        self.epoch = list(range(max(map(len, outcome.history.values()), default=0)))


def outcome_of(
    result: Any,
    objective: keras_tuner.Objective,
    best_epoch: _BestEpoch | None = None,
    halves: Sequence[Histories] = (),
    model: keras.Model | None = None,
    source: str = "HyperModel.fit()",
) -> RunOutcome:
    """Return what a `fit`, or a user's own `run_trial`, has returned as an outcome.

    Args:
        result: a History, a number, or a dictionary with the objective.
        objective: of the search.
        best_epoch: the callback that kept the weights of the epoch that counts.
        halves: histories on the halves of the validation rows.
        model: what was trained.
        source: what has returned it, in words.

    Raises:
        keras_tuner.errors.FatalTypeError, keras_tuner.errors.FatalValueError: `result` is something
            else, or a dictionary without the objective; it would be so in all trials.
    """
    outcome = RunOutcome(halves=list(halves), model=model)
    if best_epoch is not None:
        outcome.best_epoch, outcome.best_value = best_epoch.epoch, best_epoch.value
        outcome.state = best_epoch.state
    if model is not None and outcome.state is None:
        outcome.state = state_of(model)  # a `fit` that calls no callbacks
    if isinstance(result, RunHistory):
        return result.outcome
    if isinstance(result, keras.callbacks.History):
        outcome.history = histories_of(result.history)
        return outcome
    outcome.by_epoch = False
    if isinstance(result, (int, float, np.number)):
        result = {objective.name: result}
    if not isinstance(result, dict) or objective.name not in result:
        forgotten = " Did you forget to return it?" if result is None else ""
        if is_unset(objective):
            raise FatalTypeError(
                f"Expected the result of {source} to be a single float, as no objective is given. "
                f"Received: {result!r}.{forgotten}"
            )
        kind = FatalValueError if isinstance(result, dict) else FatalTypeError
        raise kind(
            f"Expected the result of {source} to be one of: what `model.fit` returns, the "
            f"objective as a number, a dictionary with {objective.name!r}. "
            f"Received: {result!r}.{forgotten}"
        )
    outcome.history = histories_of({name: [value] for name, value in result.items()})
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
        value = numbers_of(logs or {}).get(objective.name, math.nan)
        value = -value if objective.direction == "max" else value
        last = self._settings.score_at == "last_epoch"
        if math.isfinite(value) and (last or value < self.value):
            self.value, self.epoch = value, self._epochs
            self.state = state_of(self.model)
        self._epochs += 1


class _EpochLogs(keras.callbacks.Callback):
    """Notes what each epoch has logged: in a History those that were not validated leave no gap."""

    def __init__(self) -> None:
        super().__init__()
        self._epochs = 0
        self._logged: dict[str, list[int]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name in numbers_of(logs or {}):
            self._logged.setdefault(name, []).append(self._epochs)
        self._epochs += 1

    @property
    def logged_epochs(self) -> dict[str, list[int]]:
        """See `RunOutcome`."""
        return {name: own for name, own in self._logged.items() if len(own) < self._epochs}


class _Averages(keras.callbacks.Callback):
    """Puts averaged weights into the model while an epoch is judged, if it was validated by them.

    `SwapEMAWeights` does so for the validation of `fit` alone: what is kept is what was judged.

    Args:
        callbacks: of the run.

    Attributes:
        swaps: the callbacks whose averages are meant.
        swapped_back: stands behind what judges, as this one stands before it.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__()
        # those that swap on epochs have done so
        swaps = [
            callback
            for callback in callbacks
            if isinstance(callback, keras.callbacks.SwapEMAWeights) and not callback.swap_on_epoch
        ]
        self.swaps = swaps
        self.swapped_back = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: [callback.on_test_end() for callback in swaps]
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for callback in self.swaps:
            callback.on_test_begin()


class _BeforeCallbacks(keras.callbacks.Callback):
    """Keeps the state after an epoch's steps, before other callbacks change it."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = False
        self.state: RunState | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.wanted:
            self.state = last_state_of(self.model)


class _LastEpoch(keras.callbacks.Callback):
    """Keeps the state after the last epoch for a run that goes on from it, and goes on from one.

    Keras ends a training with the averaged weights if the optimizer has any: it is taken before.

    Args:
        job: what is trained.
        callbacks: the others, whose counters go on.

    Attributes:
        before: stands before the others in the list, as this one stands behind.
        state: `None` if no epoch was the last, or no run may go on.
    """

    def __init__(self, job: RunJob, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        super().__init__()
        self._job, self._callbacks = job, callbacks
        self.state: RunState | None = None
        self.before = _BeforeCallbacks()
        # these end the training with averages in place of the weights
        self.before.wanted = job.may_go_on and any(
            isinstance(callback, keras.callbacks.SwapEMAWeights) and callback.swap_on_epoch
            for callback in callbacks
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        counters = [] if self._job.start is None else self._job.start.counters
        for callback, numbers in zip(self._callbacks, counters, strict=False):
            set_counters(callback, numbers)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._job.may_go_on:
            return
        # a training loop of one's own may set no parameters
        epochs = (self.params or {}).get("epochs", math.inf)
        if epoch + 1 < epochs and not getattr(self.model, "stop_training", False):
            return
        self.state = self.before.state or last_state_of(self.model)
        self.state.learning_rate = learning_rate_value(self.model)
        self.state.counters = [counters_of(callback) for callback in self._callbacks]


class _HalvesHistory(keras.callbacks.Callback):
    """Evaluates each half of the validation rows after every epoch, if the run has halves.

    And in the end both at once, each with the weights of the epoch that is best on the other: the
    AUC of all rows is no mean of those of two halves. Two copies of the weights are kept for it.
    """

    def __init__(self, settings: TrainerSettings, run: Run, fit: dict[str, Any]) -> None:
        super().__init__()
        self.histories: list[Histories] = []
        self.crossed: dict[str, float] = {}
        self._settings = settings
        self._scorer = scorer_of(settings.objective)
        self._best_values = [math.inf, math.inf]
        self._weights: list[list[np.ndarray] | None] = [None, None]  # that a half is scored with
        self._batch_size = fit.get("validation_batch_size") or fit.get("batch_size")
        self._parts = [
            keras.tree.map_structure(lambda array, rows=rows: array[rows], fit["validation_data"])
            for rows in run.halves or ()
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.histories = self.histories or [{} for _ in self._parts]
        for half, (history, part) in enumerate(zip(self.histories, self._parts, strict=True)):
            values = self._evaluate(part)
            for name, value in values.items():
                history.setdefault(name, []).append(value)
            if not self._settings.cross_fits:
                continue
            objective = self._settings.value(values)
            if objective < self._best_values[half]:
                self._best_values[half] = objective
                self._weights[1 - half] = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        first, second = self._weights
        if first is None or second is None:
            return
        last = self.model.get_weights()
        self.model.set_weights(first)
        outputs = [self._predicted(self._parts[0])]
        self._evaluate(self._parts[0])
        sums = [variable.numpy() for variable in self.model.metrics_variables]
        self.model.set_weights(second)
        outputs.append(self._predicted(self._parts[1]))
        self.crossed = self._evaluate(self._parts[1], [_GoOn(sums)])
        if self._scorer is not None:
            self.crossed |= self._score(self._parts, outputs)
        self.model.set_weights(last)

    def _evaluate(
        self, part: Any, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> dict[str, float]:
        x, y, *weight = part
        values = self.model.evaluate(
            x,
            y,
            batch_size=self._batch_size,
            sample_weight=weight[0] if weight else None,
            verbose=0,
            return_dict=True,
            callbacks=list(callbacks),
        )
        logs = {f"val_{name}": number for name, number in numbers_of(values).items()}
        if self._scorer is not None and not callbacks:
            logs |= self._score([part], [self._predicted(part)])
        return logs

    def _predicted(self, part: Any) -> np.ndarray | None:
        """Return the model's outputs for rows, if a scorer wants them."""
        if self._scorer is None:
            return None
        return self.model.predict(part[0], batch_size=self._batch_size, verbose=0)

    def _score(self, parts: Sequence[Any], outputs: Sequence[Any]) -> dict[str, float]:
        """Return the scorer's value on the rows of some parts together, by name."""
        scorer: Any = self._scorer
        y = np.concatenate([keras.tree.flatten(part[1])[0] for part in parts])
        weights = [part[2] for part in parts if len(part) > 2]
        weight = np.concatenate(weights) if weights else None
        return {scorer.logged: scorer.of_model(self.model)(y, np.concatenate(outputs), weight)}


def _held_out_rows(fit: dict[str, Any], scorer: Scorer) -> tuple[Any, Any, Any]:
    """Return the validation rows of `fit` and their weights, or raise if they are no arrays."""
    held_out = fit.get("validation_data")
    if not isinstance(held_out, (tuple, list)):
        raise ValueError(
            f"`objective={scorer.metric!r}` needs validation rows as arrays, "
            f"`validation_data=(x, y)`. Received: {in_words(held_out)}"
        )
    x, y, *weight = held_out
    return x, y, weight[0] if weight else None


class _GoOn(keras.callbacks.Callback):
    """Lets `evaluate`, which begins by forgetting, go on from the metrics of other rows."""

    def __init__(self, sums: Sequence[np.ndarray]) -> None:
        super().__init__()
        self._sums = sums

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == 0:
            for variable, value in zip(self.model.metrics_variables, self._sums, strict=True):
                variable.assign(value)


class _ReportEpochs(keras.callbacks.Callback):
    """Tells whoever listens of epochs. It has no hook for batches: these cost time."""

    def __init__(self, settings: TrainerSettings, job: RunJob) -> None:
        super().__init__()
        self._settings, self._job = settings, job

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        control = _ModelControl(self.model)
        self._settings.tell(self._job, epoch + 1, numbers_of(logs or {}), control)


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
