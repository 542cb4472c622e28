"""`PopulationTuner`: a keras-tuner tuner that trains its trials together."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import inspect
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FailedTrialError

from kregs.files import write_json
from kregs.population.capacity import members_at_once
from kregs.population.jobs import Job, check_callbacks
from kregs.population.layout import Layout
from kregs.population.registry import NotStackable
from kregs.population.rows import Feed, Rows, Stream, as_rows, as_source, as_validation, is_dataset
from kregs.population.signature import Member, read_member
from kregs.population.training import Training, check_devices
from kregs.reporting.progress import SearchProgress
from kregs.search.checkpoints import CheckpointWriter
from kregs.search.engine import TrialRecord, load_checkpoint
from kregs.search.oracles import BayesianOracle, GridOracle
from kregs.search.probe import make_hypermodel
from kregs.search.randomness import cheap_collection, derived_seed, fresh_session, preserved_state
from kregs.search.resampling import Halves, Run, RunOutcome, Split
from kregs.search.selection import judge
from kregs.search.sequential import SequentialTuner, is_chief, reason_of
from kregs.search.tensorboard import is_plain_tensorboard, write_tensorboard
from kregs.validation import check_choice, check_integer, check_names

_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": BayesianOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
    "grid": GridOracle,
}
# proposals that learn from results: asking for many at once is asking for guesses
_MODEL_BASED_AT_ONCE = 8
_FIT_ARGUMENTS = (
    "x", "y", "validation_data", "validation_split", "batch_size", "epochs", "callbacks",
    "class_weight", "sample_weight", "shuffle", "verbose", "validation_batch_size",
)  # fmt: skip


class SequentialFallback(UserWarning):
    """Trials are trained one by one; the message says why."""


@dataclasses.dataclass
class _Trial:
    """A trial under way: its runs are jobs; folds share the model of their seed."""

    trial: Any
    models: list[keras.Model]
    members: list[Member]
    started: float
    outcomes: dict[int, RunOutcome] = dataclasses.field(default_factory=dict)


class PopulationTuner(SequentialTuner):
    """Trains the trials of one structure as one stacked model.

    It is a `keras_tuner.Tuner`: `search`, `get_best_models`, `get_best_hyperparameters`,
    `results_summary` and the project directory are keras-tuner's. Trials whose models differ in
    more than numbers are grouped by structure. A trial that cannot be stacked is trained by its own
    `fit`, with a `SequentialFallback` warning that says why.

    Args:
        hypermodel: a function of `hp` that returns a compiled model, or a `HyperModel`.
        objective: what the oracle optimizes; not used if `oracle` is an object.
        max_trials: how many trials; not used if `oracle` is an object, or for Hyperband.
        oracle: `"random"`, `"bayesian"`, `"hyperband"`, `"grid"`, or a `keras_tuner.Oracle`.
        seed: of proposals, initial weights, batch order and noise; all trials share the latter
            three, so that they are compared under the same luck.
        executions_per_trial: members per trial, with different seeds; the score is their mean.
        max_members: how many members train at once. Default: what memory and cache suggest.
        devices: names of the devices that share the members out. Default: all GPUs.
        directory, project_name, overwrite: as in `keras_tuner.Tuner`.
        splits, halves, keep, score_at, max_time, progress: see
            `kregs.search.sequential.SequentialTuner`.
        strict: raise `kregs.population.NotStackable` instead of training a trial by itself.
        **kwargs: further arguments of the oracle (`max_epochs`, `factor`, `num_initial_points`,
            `hyperparameters`, ...) or of `keras_tuner.Tuner`.

    Raises:
        TypeError: an argument is not known; the message names the nearest.

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
        hypermodel: Callable[[Any], keras.Model] | keras_tuner.HyperModel,
        objective: Any = None,
        max_trials: int = 10,
        *,
        oracle: str | keras_tuner.Oracle = "random",
        seed: int | None = None,
        executions_per_trial: int = 1,
        max_members: int | None = None,
        devices: Sequence[str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
        splits: Sequence[Split] | None = None,
        halves: Halves | None = None,
        keep: int | None = None,
        score_at: str = "best_epoch",
        max_time: float | None = None,
        progress: SearchProgress | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        for_tuner = {k: kwargs.pop(k) for k in _TUNER_ARGUMENTS if k in kwargs}
        if isinstance(oracle, str):
            check_choice("oracle", oracle, _ORACLES)
            oracle_class = _ORACLES[oracle]
            known = inspect.signature(oracle_class).parameters
            check_names("PopulationTuner", kwargs, [*known, *_TUNER_ARGUMENTS])
            given = {"objective": objective, "seed": seed, "max_trials": max_trials, **kwargs}
            oracle = oracle_class(**{k: v for k, v in given.items() if k in known})
        elif kwargs:
            check_names("PopulationTuner", kwargs, _TUNER_ARGUMENTS)
        if max_members is not None:
            max_members = check_integer("max_members", max_members, minimum=1)
        self._max_members = max_members
        self._devices = check_devices(devices)
        self._given_progress = progress
        self._strict = strict
        super().__init__(
            hypermodel=make_hypermodel(hypermodel),
            oracle=oracle,
            splits=splits,
            halves=halves,
            keep=keep,
            score_at=score_at,
            max_time=max_time,
            directory=os.fspath(directory or "."),
            project_name=project_name or "untitled_project",
            executions_per_trial=check_integer(
                "executions_per_trial", executions_per_trial, minimum=1
            ),
            seed=oracle.seed if seed is None else seed,
            progress=progress,
            overwrite=overwrite,
            **for_tuner,
        )
        if seed is None and self._is_worker():
            self._seed = self.oracle.seed()  # all workers train under the same luck
        # of Hyperband's runs, by trial and run: what later trials go on from
        self._ended: dict[tuple[str, int], tuple[list[np.ndarray] | None, Any]] = {}
        self._said: set[str] = set()

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Train trials until the oracle stops; arguments as in `keras.Model.fit`."""
        verbose = fit_kwargs.get("verbose", "auto")
        if self._given_progress is None and verbose != 0:
            objective = self.oracle.objective
            self._progress = SearchProgress(
                getattr(self.oracle, "max_trials", None),
                done=len(self.oracle.end_order) if hasattr(self.oracle, "end_order") else 0,
                objective=objective.name,
                direction=objective.direction,
            )
        if is_chief():
            with self._shown():
                super().search(*fit_args, **{**fit_kwargs, "verbose": 0})
            return
        fit = _bind_fit(fit_args, fit_kwargs)
        reason = self._why_not_together(fit)
        with preserved_state():
            if reason is not None or fit is None:
                self._say(reason or "")
                with self._shown():
                    super().search(*fit_args, **{**fit_kwargs, "verbose": 0})
                return
            self.oracle.verbose = 0
            self.save()
            with cheap_collection(), self._shown(), self._reachable():
                self.on_search_begin()
                _Search(self, fit, fit_args, fit_kwargs).run()
                self.on_search_end()

    def _shown(self) -> Any:
        """The progress display, if it is this tuner's own to open."""
        return contextlib.nullcontext() if self._given_progress is not None else self._progress

    def _why_not_together(self, fit: dict[str, Any] | None) -> str | None:
        if type(self.hypermodel).fit is not keras_tuner.HyperModel.fit:
            return "the hypermodel has a `fit` of its own"
        if self.distribution_strategy is not None:
            return "a distribution strategy is used"
        if fit is None:
            return "`search` is given arguments of `fit` that populations have not"
        x, validation = fit["x"], fit["validation_data"]
        parts = [] if is_dataset(x) else [x, fit["y"]]
        if isinstance(validation, (tuple, list)):
            parts += validation[:2]
        elif validation is not None and not is_dataset(validation):
            return f"`validation_data` is a {type(validation).__name__}, no arrays and no dataset"
        for part in parts:
            if not _is_array(part):
                return f"the data are a {type(part).__name__}, no arrays and no dataset"
        try:
            check_callbacks([c for c in fit["callbacks"] or [] if not is_plain_tensorboard(c)])
        except NotStackable as error:
            return str(error)
        return None

    def _say(self, reason: str) -> None:
        """Say once why trials are trained one by one; raise if that is not wanted."""
        if self._strict:
            raise NotStackable(reason)
        if reason in self._said:
            return
        self._said.add(reason)
        message = f"trials are trained one by one: {reason}"
        if self._given_progress is not None:
            self._progress.note(message)
        else:
            warnings.warn(message, SequentialFallback, stacklevel=2)


_TUNER_ARGUMENTS = (
    "max_model_size", "optimizer", "loss", "metrics", "distribution_strategy", "logger", "tuner_id",
)  # fmt: skip


def _is_array(value: Any) -> bool:
    # for Keras a list or a dictionary is several inputs
    return isinstance(value, (np.ndarray, tf.Tensor)) or hasattr(value, "__array__")


def _bind_fit(args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `fit` by name, or `None` if one is not of `_FIT_ARGUMENTS`."""
    signature = inspect.signature(keras.Model.fit)
    bound = signature.bind(None, *args, **kwargs)
    given = {name: value for name, value in bound.arguments.items() if name != "self"}
    if set(given) - set(_FIT_ARGUMENTS):
        return None
    defaults = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name in _FIT_ARGUMENTS
    }
    return {**defaults, **given}


class _Search:
    """One call of `search`: asks for trials, groups them by structure, trains, reports."""

    def __init__(
        self, tuner: PopulationTuner, fit: dict[str, Any], args: tuple, kwargs: dict[str, Any]
    ) -> None:
        self.tuner = tuner
        self.oracle = tuner.oracle
        self.fit = fit
        self.fit_args, self.fit_kwargs = args, kwargs
        self.epochs = fit["epochs"]
        self.batch_size = fit["batch_size"] or 32
        given = list(fit["callbacks"] or [])
        self.tensorboards = [c for c in given if is_plain_tensorboard(c)]
        self.callbacks = [c for c in given if not is_plain_tensorboard(c)]
        self.data, self.validation = self._rows()
        self.writers: dict[tuple, CheckpointWriter] = {}
        self.trainings: dict[tuple, list[Training]] = {}
        self.waiting: dict[tuple, list[Job]] = collections.defaultdict(list)
        self.under_way: dict[str, _Trial] = {}
        self.asked = 0

    def _rows(self) -> tuple[Rows | Stream, Rows | Stream | None]:
        fit = self.fit
        if is_dataset(fit["x"]):
            data = as_source(
                fit["x"],
                fit["y"],
                fit["sample_weight"],
                fit["class_weight"],
                shuffle=bool(fit["shuffle"]),
            )
            validation = fit["validation_data"]
            return data, None if validation is None else as_validation(validation)
        x, y, weight = np.asarray(fit["x"]), np.asarray(fit["y"]), fit["sample_weight"]
        validation = fit["validation_data"]
        if validation is None and fit["validation_split"]:
            # as Keras: the last rows
            cut = int(len(x) * (1.0 - fit["validation_split"]))
            weight = None if weight is None else np.asarray(weight)
            validation = (x[cut:], y[cut:], *(() if weight is None else (weight[cut:],)))
            x, y = x[:cut], y[:cut]
            weight = None if weight is None else weight[:cut]
        rows = as_rows(x, y, weight, fit["class_weight"])
        if self.tuner._runs[0].split is not None:
            # every run takes its own of all rows; class weights are for training
            return rows, as_rows(x, y, weight)
        return rows, None if validation is None else as_validation(validation)

    def run(self) -> None:
        self._ask()
        while self.waiting or getattr(self.oracle, "waits", False):
            if self.waiting:
                # the largest group first: later results may still add to the others
                self._train(max(self.waiting, key=lambda s: len(self.waiting[s])))
            else:  # others train what the next proposals depend on, or may leave theirs
                self.tuner._check_time()
            self._ask()

    # ---- asking ----------------------------------------------------------------------------

    def _at_once(self) -> int:
        if self.tuner._is_worker():
            proposes_by_model = self.oracle.proposes_by_model
        else:
            proposes_by_model = isinstance(
                self.oracle, keras_tuner.oracles.BayesianOptimizationOracle
            )
        if proposes_by_model:
            return self.tuner._max_members or _MODEL_BASED_AT_ONCE
        return 2 * (self.tuner._max_members or 32)

    def _share(self) -> float:
        """How many trials may be under way here, so that other workers get some too."""
        share = self.oracle.share if self.tuner._is_worker() else None
        return math.inf if share is None else share

    def _ask(self) -> None:
        """Ask the oracle for trials until enough are under way or it has none at the moment."""
        share = self._share()
        while (
            len(self.under_way) * len(self.tuner._runs) < self._at_once()
            and len(self.under_way) < share
        ):
            self.tuner.pre_create_trial()
            trial = self.oracle.create_trial(f"{self.tuner.tuner_id}-{self.asked}")
            if trial.status in ("STOPPED", "IDLE"):
                return
            self.asked += 1
            self._start(trial)

    def _start(self, trial: Any) -> None:
        self.tuner.on_trial_begin(trial)
        began = time.perf_counter()
        runs, folder = self.tuner._runs, self.tuner.get_trial_dir(trial.trial_id)
        under_way = _Trial(trial, [], [], began)
        try:
            for seed in range(self.tuner.executions_per_trial):
                keras.utils.set_random_seed(derived_seed(self.tuner._seed, seed))
                model = self._build(trial.hyperparameters)
                under_way.members.append(read_member(model))
                under_way.models.append(model)
            jobs = []
            for run in runs:
                outcome = RunOutcome.read(folder, run)
                if outcome is not None:  # of a search that was killed
                    under_way.outcomes[run.number] = outcome
                else:
                    jobs.append(self._job(under_way, run))
        except NotStackable as error:
            self.tuner._say(str(error))
            self._train_alone(trial)
            return
        except Exception as error:
            self._fail(trial, error, began)
            return
        if not jobs:
            self._report(under_way)
            return
        self.under_way[trial.trial_id] = under_way
        for job in jobs:
            self.waiting[job.member.signature].append(job)

    def _job(self, under_way: _Trial, run: Run) -> Job:
        values = under_way.trial.hyperparameters.values
        split = run.split
        weights, state = self._earlier(values.get("tuner/trial_id"), run)
        return Job(
            member=under_way.members[run.seed],
            weights=weights,
            state=state,
            seed=self.tuner._run_seed(run),
            callbacks=copy.deepcopy(self.callbacks),
            epochs=values.get("tuner/epochs", self.epochs),
            first_epoch=values.get("tuner/initial_epoch", 0),
            train_rows=None if split is None else split.train,
            validation_rows=None if split is None else split.validation,
            name=(under_way.trial.trial_id, run.number),
        )

    def _earlier(self, trial_id: str | None, run: Run) -> tuple[list[np.ndarray] | None, Any]:
        """The weights and the optimizer's state that a run of Hyperband goes on from, if any."""
        if trial_id is None:
            return None, None
        if (trial_id, run.number) in self.tuner._ended:
            return self.tuner._ended[trial_id, run.number]
        if len(self.tuner._runs) == 1:
            return None, None  # the built model has them
        # never another fold's: these were trained on rows that this one is judged on
        outcome = RunOutcome.read(self.tuner.get_trial_dir(trial_id), run)
        return (None if outcome is None else outcome.weights), None

    def _build(self, hp: Any) -> keras.Model:
        fresh_session()
        model = keras_tuner.Tuner._build_hypermodel(self.tuner, hp)
        if not isinstance(model, keras.Model):
            raise TypeError(f"`build` returned no keras.Model but {type(model).__name__}")
        if not model.built:
            model.build((None, *self.data.row_shape))
        earlier = hp.values.get("tuner/trial_id")
        if earlier is not None and len(self.tuner._runs) == 1:
            # of another worker, or of a search that is resumed
            load_checkpoint(model, self.tuner.get_trial_dir(earlier), to_train=True)
        return model

    def _train_alone(self, trial: Any) -> None:
        self.tuner._try_run_and_update_trial(
            trial, *self.fit_args, **{**self.fit_kwargs, "verbose": 0}
        )
        self.tuner.on_trial_end(trial)

    # ---- training --------------------------------------------------------------------------

    def _train(self, signature: tuple) -> None:
        jobs = self.waiting.pop(signature)
        try:
            self._train_together(signature, jobs)
        except (NotStackable, tf.errors.OpError, TypeError, ValueError) as error:
            # found out only when TensorFlow traced or ran it: nothing that is done is lost
            self.tuner._say(reason_of(error))
            for trial_id, under_way in list(self.under_way.items()):
                if under_way.members[0].signature == signature:
                    del self.under_way[trial_id]
                    self._train_alone(under_way.trial)

    def _train_together(self, signature: tuple, jobs: list[Job]) -> None:
        training = self._training(signature, jobs)
        queue = collections.deque(jobs)

        with contextlib.closing(training.run(queue)) as finished:
            for job in finished:
                self._done(job)
                self._ask()
                for new in self.waiting.pop(signature, []):
                    if training.layout.fits(new.member):
                        queue.append(new)
                    else:
                        self.waiting[signature].append(new)

    def _training(self, signature: tuple, jobs: list[Job]) -> Training:
        """Return a training that the jobs fit, compiled already if one of this structure was."""
        for training in self.trainings.get(signature, []):
            if all(training.layout.fits(job.member) for job in jobs):
                return training
        layout = Layout([job.member for job in jobs])
        training = Training(
            layout,
            members_at_once(layout, self.batch_size, self.tuner._max_members),
            Feed(
                self.data,
                self.validation,
                self.batch_size,
                self.fit["validation_batch_size"],
                self.tuner._runs[0].halves or (),
                bool(self.fit["shuffle"]),
            ),
            objective=self._value,
            keep_state=isinstance(self.oracle, keras_tuner.oracles.HyperbandOracle),
            keep_last=self.tuner._score_at == "last_epoch",
            devices=self.tuner._devices,
            on_epoch=self._on_epoch,
        )
        self.trainings.setdefault(signature, []).append(training)
        return training

    def _value(self, logs: dict[str, float]) -> float:
        """The objective, lower is better."""
        objective = self.oracle.objective
        try:
            value = objective.get_value(logs)
        except KeyError:
            raise ValueError(
                f"the objective {objective.name!r} was not logged. Logged: {', '.join(logs)}"
            ) from None
        return -value if objective.direction == "max" else value

    def _on_epoch(self, job: Job) -> None:
        self.tuner._check_time()
        self.tuner._progress.epoch_ended(job.name[0], job.epoch, job.epochs)

    # ---- reporting -------------------------------------------------------------------------

    def _done(self, job: Job) -> None:
        trial_id, number = job.name
        under_way = self.under_way[trial_id]
        outcome = RunOutcome(
            job.history,
            job.best_epoch - job.first_epoch if job.best_epoch >= 0 else -1,
            job.best_value,
            job.best_weights,
            job.seconds,
            job.failure,
            job.part_histories,
        )
        under_way.outcomes[number] = outcome
        hyperband = "tuner/epochs" in under_way.trial.hyperparameters.values
        if hyperband:
            self.tuner._ended[trial_id, number] = outcome.weights, job.end_state
        for callback in self.tensorboards:
            write_tensorboard(
                callback,
                self.tuner._get_tensorboard_dir(callback.log_dir, trial_id, number),
                under_way.trial,
                job.history,
            )
        ended = len(under_way.outcomes) == len(self.tuner._runs)
        if not ended or (hyperband and len(self.tuner._runs) > 1):
            outcome.write(self.tuner.get_trial_dir(trial_id), self.tuner._runs[number])
        if ended:
            del self.under_way[trial_id]
            self._report(under_way)

    def _report(self, under_way: _Trial) -> None:
        trial, runs = under_way.trial, self.tuner._runs
        outcomes = [under_way.outcomes[run.number] for run in runs]
        record = TrialRecord(
            histories=[outcome.history for outcome in outcomes],
            halves=[outcome.halves for outcome in outcomes],
            initial_epoch=trial.hyperparameters.values.get("tuner/initial_epoch", 0),
            seconds=sum(outcome.seconds for outcome in outcomes),
        )
        failed = next((outcome for outcome in outcomes if outcome.best_epoch < 0), None)
        try:
            if failed is not None:
                reason = f"{self.oracle.objective.name} was never a finite number"
                if failed.failure:
                    reason += f": {failed.failure}"
                raise FailedTrialError(reason)
            judgement = judge(
                record.histories,
                runs,
                self.oracle.objective,
                self.tuner._score_at,
                record.halves,
            )
        except FailedTrialError as error:
            self._fail(trial, error, under_way.started, record)
            return
        best = min(runs, key=lambda run: outcomes[run.number].best_value)
        weights = outcomes[best.number].weights
        self._save(trial, under_way, best.seed, weights)
        score = self.tuner._report_scores(trial, judgement, record)
        self.tuner._end_trial(trial, record, score)
        self.tuner.on_trial_end(trial)

    def _save(
        self, trial: Any, under_way: _Trial, seed: int, weights: list[np.ndarray] | None
    ) -> None:
        """Write the best weights, and the learning rate that a reloaded model goes on with."""
        model, member = under_way.models[seed], under_way.members[seed]
        variables = [*member.weights, *model.optimizer.variables]
        values = [*(weights or []), *(v.value.numpy() for v in model.optimizer.variables)]
        writer = self.writers.get(member.signature)
        if writer is None:
            writer = CheckpointWriter(model, variables)
            self.writers[member.signature] = writer
        write_json(self.tuner._get_build_config_fname(trial.trial_id), model.get_build_config())
        writer.write(self.tuner._get_checkpoint_fname(trial.trial_id), model, variables, values)

    def _fail(
        self, trial: Any, error: Exception, started: float, record: TrialRecord | None = None
    ) -> None:
        trial.status = "FAILED" if isinstance(error, FailedTrialError) else "INVALID"
        trial.message = f"{type(error).__name__}: {error}"
        record = record or TrialRecord(seconds=time.perf_counter() - started)
        record.status, record.message = "failed", reason_of(error)
        self.tuner._end_trial(trial, record, None)
        self.tuner.on_trial_end(trial)
