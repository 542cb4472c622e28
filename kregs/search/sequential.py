"""The sequential engine: one trial after the other, each by the model's own `fit`."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FailedTrialError, FatalError
from keras_tuner.src.distribute import utils as distribute

from kregs.files import atomic_path, write_json
from kregs.reporting.progress import SearchProgress
from kregs.search.engine import TrialRecord, load_checkpoint, own_hyperparameters
from kregs.search.oracles import save_atomically
from kregs.search.randomness import cheap_collection, derived_seed, fresh_session
from kregs.search.resampling import Halves, Run, RunOutcome, Split, make_runs, run_path
from kregs.search.selection import Judgement, judge

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
        splits: folds; each is trained with each seed, in one trial. `None`: one run a seed, on the
            rows that `search` is given.
        halves: two halves of the rows of `validation_data`, by number: each is scored at the epoch
            that is best on the other. `None`: a run is scored at its best epoch.
        keep: how many trials' weights stay on disk, the best ones'; `None` for all.
        score_at: the epoch of a run that counts, `"best_epoch"` or `"last_epoch"`; its weights too.
        max_time: seconds after which `search` raises `TimeUp`, at the end of an epoch.
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
        splits: Sequence[Split] | None = None,
        halves: Halves | None = None,
        keep: int | None = None,
        score_at: str = "best_epoch",
        max_time: float | None = None,
        progress: SearchProgress | None = None,
        **kwargs: Any,
    ) -> None:
        self._seed = seed
        self._runs = make_runs(splits, executions_per_trial, halves)
        self._keep = keep
        self._forgotten: set[str] = set()  # whose weights are removed already
        self._score_at = score_at
        self._deadline = math.inf if max_time is None else time.monotonic() + max_time
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
        if self._is_worker():
            from kregs.search.distributed import Client  # loads gRPC

            self.oracle = Client(oracle)

    def _populate_initial_space(self) -> None:
        if not self.oracle.get_space().space:
            super()._populate_initial_space()

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Train trials until the oracle stops; arguments as in `keras.Model.fit`."""
        self.oracle.verbose = 0
        fit_kwargs.setdefault("verbose", 0)
        self.save()  # keras-tuner reloads only a project that has been saved
        if is_chief():
            self._serve()
            return
        with cheap_collection(), _no_retracing_warning(), self._reachable():
            super().search(*fit_args, **fit_kwargs)

    def _serve(self) -> None:
        """Hand trials to workers until all have ended."""
        from kregs.search.distributed import serve

        serve(self.oracle, self._progress, self._forget_weights, self._check_time)

    def _reachable(self) -> contextlib.AbstractContextManager[None]:
        """On a worker: tell the chief that this process lives."""
        return self.oracle.alive() if self._is_worker() else contextlib.nullcontext()

    def save(self) -> None:
        """Save the state that a search is resumed from; on a worker there is none."""
        if not self._is_worker():
            super().save()

    def _get_tuner_fname(self) -> str:
        # a search that one process began can be resumed by a chief, and the other way round
        return os.path.join(str(self.project_dir), "tuner0.json")

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
            record.halves = [getattr(result, "halves", []) for result in results]
            judgement = judge(
                [_as_history(result, self.oracle.objective) for result in results],
                self._runs,
                self.oracle.objective,
                self._score_at,
                record.halves,
            )
            score = self._report_scores(trial, judgement, record)
            if not record.histories:  # `fit` returned a number: there are no epochs
                record.best_epoch = None
        except FatalError:
            raise
        except Exception as error:
            # INVALID may be tried again, if the oracle allows for it
            trial.status = "FAILED" if isinstance(error, FailedTrialError) else "INVALID"
            trial.message = traceback.format_exc()
            record.status, record.message = "failed", reason_of(error)
        record.seconds = time.perf_counter() - started
        self._end_trial(trial, record, score)

    def _report_scores(self, trial: Any, judgement: Judgement, record: TrialRecord) -> float:
        """Tell the oracle what a trial's runs amount to, and note it in the record."""
        self.oracle.update_trial(trial.trial_id, judgement.metrics, step=judgement.epoch)
        trial.status = "COMPLETED"
        record.scores = judgement.scores
        record.standard_error = judgement.standard_error
        record.best_epoch = record.initial_epoch + judgement.epoch + 1
        return judgement.metrics[self.oracle.objective.name]

    def _end_trial(self, trial: Any, record: TrialRecord, score: float | None) -> None:
        folder = self.get_trial_dir(trial.trial_id)
        record.write(folder)
        self._progress.trial_ended(trial.trial_id, score, record.message)

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        # only now is the trial's end on disk: killed before, it is judged by these, not trained
        if "tuner/epochs" not in trial.hyperparameters.values:  # Hyperband's go on from them
            for run in self._runs:
                run_path(self.get_trial_dir(trial.trial_id), run).unlink(missing_ok=True)
        self._forget_weights()

    def _forget_weights(self) -> None:
        """Remove the checkpoints of all trials but the best.

        Hyperband's trials go on from one another's checkpoints: they all stay.
        """
        if self._keep is None or isinstance(self.oracle, keras_tuner.oracles.HyperbandOracle):
            return
        if self._is_worker():  # the chief knows all scores
            return
        sign = 1.0 if self.oracle.objective.direction == "min" else -1.0
        scored = [t for t in self.oracle.trials.values() if t.status == "COMPLETED"]
        scored.sort(key=lambda t: sign * t.score)
        for trial in scored[self._keep :]:
            if trial.trial_id not in self._forgotten:
                Path(self._get_checkpoint_fname(trial.trial_id)).unlink(missing_ok=True)
                self._forgotten.add(trial.trial_id)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeUp

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> list[Any]:
        """Train one trial's model, once per execution; return what each `fit` returned."""
        values = trial.hyperparameters.values
        if "tuner/epochs" in values:
            fit_kwargs["epochs"] = values["tuner/epochs"]
            fit_kwargs["initial_epoch"] = values["tuner/initial_epoch"]
        given = fit_kwargs.pop("callbacks", None) or []
        folder = self.get_trial_dir(trial.trial_id)
        results: list[Any] = []
        best: tuple[float, list[np.ndarray] | None] = (math.inf, None)
        model = None
        for run in self._runs:
            outcome = RunOutcome.read(folder, run)
            if outcome is not None:  # of a search that was killed
                results.append(outcome)
            else:
                callbacks = self._deepcopy_callbacks(given)
                self._configure_tensorboard_dir(callbacks, trial, run.number)
                keep = _BestEpoch(self.oracle.objective, self._score_at)
                halves = _Halves(run, fit_kwargs)
                epochs = _Epochs(self, trial.trial_id, fit_kwargs.get("epochs"))
                keras.utils.set_random_seed(derived_seed(self._seed, run.seed))
                model = self._try_build(trial.hyperparameters)
                self._go_on(model, values.get("tuner/trial_id"), run)
                optimizer = model.optimizer
                if model.built and optimizer is not None and not optimizer.built:
                    # else Keras traces the first step twice
                    optimizer.build(model.trainable_variables)
                # once more: a build may draw random numbers, which the batches should not depend on
                keras.utils.set_random_seed(self._run_seed(run))
                result = self.hypermodel.fit(
                    trial.hyperparameters,
                    model,
                    *fit_args,
                    callbacks=[*callbacks, halves, epochs, keep],
                    **_rows_of(run, fit_kwargs),
                )
                outcome = keep.outcome(model, result, halves.histories)
                results.append(outcome if outcome.history else result)
                if len(self._runs) > 1 and isinstance(result, keras.callbacks.History):
                    outcome.write(folder, run)
            if best[1] is None or outcome.best_value < best[0]:
                best = outcome.best_value, outcome.weights
        if model is None:
            model = self._try_build(trial.hyperparameters)
        write_json(self._get_build_config_fname(trial.trial_id), model.get_build_config())
        _save(model, best[1], self._get_checkpoint_fname(trial.trial_id))
        return results

    def _go_on(self, model: keras.Model, earlier: str | None, run: Run) -> None:
        """Give a run of Hyperband the state of the same run of an earlier trial.

        Never another fold's: it was trained on rows that this one is judged on.
        """
        if earlier is None or len(self._runs) == 1:
            return
        outcome = RunOutcome.read(self.get_trial_dir(earlier), run)
        if outcome is not None and outcome.weights is not None:
            _restore(model, outcome.weights)

    def _run_seed(self, run: Run) -> int:
        """The seed of a run's batches and noise; folds share initial weights, but not luck."""
        own = (run.seed,) if run.fold is None else (run.seed, run.fold)
        return derived_seed(self._seed, *own)

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
        if earlier is not None and len(self._runs) == 1:
            load_checkpoint(model, self.get_trial_dir(earlier), to_train=True)
        return model

    def load_model(self, trial: Any) -> keras.Model:
        """Return a trial's model with the weights of its best epoch."""
        model = self._try_build(trial.hyperparameters)
        load_checkpoint(model, self.get_trial_dir(trial.trial_id))
        return model


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


def is_chief() -> bool:
    """Whether keras-tuner's environment variables make this process the chief."""
    return distribute.is_chief_oracle()


def is_worker() -> bool:
    """Whether keras-tuner's environment variables make this process a worker."""
    return distribute.has_chief_oracle() and not distribute.is_chief_oracle()


class TimeUp(BaseException):
    """The search has used up its time. No `Exception`: a trial must not be blamed for it."""


class _BestEpoch(keras.callbacks.Callback):
    """Keeps the weights and the optimizer state of the epoch that counts in memory."""

    def __init__(self, objective: keras_tuner.Objective, score_at: str) -> None:
        super().__init__()
        self._last = score_at == "last_epoch"
        self._objective = objective
        self._sign = 1.0 if objective.direction == "min" else -1.0
        self._value = math.inf
        self._epoch = -1
        self._epochs = 0
        self._weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = self._sign * float((logs or {}).get(self._objective.name, math.nan))
        if math.isfinite(value) and (self._last or value < self._value):
            self._value, self._epoch = value, self._epochs
            self._weights = _state(self.model)
        self._epochs += 1

    def outcome(self, model: keras.Model, result: Any, halves: list) -> RunOutcome:
        """Return what was kept; the model's present weights if its `fit` calls no callbacks."""
        weights = self._weights if self._weights is not None else _state(model)
        history = _history(result) or {}
        return RunOutcome(history, self._epoch, self._value, weights, halves=halves)


class _Halves(keras.callbacks.Callback):
    """Evaluates each half of the validation rows after every epoch, if the run has halves."""

    def __init__(self, run: Run, fit: dict[str, Any]) -> None:
        super().__init__()
        self.histories: list[dict[str, list[float]]] = []
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


def _state(model: keras.Model) -> list[np.ndarray]:
    return [*model.get_weights(), *(v.value.numpy() for v in model.optimizer.variables)]


def _restore(model: keras.Model, state: list[np.ndarray]) -> None:
    """Give a model the state that `_state` returned."""
    count = len(model.get_weights())
    model.set_weights(state[:count])
    if not model.optimizer.built and len(state) > count + len(model.optimizer.variables):
        model.optimizer.build(model.trainable_variables)
    if len(state) > count:  # a population's run leaves no optimizer
        for variable, value in zip(model.optimizer.variables, state[count:], strict=True):
            variable.assign(value)


def _save(model: keras.Model, state: list[np.ndarray] | None, path: str) -> None:
    """Write a checkpoint of a state that `_state` returned."""
    _restore(model, state or [])
    with atomic_path(path) as temporary:
        model.save_weights(temporary)


class _Epochs(keras.callbacks.Callback):
    """Tells the progress display of epochs. It has no hook per batch: these cost time."""

    def __init__(self, tuner: SequentialTuner, trial_id: str, epochs: int | None) -> None:
        super().__init__()
        self._tuner, self._trial_id, self._epochs = tuner, trial_id, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tuner._progress.epoch_ended(self._trial_id, epoch + 1, self._epochs)
        self._tuner._check_time()


def _rows_of(run: Run, fit: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` with a fold's rows in place of all."""
    if run.split is None:
        return fit
    parts = {name: fit[name] for name in ("x", "y", "sample_weight") if fit.get(name) is not None}

    def taken(rows: np.ndarray) -> dict[str, Any]:
        return keras.tree.map_structure(lambda array: array[rows], parts)

    held_out = tuple(taken(run.split.validation).values())
    return {**fit, **taken(run.split.train), "validation_data": held_out}


def _as_history(result: Any, objective: keras_tuner.Objective) -> dict[str, list[float]]:
    """Return what `HyperModel.fit` returned as values by epoch."""
    history = _history(result)
    if history is not None:
        return history
    if isinstance(result, (int, float, np.number)):
        result = {objective.name: result}
    if not isinstance(result, dict) or objective.name not in result:
        raise TypeError(
            "`HyperModel.fit` must return what `model.fit` returns, the objective as a number, "
            f"or a dictionary with {objective.name!r}. Received: {result!r}"
        )
    return {name: [float(value)] for name, value in result.items()}


def _history(result: Any) -> dict[str, list[float]] | None:
    if isinstance(result, RunOutcome):
        return result.history
    if not isinstance(result, keras.callbacks.History):
        return None
    return {name: [float(v) for v in series] for name, series in result.history.items()}


def reason_of(error: Exception) -> str:
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
