"""`PopulationTuner`: a keras-tuner tuner that trains its trials together."""

from __future__ import annotations

import contextlib
import functools
import heapq
import inspect
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from kregs.logs import no_retracing_warning
from kregs.population.registry import NotStackable
from kregs.population.training import check_devices
from kregs.search.build import explore_fit, make_hypermodel
from kregs.search.checkpoints import Checkpoints, load_checkpoint
from kregs.search.engines import engine_words
from kregs.search.keras_tuner_internals import (
    QuietTuner,
    build_model,
    check_own_methods,
    is_chief,
    is_worker,
    own_hooks,
    save_now,
    write_whole_files,
)
from kregs.search.loop import SearchLoop, TimeUp
from kregs.search.objective import is_unset, make_objective, scorer_of
from kregs.search.oracles import ORACLE_CLASSES, check_oracle, trials_to_go_on_from
from kregs.search.own_fit import by_name, has_stock_fit
from kregs.search.progress import Progress
from kregs.search.protocol import ENGINES, SCORE_AT
from kregs.search.randomness import cheap_collection, fresh_session, preserved_state
from kregs.search.runs import Halves, RunJob, RunOutcome, Split, make_runs
from kregs.search.storage import locked, remove_outcomes, remove_weights, searched_values
from kregs.search.trainers import RunControl, TrainerSettings
from kregs.search.trainers.feeds import rows_of
from kregs.search.trainers.fit import FitTrainer, RunHistory, outcome_of
from kregs.search.trainers.stacked import StackedTrainer
from kregs.validation import (
    check_choice,
    check_file_name,
    check_flag,
    check_integer,
    check_names,
    check_number,
    check_path,
    check_seed,
    in_words,
)

_MAX_TRIALS = 10  # as in keras-tuner

# arguments of `keras_tuner.Tuner`, beside those of the oracle
_TUNER_ARGUMENTS = (
    "max_model_size", "optimizer", "loss", "metrics", "distribution_strategy", "logger", "tuner_id",
)  # fmt: skip


class SequentialFallback(UserWarning):
    """Trials are trained one by one; the message says why."""


class PopulationTuner(QuietTuner):
    """Trains the trials of one structure as one stacked model.

    It is a `keras_tuner.Tuner`: `search`, `get_best_models`, `get_best_hyperparameters`,
    `results_summary` and the project directory are keras-tuner's. Trials whose models differ in
    more than numbers are grouped by structure. A trial that cannot be stacked is trained by its own
    `fit`, with a `SequentialFallback` warning that says why.

    Differences from keras-tuner's own tuners, however a trial is trained:

    - Every trial starts from the same seed, so that trials differ by their hyperparameters and not
      by luck: the same order of batches and, where the models are of one structure, the same
      initial weights.
    - The best epoch's weights are kept in memory and written once, at the end of the trial.
    - Epochs whose objective is NaN or infinite are never the best; a trial that has no others
      failed.
    - Hyperband's `tuner/epochs` and `tuner/trial_id` are honoured with any oracle. A trial goes on
      from the last epoch of the earlier one: its weights, momenta, learning rate, noise and what
      callbacks have counted, so that two halves are the whole. Kept as a trial's model are the
      weights of the best of its own epochs.
    - It prints nothing but its progress, and writes a `TrialRecord` into each trial's directory.

    Args:
        hypermodel: a function of `hp` that returns a compiled model, or a `HyperModel`. One whose
            own `fit` only changes arguments of `model.fit` is stacked. `None`: for a subclass whose
            `run_trial` needs none.
        objective: what the oracle optimizes; of an `oracle` object its own.
        max_trials: how many trials; an `oracle` object and Hyperband have their own bound. Default:
            all points of a grid, 10 otherwise.
        oracle: `"random"`, `"random_from_defaults"`, `"bayesian"`, `"hyperband"`, `"grid"`, or a
            `keras_tuner.Oracle`.
        seed: of proposals, initial weights, batch order and noise; all trials share the latter
            three, so that they are compared under the same luck.
        executions_per_trial: members per trial, with different seeds; the score is their mean.
        max_members: how many members train at once. Default: what memory and cache suggest.
        devices: names of the devices that share the members out. Default: all GPUs.
        engine: `"auto"`; `"population"` raises `kregs.population.NotStackable` instead of training
            a trial by itself; `"sequential"` trains every trial by itself.
        directory, project_name, overwrite: as in `keras_tuner.Tuner`.
        splits: folds; each is trained with each seed, in one trial. `None`: one run a seed, on the
            rows that `search` is given.
        halves: two halves of the rows of `validation_data`, by number: each is scored at the epoch
            that is best on the other. `None`: a run is scored at its best epoch.
        keep: how many trials' weights stay on disk, the best ones'; `None` for all.
        keep_folds: the weights of all runs of these trials stay, each run's of its best epoch.
        score_at: the epoch of a run that counts, `"best_epoch"` or `"last_epoch"`; its weights too.
        max_time: seconds after which `search` raises `TimeUp`, at the end of an epoch. What trains
            then is scored by the epochs that it had, in its `TrialRecord`; for keras-tuner it is
            under way, and trained from its start when the search goes on.
        progress: is told of trials and epochs. Default: they are shown, unless `verbose=0`.
        strict: deprecated, `engine="population"`.
        **kwargs: further arguments of the oracle (`max_epochs`, `factor`, `num_initial_points`,
            `hyperparameters`, ...) or of `keras_tuner.Tuner`.

    Raises:
        TypeError: an argument is not known; the message names the nearest. Or it has a wrong type.
        ValueError: an argument is out of bounds, or is another than that of the `oracle` object.

    Example:

    >>> import keras, kregs, numpy as np, tempfile
    >>> def build(hp):
    ...     layers = [keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(
    ...         hp.Float("dropout", 0.0, 0.5)), keras.layers.Dense(1)]
    ...     model = keras.Sequential(layers)
    ...     model.compile(keras.optimizers.Adam(hp.Float("lr", 1e-3, 1e-1)), "mse")
    ...     return model
    >>> tuner = kregs.PopulationTuner(
    ...     build, objective="val_loss", max_trials=4, seed=1, directory=tempfile.mkdtemp())
    >>> x = np.random.default_rng(0).normal(size=(60, 2)).astype("float32")
    >>> tuner.search(x, x.sum(1), epochs=3, validation_split=0.3, verbose=0)
    >>> len(tuner.oracle.trials), tuner.get_best_models()[0].output_shape
    (4, (None, 1))
    """

    def __init__(
        self,
        hypermodel: Callable[[Any], keras.Model] | keras_tuner.HyperModel | None = None,
        objective: Any = None,
        max_trials: int | None = None,
        *,
        oracle: str | keras_tuner.Oracle = "random",
        seed: int | None = None,
        executions_per_trial: int = 1,
        max_members: int | None = None,
        devices: Sequence[str] | None = None,
        engine: str = "auto",
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
        splits: Sequence[Split] | None = None,
        halves: Halves | None = None,
        keep: int | None = None,
        keep_folds: bool = False,
        score_at: str = "best_epoch",
        max_time: float | None = None,
        progress: Progress | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> None:
        tuner_arguments = {k: kwargs.pop(k) for k in _TUNER_ARGUMENTS if k in kwargs}
        if strict is not None:
            warnings.warn(
                "`strict` is deprecated: pass engine='population' for strict=True",
                DeprecationWarning,
                stacklevel=2,
            )
            engine = "population" if strict else engine
        if seed is not None:
            seed = check_seed("seed", seed)
        if max_trials is not None:
            max_trials = check_integer("max_trials", max_trials, minimum=1)
        own_arguments = inspect.signature(PopulationTuner).parameters.keys() - {"kwargs"}
        if isinstance(oracle, str):
            oracle = _make_oracle(oracle, objective, seed, max_trials, kwargs, own_arguments)
        else:
            _check_given_oracle(oracle, objective, max_trials)
            known = [*own_arguments, *_TUNER_ARGUMENTS]
            check_names("PopulationTuner", kwargs, known, kind="argument")
        if max_members is not None:
            max_members = check_integer("max_members", max_members, minimum=1)
        executions = check_integer("executions_per_trial", executions_per_trial, minimum=1)
        if keep is not None:
            keep = check_integer("keep", keep, minimum=1)
        if max_time is not None:
            max_time = check_number("max_time", max_time, above=0.0)
        if directory is not None and check_path("directory", directory).is_file():
            raise ValueError(
                f"`directory` must be a folder. Received: the file {os.fspath(directory)!r}"
            )
        if project_name is not None:
            check_file_name("project_name", project_name)
        if progress is not None and not isinstance(progress, Progress):
            raise TypeError(f"`progress` must be a Progress. Received: {in_words(progress)}")
        check_own_methods(self)
        self.max_members = max_members
        model = None
        if hypermodel is None and not self.trains_trials_itself:
            raise ValueError(
                "`hypermodel` must be given, or `run_trial` be overridden. "
                "Received `hypermodel=None`"
            )
        if hypermodel is not None:
            model = make_hypermodel(hypermodel, "hypermodel")
        if self.trains_trials_itself or not has_stock_fit(model):
            halves = None  # what it trains by is its own affair: all trials are scored alike
        self.runs = make_runs(splits, executions, halves)
        self.score_at = check_choice("score_at", score_at, SCORE_AT)
        self.progress = progress or Progress()
        self.checkpoints = Checkpoints()
        self._engine = check_choice("engine", engine, ENGINES)
        self._devices = check_devices(devices)
        self._halves = halves
        self._keep = keep
        self.keep_folds = check_flag("keep_folds", keep_folds)
        self._deadline = math.inf if max_time is None else time.monotonic() + max_time
        self._given_progress = progress
        self._reasons: set[str] = set()  # why trials were trained one by one
        self.trained: list[tuple[str | None, str | None]] = []  # see `engine_words`
        write_whole_files(oracle)
        super().__init__(
            hypermodel=model,
            oracle=oracle,
            directory=directory or ".",
            project_name=project_name or "untitled_project",
            executions_per_trial=executions,
            overwrite=check_flag("overwrite", overwrite),
            **tuner_arguments,
        )
        self.seed = oracle.seed if seed is None else seed
        if is_worker():
            from kregs.search.workers.client import Client  # loads gRPC

            self.oracle = Client(oracle)
            if seed is None:
                self.seed = self.oracle.chief_seed()  # all workers train under the same luck

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Train trials until the oracle stops; arguments as in `keras.Model.fit`.

        Raises:
            TimeUp: `max_time` is over.
            kregs.search.storage.FolderInUse: another process searches in the project directory.
        """
        if is_unset(self.oracle.objective) and not (
            self.trains_trials_itself or not has_stock_fit(self.hypermodel)
        ):
            raise ValueError(
                "`objective` must be given to PopulationTuner, or to its oracle, such as "
                "'val_loss'. Received: objective=None"
            )
        if self._given_progress is None and fit_kwargs.get("verbose", "auto") != 0:
            self.progress = self._shown_progress()
        fit_kwargs = {**fit_kwargs, "verbose": 0}
        with contextlib.ExitStack() as stack:
            if not is_worker():  # they share their chief's lock
                stack.enter_context(locked(Path(self.project_dir)))
            if self._given_progress is None:
                stack.enter_context(self.progress)
            stack.enter_context(preserved_state())
            stack.enter_context(cheap_collection())
            stack.enter_context(no_retracing_warning())
            self.oracle.verbose = 0
            self.save()  # keras-tuner reloads only a project that has been saved
            if is_worker():
                stack.enter_context(self.oracle.alive())
            else:
                stack.callback(save_now, self.oracle)
            unstacked = self._explore_fit(fit_args, fit_kwargs)
            if is_chief():
                self._serve()
                return
            self.on_search_begin()
            loop = self._loop(fit_args, fit_kwargs, unstacked)
            try:
                loop.run()
            finally:
                self.say_trained()
            self.on_search_end()

    def say_trained(self) -> None:
        """Say how many trials were stacked, how many were not, and why."""
        words = engine_words(self.trained)
        if words is not None:
            self.progress.note(words)

    def _explore_fit(self, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
        """Let the oracle know the hyperparameters of the hypermodel's own `fit`.

        Trials are proposed together, before any has called it.

        Returns:
            Why it cannot be stacked; `None` if it can.
        """
        if self.trains_trials_itself or has_stock_fit(self.hypermodel):
            return None
        try:
            space = explore_fit(
                self.hypermodel,
                functools.partial(build_model, self),
                args,
                rows_of(self.runs[0], dict(kwargs)),
                space=self.oracle.get_space(),
                once=self.space_is_whole or is_worker(),
            )
        except NotStackable as error:
            return str(error)
        if not (self.space_is_whole or is_worker()):
            self.oracle.update_space(space)
        return None

    def _shown_progress(self) -> Progress:
        from kregs.reporting.progress import SearchProgress

        objective = self.oracle.objective
        return SearchProgress(
            getattr(self.oracle, "max_trials", None),
            done=len(getattr(self.oracle, "end_order", ())),
            objective=objective.name,
            direction=objective.direction,
        )

    def _serve(self) -> None:
        """Hand trials to workers until all have ended."""
        from kregs.search.workers.chief import serve

        serve(self.oracle, self.progress, self.forget_weights, self.check_time)

    def _loop(
        self, args: Sequence[Any], kwargs: dict[str, Any], unstacked: str | None
    ) -> SearchLoop:
        settings = self._trainer_settings()
        self._fit_arguments = args, kwargs
        if not self.trains_trials_itself and has_stock_fit(self.hypermodel):
            _check_fit(_named(args, kwargs))
        stacked, row_shape = None, None
        reason: str | None = "engine='sequential'"
        if self._engine != "sequential":
            try:
                if self.trains_trials_itself:
                    raise NotStackable("the tuner has a `run_trial` of its own")
                if own_hooks(self):
                    raise NotStackable(f"the tuner has an `{own_hooks(self)[0]}` of its own")
                if unstacked is not None:
                    raise NotStackable(unstacked)
                stacked = StackedTrainer(
                    settings,
                    args,
                    kwargs,
                    folds=self.runs[0].split is not None,
                    halves=self._halves,
                    max_members=self.max_members,
                    devices=self._devices,
                )
                reason, row_shape = None, stacked.row_shape
            except NotStackable as error:
                reason = str(error)
                self.say_unstacked(reason)
        alone = FitTrainer(settings, args, kwargs)
        fit = _named(args, kwargs)
        return SearchLoop(
            self,
            stacked,
            alone,
            epochs=fit.get("epochs", 1),
            first_epoch=fit.get("initial_epoch", 0),
            unstacked=reason,
            row_shape=row_shape,
        )

    def _trainer_settings(self) -> TrainerSettings:
        return TrainerSettings(
            tuner=self,
            objective=self.oracle.objective,
            score_at=self.score_at,
            on_epoch=self._epoch_ended,
        )

    def say_unstacked(self, reason: str) -> None:
        """Say once why trials are trained one by one; raise if that is not wanted."""
        if self._engine == "population":
            raise NotStackable(reason)
        if reason in self._reasons:
            return
        self._reasons.add(reason)
        message = f"trials are trained one by one: {reason}"
        if self._given_progress is not None:
            self.progress.note(message)
        else:
            warnings.warn(message, SequentialFallback, stacklevel=2)

    def _epoch_ended(
        self, job: RunJob, epochs: int, logs: dict[str, float], control: RunControl
    ) -> None:
        if self.time_is_up and epochs < job.epochs:
            job.cut_short = True
            control.stop()
        self.progress.epoch_ended(job.trial_id, epochs, job.epochs)

    def check_time(self) -> None:
        """Raise `TimeUp` if the search has used up its time."""
        if self.time_is_up:
            raise TimeUp

    @property
    def time_left(self) -> float | None:
        """The seconds that are left of `max_time`; `None` if there is no limit."""
        return None if math.isinf(self._deadline) else self._deadline - time.monotonic()

    @property
    def time_is_up(self) -> bool:
        """Whether the search has used up its time."""
        return time.monotonic() > self._deadline

    # ---- one trial by itself ---------------------------------------------------------------

    @property
    def trains_trials_itself(self) -> bool:
        """Whether a subclass has a `run_trial` of its own."""
        return type(self).run_trial is not PopulationTuner.run_trial

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> list[RunHistory]:
        """Train one trial's model by `fit`, and return the History of each run.

        A subclass may override it, to change arguments of `fit` or to judge the trial by itself.
        """
        alone = FitTrainer(self._trainer_settings(), fit_args, fit_kwargs)
        fit = _named(fit_args, fit_kwargs)
        loop = SearchLoop(
            self,
            None,
            alone,
            epochs=fit.get("epochs", 1),
            first_epoch=fit.get("initial_epoch", 0),
        )
        return [RunHistory(outcome) for outcome in loop.run_trial(trial)]

    def outcomes_of_own_trial(self, trial: Any) -> list[RunOutcome]:
        """Return what a subclass's `run_trial` returned, one outcome a run."""
        args, kwargs = self._fit_arguments
        results = self.run_trial(trial, *args, **kwargs)
        told = self.oracle.get_trial(trial.trial_id).metrics
        name = self.oracle.objective.name
        if results is None and told.exists(name):  # keras-tuner's way of old
            warnings.warn(
                "`run_trial` calls `oracle.update_trial` and returns nothing, which keras-tuner "
                "has deprecated. Please remove the call, and return the metrics as a dictionary",
                DeprecationWarning,
                stacklevel=2,
            )
            results = {metric: told.get_best_value(metric) for metric in told.metrics}
        results = results if isinstance(results, list) else [results]
        return [
            outcome_of(result, self.oracle.objective, source="Tuner.run_trial()")
            for result in results
        ]

    # ---- keras-tuner's hooks ---------------------------------------------------------------

    def save(self) -> None:
        """Save the state that a search is resumed from; on a worker there is none."""
        if not is_worker():
            super().save()

    def on_trial_begin(self, trial: Any) -> None:
        super().on_trial_begin(trial)
        self.progress.trial_started(trial.trial_id, searched_values(trial.hyperparameters.values))

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        if not is_worker():  # the chief knows all scores
            self.forget_weights(trial.trial_id)

    def keeps_weights(self, trial_id: str, score: float) -> bool:
        """Whether a trial of this score is among the best `keep`, whose weights stay on disk."""
        if not self._forgets or is_worker():
            return True
        kept = self._kept
        return len(kept) < (self._keep or 0) or self._rank(trial_id, score) > kept[0]

    def forget_weights(self, trial_id: str) -> None:
        """Remove the weights of the worst trial if one more than `keep` has them.

        And the last states of Hyperband's trials from which no other can go on any more.

        Args:
            trial_id: the trial that has ended.
        """
        trial = self.oracle.trials[trial_id]
        if self._forgets and trial.status == "COMPLETED":
            self._add_kept(self._kept, trial)
        if "tuner/epochs" in trial.hyperparameters.values:
            self._with_states.add(trial_id)
            for past in self._with_states - trials_to_go_on_from(self.oracle):
                remove_outcomes(self.get_trial_dir(past), self.runs)
                self._with_states.discard(past)

    @functools.cached_property
    def _with_states(self) -> set[str]:
        """The trials whose last states are on disk, for others to go on from."""
        return {
            trial.trial_id
            for trial in self.oracle.trials.values()
            if "tuner/epochs" in trial.hyperparameters.values
            and trial.status in ("COMPLETED", "FAILED")
        }

    @property
    def _forgets(self) -> bool:
        return self._keep is not None

    @functools.cached_property
    def _kept(self) -> list[tuple[float, int, str]]:
        """The trials whose weights are on disk: a heap, the worst first."""
        kept: list[tuple[float, int, str]] = []
        for trial in self.oracle.trials.values():  # of a search that is gone on with
            if trial.status == "COMPLETED":
                self._add_kept(kept, trial)
        return kept

    def _add_kept(self, kept: list[tuple[float, int, str]], trial: Any) -> None:
        entry = self._rank(trial.trial_id, trial.score)
        if entry in kept:
            return
        heapq.heappush(kept, entry)
        if len(kept) > (self._keep or 0):
            remove_weights(self.get_trial_dir(heapq.heappop(kept)[-1]))

    def _rank(self, trial_id: str, score: float) -> tuple[float, int, str]:
        """What is the larger the better; of equals, the later trial goes."""
        sign = 1.0 if self.oracle.objective.direction == "min" else -1.0
        return -sign * score, -int(trial_id), trial_id

    def load_model(self, trial: Any) -> keras.Model:
        """Return a trial's model with the weights of its best epoch."""
        fresh_session()
        model = build_model(self, trial.hyperparameters)
        load_checkpoint(model, self.get_trial_dir(trial.trial_id))
        return model


def _named(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `fit` by name, where they are such: a `fit` of one's own may differ."""
    try:
        return by_name(args, kwargs)
    except TypeError:
        return kwargs


def _make_oracle(
    name: str,
    objective: Any,
    seed: int | None,
    max_trials: int | None,
    kwargs: dict[str, Any],
    own_arguments: Iterable[str],
) -> keras_tuner.Oracle:
    oracle_class = ORACLE_CLASSES[check_choice("oracle", name, ORACLE_CLASSES)]
    known = inspect.signature(oracle_class).parameters
    check_names(
        "PopulationTuner",
        kwargs,
        dict.fromkeys([*own_arguments, *known, *_TUNER_ARGUMENTS]),
        kind="argument",
    )
    if max_trials is not None and (name == "hyperband" or "max_trials" not in known):
        raise ValueError(
            f"`max_trials` has no meaning for the oracle {name!r}: leave it out. "
            f"Received: max_trials={max_trials}"
        )
    if objective is not None and not isinstance(objective, list):  # several are keras-tuner's
        objective = make_objective(objective)  # it knows more names than keras-tuner
    if max_trials is None and name != "grid":
        max_trials = _MAX_TRIALS
    arguments = {"objective": objective, "seed": seed, "max_trials": max_trials, **kwargs}
    if name == "hyperband":
        arguments["max_trials"] = None  # whole sweeps
    return oracle_class(**{k: v for k, v in arguments.items() if k in known})


def _check_given_oracle(oracle: Any, objective: Any, max_trials: int | None) -> None:
    """Raise unless it is an Oracle whose own settings are those that were given beside it."""
    given = isinstance(oracle, keras_tuner.Oracle)
    if given and hasattr(oracle.objective, "objectives") and objective is None:
        if max_trials is not None:
            raise ValueError(
                "`max_trials` is set by the Oracle object that is passed: leave it out. "
                f"Received: max_trials={max_trials}"
            )
        return  # several objectives are keras-tuner's
    goal = oracle.objective if given and objective is None else make_objective(objective or "loss")
    check_oracle(oracle, max_trials, goal)
    if objective is not None and (is_unset(oracle.objective) or scorer_of(goal) is not None):
        oracle.objective = goal


def _check_fit(fit: Mapping[str, Any]) -> None:
    """Raise `TypeError` or `ValueError` for arguments that no trial could be trained with."""
    for name in ("epochs", "steps_per_epoch", "validation_steps"):
        if fit.get(name) is not None:
            check_integer(name, fit[name], minimum=1)
    first, epochs = (
        check_integer("initial_epoch", fit.get("initial_epoch", 0)),
        fit.get("epochs", 1),
    )
    if not 0 <= first < epochs:
        raise ValueError(
            "`initial_epoch` must be below `epochs` and not below 0. "
            f"Received: initial_epoch={first}, epochs={epochs}"
        )
    callbacks, weights = fit.get("callbacks"), fit.get("class_weight")
    if callbacks is not None and not isinstance(callbacks, Iterable):
        raise TypeError(
            f"`callbacks` must be a list of Keras callbacks. Received: {in_words(callbacks)}"
        )
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(
            "`class_weight` must be a dictionary of classes and weights. "
            f"Received: {in_words(weights)}"
        )
