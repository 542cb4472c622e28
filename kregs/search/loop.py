"""The course of a search: ask the oracle for trials, have their runs trained, judge, report.

A trial's runs are jobs of a trainer: the stacked one, and Keras's own `fit` for those that it
refuses. When the last run of a trial has ended, the trial is judged and the oracle told.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FailedTrialError

from kregs.files import disk_full, is_disk_full
from kregs.population.capacity import most_members
from kregs.population.undrawn import InitialWeights
from kregs.search.failures import reason_of, traceback_of
from kregs.search.fingerprint import check_same_model, fingerprint
from kregs.search.judging.model_restraints import kernel_summary, model_restraints
from kregs.search.judging.score import Judgement, judge
from kregs.search.keras_tuner_internals import build_model, check_model_size
from kregs.search.randomness import derived_seed, fresh_session
from kregs.search.runs import Run, RunJob, RunOutcome, RunState, make_runs
from kregs.search.searched_fit import fit_arguments
from kregs.search.storage import (
    CUT_SHORT,
    BrokenFile,
    TrialRecord,
    outcome_file,
    read_outcome,
    remove_outcomes,
    write_fold_weights,
    write_outcome,
)
from kregs.search.trainers import Trainer

# proposals that learn from results: asking for many at once is asking for guesses
_MODEL_BASED_AT_ONCE = 8


class TimeUp(BaseException):
    """The search has used up its time. No `Exception`: a trial must not be blamed for it."""


@dataclasses.dataclass
class TrialUnderWay:
    """A trial whose runs are being trained.

    Args:
        trial: keras-tuner's.
        build: returns a fresh model with the initial weights of one of the seeds.
        initial_weights: of all models of the search.
        facts: what that model is, as `kregs.search.fingerprint` tells it.
        engine, unstacked, arguments: what trains it, why it is not stacked, and arguments of `fit`
            that are its own, as in `TrialRecord`.
    """

    trial: Any
    build: Callable[[int], keras.Model]
    initial_weights: InitialWeights = dataclasses.field(default_factory=InitialWeights)
    facts: dict[str, Any] | None = None
    engine: str | None = None
    unstacked: str | None = None
    arguments: dict[str, int] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    outcomes: dict[int, RunOutcome] = dataclasses.field(default_factory=dict)
    jobs: list[RunJob] = dataclasses.field(default_factory=list)
    models: dict[int, keras.Model | Exception] = dataclasses.field(default_factory=dict)

    def model(self, seed: int) -> keras.Model:
        """Return the model that all runs of one seed share, or raise what its `build` raised."""
        if seed not in self.models:
            with self.initial_weights.drawn_late():  # the models themselves are never trained
                try:
                    self.models[seed] = self.build(seed)
                except Exception as error:
                    self.models[seed] = error
        model = self.models[seed]
        if isinstance(model, Exception):
            raise model
        return model

    @property
    def values(self) -> dict[str, Any]:
        return self.trial.hyperparameters.values


class SearchLoop:
    """One call of a tuner's `search`.

    Args:
        tuner: a `PopulationTuner`.
        stacked: trains runs together; `None` if nothing can be.
        alone: trains what the other refuses.
        epochs, first_epoch: of a trial, as in `fit`, but for Hyperband, which says itself.
        unstacked: why nothing can be trained together.
        row_shape: of one row of the inputs, for models that are built without; `None` if it is not
            known.
    """

    def __init__(
        self,
        tuner: Any,
        stacked: Trainer | None,
        alone: Trainer,
        *,
        epochs: int,
        first_epoch: int = 0,
        unstacked: str | None = None,
        row_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._tuner, self._oracle = tuner, tuner.oracle
        self._stacked, self._alone = stacked, alone
        self._epochs, self._first_epoch = epochs, first_epoch
        self._unstacked, self._row_shape = unstacked, row_shape
        self._stacked_jobs: collections.deque[RunJob] = collections.deque()
        self._alone_jobs: collections.deque[RunJob] = collections.deque()
        self._under_way: dict[str, TrialUnderWay] = {}
        self._initial_weights = InitialWeights()
        self._directions: dict[str, str] = {}  # of metrics
        self._asked = 0
        self._cut_short = False

    def run(self) -> None:
        """Train trials until the oracle has no more.

        When the time is up, what trains ends with its epoch. Its trials are judged by what there
        is, and marked; for the oracle they are under way, to be trained when the search goes on.

        Raises:
            TimeUp: the time was up before.
        """
        self._ask()
        while not self._cut_short and (
            self._stacked_jobs or self._alone_jobs or self._oracle_waits()
        ):
            if self._stacked_jobs and self._stacked is not None:
                self._train(self._stacked, self._stacked_jobs)
            elif self._alone_jobs:
                self._train(self._alone, self._alone_jobs)
            else:  # others train what the next proposals depend on, or may leave theirs
                self._tuner.check_time()
            self._ask()
        if self._cut_short:
            for under_way in list(self._under_way.values()):
                self._report_cut_short(under_way)
            raise TimeUp

    def run_trial(self, trial: Any) -> list[RunOutcome]:
        """Train the runs of one trial by themselves and return what came of them."""
        under_way = self._begin(trial)
        jobs = self._jobs(under_way)
        under_way.jobs = jobs
        for outcome in self._alone.run(collections.deque(jobs)):
            if outcome.error is not None:
                raise outcome.error
            self._note(under_way, outcome)
        self._save_weights(under_way)
        return [under_way.outcomes[run.number] for run in self._tuner.runs]

    # ---- asking ----------------------------------------------------------------------------

    def _oracle_waits(self) -> bool:
        return getattr(self._oracle, "waits", False)

    def _most_runs(self) -> int:
        """How many runs may be under way."""
        if self._stacked is None:
            return 1
        model_based = getattr(self._oracle, "proposes_by_model", None)  # a worker's
        if model_based is None:
            model_based = isinstance(self._oracle, keras_tuner.oracles.BayesianOptimizationOracle)
        if model_based:
            return self._tuner.max_members or _MODEL_BASED_AT_ONCE
        return 2 * (self._tuner.max_members or most_members())

    def _ask(self) -> None:
        """Ask the oracle for trials until enough are under way or it has none at the moment."""
        most = self._most_runs()
        share = getattr(self._oracle, "share", None)  # so that other workers get some, too
        while len(self._under_way) * len(self._tuner.runs) < most and len(self._under_way) < (
            math.inf if share is None else share
        ):
            if self._tuner.time_is_up:
                break
            self._tuner.pre_create_trial()
            trial = self._oracle.create_trial(f"{self._tuner.tuner_id}-{self._asked}")
            if trial.status in ("STOPPED", "IDLE"):
                return
            self._asked += 1
            self._start(trial)
        if self._tuner.time_is_up:  # what has ended is reported, nothing is begun
            self._cut_short = True
            for under_way in self._under_way.values():
                for job in under_way.jobs:
                    job.cancelled = True

    def _start(self, trial: Any) -> None:
        self._tuner.on_trial_begin(trial)
        if self._tuner.trains_trials_itself:
            self._run_own_trial(trial)
            return
        under_way = self._begin(trial)
        try:
            under_way.jobs = self._jobs(under_way)
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:  # what it goes on from cannot be read, or a function of hp fails
            self._fail(under_way, error)
            return
        if not under_way.jobs:  # all were trained before the search was killed
            self._report(under_way)
            return
        if self._stacked is not None:
            self._learn_space(under_way)
        self._under_way[trial.trial_id] = under_way
        queue = self._alone_jobs if self._stacked is None else self._stacked_jobs
        queue.extend(under_way.jobs)

    def _learn_space(self, under_way: TrialUnderWay) -> None:
        """Let the oracle know what hyperparameters a trial's `build` meets, before it is trained.

        Many trials are proposed before the first has ended. keras-tuner's oracles learn only then
        of a hyperparameter that some values of others lead to, and would propose its default.
        """
        hp = under_way.trial.hyperparameters
        known = len(hp.space)
        try:
            under_way.model(self._tuner.runs[0].seed)
        except keras_tuner.errors.FatalError:
            raise
        except Exception:  # as its trainer will find
            return
        if len(hp.space) > known:
            self._oracle.update_space(hp)

    def _begin(self, trial: Any) -> TrialUnderWay:
        under_way = TrialUnderWay(
            trial,
            build=lambda seed: self._build(under_way, seed),
            initial_weights=self._initial_weights,
            unstacked=self._unstacked,
        )
        return under_way

    def _jobs(self, under_way: TrialUnderWay) -> list[RunJob]:
        """Return a job for each run that has not been trained before the search was killed."""
        jobs = []
        folder = self._tuner.get_trial_dir(under_way.trial.trial_id)
        own = fit_arguments(self._tuner.hypermodel, under_way.trial.hyperparameters)
        under_way.arguments = own
        epochs = under_way.values.get("tuner/epochs", own.get("epochs", self._epochs))
        for run in self._tuner.runs:
            outcome = read_outcome(folder, run)
            if outcome is not None:
                under_way.outcomes[run.number] = outcome
                continue
            jobs.append(
                RunJob(
                    trial=under_way.trial,
                    run=run,
                    seed=self._run_seed(run),
                    epochs=epochs,
                    first_epoch=self._first_epoch_of(under_way),
                    build=functools.partial(under_way.build, run.seed),
                    shared_model=functools.partial(under_way.model, run.seed),
                    start=self._start_of(under_way.values.get("tuner/trial_id"), run),
                    may_go_on="tuner/epochs" in under_way.values,
                )
            )
        return jobs

    def _first_epoch_of(self, under_way: TrialUnderWay) -> int:
        if under_way.jobs:  # a `fit` of one's own may have asked for another
            return under_way.jobs[0].first_epoch
        return under_way.values.get("tuner/initial_epoch", self._first_epoch)

    def _run_seed(self, run: Run) -> int:
        """The seed of a run's batches and noise; folds share initial weights, but not luck."""
        path = (run.seed,) if run.fold is None else (run.seed, run.fold)
        return derived_seed(self._tuner.seed, *path)

    def _start_of(self, earlier: str | None, run: Run) -> RunState | None:
        """What a run of Hyperband goes on from: the last epoch of the same run of an earlier trial.

        Never another fold's: it was trained on rows that this one is judged on.
        """
        if earlier is None:
            return None
        folder = self._tuner.get_trial_dir(earlier)
        outcome = read_outcome(folder, run)
        if outcome is None or outcome.last is None:
            raise ValueError(
                f"{str(outcome_file(folder, run))!r} is missing or has no state: the trial was to "
                f"go on from trial {earlier}"
            )
        return outcome.last

    def _build(self, under_way: TrialUnderWay, seed: int) -> keras.Model:
        hp = under_way.trial.hyperparameters
        keras.utils.set_random_seed(derived_seed(self._tuner.seed, seed))
        fresh_session()
        model = build_model(self._tuner, hp)
        if not isinstance(model, keras.Model):
            raise keras_tuner.errors.FatalTypeError(  # no trial would have one
                "Expected the model-building function to return a keras.Model. "
                f"Received: {type(model).__name__}"
            )
        check_model_size(self._tuner, model)
        if under_way.facts is None and model.compiled:  # else its `fit` compiles it
            under_way.facts = fingerprint(model)
            self._check_promoted(under_way.facts, hp.values.get("tuner/trial_id"))
        return model

    def _check_promoted(self, facts: dict[str, Any], earlier: str | None) -> None:
        """Raise `ValueError` if a trial goes on from one that had another model."""
        if earlier is None:
            return
        try:
            record = TrialRecord.read(self._tuner.get_trial_dir(earlier))
        except BrokenFile:
            return
        if record is not None and record.model is not None:
            check_same_model(record.model, facts, f"trial {earlier}, which this one goes on from,")

    # ---- training --------------------------------------------------------------------------

    def _train(self, trainer: Trainer, jobs: collections.deque[RunJob]) -> None:
        for outcome in trainer.run(jobs):
            job = outcome.job
            under_way = None if job is None else self._under_way.get(job.trial_id)
            # its trial has failed meanwhile, and may be under way for another time
            if job is None or under_way is None or job not in under_way.jobs:
                continue
            if outcome.refusal is not None:
                self._tuner.say_unstacked(outcome.refusal)
                under_way.unstacked = outcome.refusal
                self._alone_jobs.append(job)
            elif outcome.error is not None:
                if is_disk_full(outcome.error):  # no fault of this trial's
                    folder = self._tuner.get_trial_dir(job.trial_id)
                    raise disk_full(folder) from outcome.error
                self._fail(under_way, outcome.error)
            else:
                under_way.engine = "population" if trainer is self._stacked else "sequential"
                self._note(under_way, outcome)
                ended = not any(job.cut_short for job in under_way.jobs)
                if ended and len(under_way.outcomes) == len(self._tuner.runs):
                    self._report(under_way)
            self._ask()

    def _note(self, under_way: TrialUnderWay, outcome: RunOutcome) -> None:
        """Keep what a run left: on disk, too, if the trial has others or others go on from it."""
        trial, runs = under_way.trial, self._tuner.runs
        run = outcome.job.run  # type: ignore[union-attr]
        under_way.outcomes[run.number] = outcome
        if outcome.job is not None and outcome.job.cut_short:
            return
        others = len(under_way.outcomes) < len(runs)
        if outcome.last is not None or (outcome.by_epoch and others):
            write_outcome(self._tuner.get_trial_dir(trial.trial_id), run, outcome)
            outcome.last = None  # read again by the trial that goes on from it

    # ---- judging and reporting -------------------------------------------------------------

    def _report(self, under_way: TrialUnderWay) -> None:
        """Judge a trial whose runs have all ended."""
        outcomes = [under_way.outcomes[run.number] for run in self._tuner.runs]
        record = self._record(under_way, outcomes)
        try:
            judgement = self._judge(outcomes)
        except keras_tuner.errors.FatalError:
            raise
        except (FailedTrialError, ValueError, TypeError) as error:
            self._fail(under_way, error, record)
            return
        self._measure(under_way, outcomes, record)
        trial, score = under_way.trial, judgement.metrics[self._oracle.objective.name]
        if self._tuner.keeps_weights(trial.trial_id, score):
            self._save_weights(under_way)
        self._complete(trial, record, judgement)
        self._under_way.pop(under_way.trial.trial_id, None)

    def _report_cut_short(self, under_way: TrialUnderWay) -> None:
        """Judge a trial that the time has ended by the epochs and runs that it had.

        What an earlier part of the search has left of it stays if that is more.
        """
        runs = [run for run in self._tuner.runs if run.number in under_way.outcomes]
        outcomes = [under_way.outcomes[run.number] for run in runs]
        if not outcomes:
            return
        folder = self._tuner.get_trial_dir(under_way.trial.trial_id)
        for run, outcome in zip(runs, outcomes, strict=True):
            whole = outcome.job is not None and not outcome.job.cut_short
            kept = outcome_file(folder, run).exists()  # with the state to go on from, if any may
            if whole and outcome.by_epoch and len(self._tuner.runs) > 1 and not kept:
                write_outcome(folder, run, outcome)  # it need not be trained again
        record = self._record(under_way, outcomes)
        try:
            judgement = self._judge(outcomes, runs)
            earlier = TrialRecord.read(folder)
        except BrokenFile:
            earlier = None
        except (FailedTrialError, ValueError, TypeError):
            return  # not a number yet: the trial has nothing to show
        if earlier is not None and earlier.status == CUT_SHORT and earlier.epochs >= record.epochs:
            return
        score = judgement.metrics[self._oracle.objective.name]
        self._add_judgement(record, judgement)
        record.status, record.score = CUT_SHORT, score
        record.message = self._words_of_cut(under_way, record, runs)
        self._measure(under_way, outcomes, record)
        self._save_weights(under_way)
        record.write(folder)
        self._tuner.progress.trial_ended(under_way.trial.trial_id, score, None)

    def _words_of_cut(self, under_way: TrialUnderWay, record: TrialRecord, runs: list[Run]) -> str:
        trained = record.initial_epoch + max(
            (max(map(len, history.values()), default=0) for history in record.histories), default=0
        )
        epochs = max(job.epochs for job in under_way.jobs)
        words = f"max_time was up after {trained} of {epochs} epochs"
        if len(runs) < len(self._tuner.runs):
            words += f" and {len(runs)} of {len(self._tuner.runs)} runs"
        return words

    def _record(self, under_way: TrialUnderWay, outcomes: list[RunOutcome]) -> TrialRecord:
        return TrialRecord(
            histories=[outcome.history for outcome in outcomes if outcome.by_epoch],
            logged_epochs=[outcome.logged_epochs for outcome in outcomes if outcome.by_epoch],
            halves=[outcome.halves for outcome in outcomes],
            initial_epoch=self._first_epoch_of(under_way),
            seconds=sum(outcome.seconds for outcome in outcomes),
            engine=under_way.engine,
            unstacked=under_way.unstacked,
            arguments=under_way.arguments,
            model=under_way.facts,
        )

    def _measure(
        self, under_way: TrialUnderWay, outcomes: list[RunOutcome], record: TrialRecord
    ) -> None:
        """Record what restrains the built model, and how large its kernels became in each run."""
        built = next((o for o in outcomes if o.model is not None), RunOutcome())
        model = built.model
        if model is None:  # all runs had ended before the search was killed
            model = self._built(under_way.model(self._tuner.runs[0].seed))
        if not model.built:  # the shape of its inputs is not known before it is trained
            return
        record.model = under_way.facts
        record.restraints = model_restraints(model, built.member)
        weights = [None if o.state is None else o.state.weights for o in outcomes]
        record.kernels = [None if w is None else kernel_summary(model, w) for w in weights]

    def _built(self, model: keras.Model) -> keras.Model:
        if not model.built and self._row_shape is not None:
            model.build((None, *self._row_shape))
        return model

    def _judge(self, outcomes: list[RunOutcome], runs: list[Run] | None = None) -> Judgement:
        objective = self._oracle.objective
        failed = next((o for o in outcomes if o.failure and o.best_epoch < 0), None)
        if failed is not None:
            raise FailedTrialError(f"{objective.name} was never a finite number: {failed.failure}")
        return judge(
            [outcome.aligned for outcome in outcomes],
            self._tuner.runs if runs is None else runs,
            objective,
            self._tuner.score_at,
            [outcome.crossed for outcome in outcomes],
        )

    def _complete(self, trial: Any, record: TrialRecord, judgement: Judgement) -> None:
        objective = self._oracle.objective.name
        with self._directions_known(trial, judgement.metrics):
            self._oracle.update_trial(trial.trial_id, judgement.metrics, step=judgement.epoch)
        trial.status = "COMPLETED"
        self._add_judgement(record, judgement)
        self._end(trial, record, judgement.metrics[objective])

    @contextlib.contextmanager
    def _directions_known(self, trial: Any, metrics: Iterable[str]) -> Iterator[None]:
        """Spare keras-tuner to infer again whether more of a metric is better.

        It makes a Keras metric of each name, of each trial.
        """
        if getattr(type(self._oracle), "update_trial", None) is not keras_tuner.Oracle.update_trial:
            yield  # a worker's, or a user's own
            return
        tracked = self._oracle.trials[trial.trial_id].metrics
        names = [name for name in metrics if not tracked.exists(name)]
        if self._directions.keys() >= set(names):
            for name in names:
                tracked.register(name, self._directions[name])
        yield
        self._directions |= {name: each.direction for name, each in tracked.metrics.items()}

    @staticmethod
    def _add_judgement(record: TrialRecord, judgement: Judgement) -> None:
        record.scores = judgement.scores
        record.standard_error = judgement.standard_error
        record.metrics = dict(judgement.metrics)
        if record.histories:  # else `fit` returned a number: there are no epochs
            record.best_epoch = record.initial_epoch + judgement.epoch + 1

    def _fail(
        self, under_way: TrialUnderWay, error: Exception, record: TrialRecord | None = None
    ) -> None:
        trial = under_way.trial
        for job in under_way.jobs:
            job.cancelled = True
        self._under_way.pop(trial.trial_id, None)
        # INVALID may be tried again, if the oracle allows for it
        trial.status = "FAILED" if isinstance(error, FailedTrialError) else "INVALID"
        trial.message = traceback_of(error)
        record = record or TrialRecord(
            seconds=time.perf_counter() - under_way.started,
            engine=under_way.engine,
            unstacked=under_way.unstacked,
        )
        record.status, record.message = "failed", reason_of(error)
        record.traceback = trial.message
        self._end(trial, record, None)

    def _end(self, trial: Any, record: TrialRecord, score: float | None) -> None:
        folder = self._tuner.get_trial_dir(trial.trial_id)
        record.write(folder)
        self._tuner.trained.append((record.engine, record.unstacked))
        self._tuner.progress.trial_ended(trial.trial_id, score, record.message)
        self._tuner.on_trial_end(trial)
        # only now is the trial's end on disk: killed before, it is judged by these, not trained
        if record.status == "failed" or "tuner/epochs" not in trial.hyperparameters.values:
            remove_outcomes(folder, self._tuner.runs)  # else other trials may go on from them

    def _save_weights(self, under_way: TrialUnderWay) -> None:
        """Write the weights of the best run."""
        runs = [run for run in self._tuner.runs if run.number in under_way.outcomes]
        if self._tuner.keep_folds:
            states = {run.number: under_way.outcomes[run.number].state for run in runs}
            by_run = {n: s.weights for n, s in states.items() if s is not None and s.weights}
            write_fold_weights(self._tuner.get_trial_dir(under_way.trial.trial_id), by_run)
        best = min(runs, key=lambda run: under_way.outcomes[run.number].best_value)
        outcome = under_way.outcomes[best.number]
        if outcome.state is None:
            return
        folder = Path(self._tuner.get_trial_dir(under_way.trial.trial_id))
        model = outcome.model
        if model is None:
            model = self._built(under_way.model(best.seed))
        if not model.built:  # its hypermodel's own `fit` has not looked at it
            return
        self._tuner.checkpoints.save(folder, model, outcome.state, outcome.signature)

    # ---- a tuner with a `run_trial` of its own ---------------------------------------------

    def _run_own_trial(self, trial: Any) -> None:
        """Let a user's own `run_trial` train, and judge by what it returns."""
        under_way = self._begin(trial)
        under_way.engine = "run_trial"
        self._under_way[trial.trial_id] = under_way
        try:
            outcomes = self._tuner.outcomes_of_own_trial(trial)
            judgement = self._judge(outcomes, make_runs(None, len(outcomes)))
        except keras_tuner.errors.FatalError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise disk_full(self._tuner.get_trial_dir(trial.trial_id)) from error
            self._fail(under_way, error)
            return
        record = self._record(under_way, outcomes)
        record.seconds = time.perf_counter() - under_way.started
        self._complete(trial, record, judgement)
        del self._under_way[trial.trial_id]
