"""Trains runs of one structure together, as the members of one stacked model."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalError

from kregs.logs import numbers_of
from kregs.population.callbacks import check_callbacks, look_at_models
from kregs.population.capacity import members_at_once
from kregs.population.frozen import FrozenPart, frozen_part
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.registry import NotStackable
from kregs.population.rows import Feed
from kregs.population.signature import Member, read_member
from kregs.population.training import Training
from kregs.search.failures import reason_of
from kregs.search.keras_tuner_internals import callbacks_of_run, tensorboard_folder
from kregs.search.objective import scorer_of
from kregs.search.own_fit import OwnFit, by_name, has_stock_fit
from kregs.search.replay import LoggedRates, acts_on_training
from kregs.search.runs import Halves, RunJob, RunOutcome, RunState, histories_of
from kregs.search.searched_fit import fit_arguments
from kregs.search.tensorboard import is_plain_tensorboard, write_tensorboard
from kregs.search.trainers import ListenerError, TrainerSettings
from kregs.search.trainers.csv_files import CsvFiles
from kregs.search.trainers.feeds import ROWS, Feeds, rows_of, same_rows, with_defaults
from kregs.validation import check_integer

# how many structures stay compiled: more only matter to a search that comes back to them, and each
# holds the weights, gradients and best weights of all its members
_COMPILED = 3
# what TensorFlow or Keras may raise when a program is traced or run first
_REFUSALS = (NotStackable, tf.errors.OpError, TypeError, ValueError)


class StackedTrainer:
    """Groups jobs by the structure of their models and by what they ask of `fit`.

    Each group is trained as one population: one batch size, one order of rows, the same data;
    epochs and callbacks may differ.

    Args:
        settings: about the search.
        args, kwargs: of `fit`.
        folds: whether jobs have rows of their own.
        halves: without folds, two halves of the validation rows: a history on each is kept.
        max_members: how many train at once. Default: what memory and cache suggest.
        devices: names of the devices that share the members out. Default: all GPUs.

    Raises:
        NotStackable: the hypermodel, the data, the callbacks or the arguments of `fit` are such
            that no job can be stacked.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        folds: bool = False,
        halves: Halves | None = None,
        max_members: int | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:
        self._settings = settings
        if settings.tuner.distribution_strategy is not None:
            raise NotStackable("a distribution strategy is used")
        self._args, self._kwargs = tuple(args), {"verbose": 0, **kwargs}
        self._csv_files = CsvFiles()
        self._verbose = kwargs.get("verbose", 0)  # as `FitTrainer` has it
        self._max_members, self._devices = max_members, devices
        self._halves = halves
        self._feeds = Feeds((args, kwargs), folds=folds, halves=halves or ())
        self.row_shape: tuple[int, ...] | None = None
        hypermodel = settings.tuner.hypermodel
        self._own_fit: OwnFit | None = None
        self._fit: dict[str, Any] = {}
        if has_stock_fit(hypermodel):  # it asks the same in all trials
            self._fit = with_defaults(by_name(self._args, self._kwargs))
            check_callbacks(_callbacks_of(self._fit)[0])
            self.row_shape = self._feeds.get(self._fit)[1].data.row_shape
        else:
            self._own_fit = OwnFit(hypermodel)
        # the last ones whose programs are compiled, the latest at the end
        self._trainings: list[tuple[tuple, Training]] = []
        self._said: set[str] = set()  # digests of frozen parts
        self._frozen_parts: weakref.WeakKeyDictionary[keras.Model, FrozenPart | None]
        self._frozen_parts = weakref.WeakKeyDictionary()
        self._last_read: Member | None = None  # the folds of a trial share it
        # jobs of which it is known what trains with them: models of their structure on their feed
        self._waiting: dict[tuple, list[tuple[RunJob, Job]]] = {}
        self._feed_of: dict[tuple, Feed] = {}
        self._tensorboards: weakref.WeakKeyDictionary[RunJob, list[Any]]
        self._tensorboards = weakref.WeakKeyDictionary()

    def run(self, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """See `Trainer.run`."""
        while True:
            yield from self._sort(jobs)
            if not self._waiting:
                return
            yield from self._train(self._next_group(), jobs)

    def _next_group(self) -> tuple:
        """Return the largest group, since later results may still add to the others.

        Where time is limited it is the one that waits longest: the first trial may be the one that
        somebody knows to be good, and in the end there may be no time for the others.
        """
        if self._settings.tuner.time_left is not None:
            return next(iter(self._waiting))
        return max(self._waiting, key=lambda group: len(self._waiting[group]))

    # ---- grouping --------------------------------------------------------------------------

    def _sort(self, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """Put jobs with those of their structure; yield those that fail or cannot be stacked."""
        while jobs:
            job = jobs.popleft()
            if job.cancelled:
                continue
            try:
                member_job = self._member_job(job)
            except FatalError:
                raise
            except NotStackable as error:
                yield RunOutcome(job=job, refusal=str(error))
            except Exception as error:
                yield RunOutcome(job=job, error=error)
            else:
                group, ready = member_job
                self._waiting.setdefault(group, []).append((job, ready))

    def _asked(self, job: RunJob, model: keras.Model) -> dict[str, Any]:
        """Return the arguments of `fit` of one run by name, a fold's with all rows."""
        hp = job.trial.hyperparameters
        searched = fit_arguments(self._settings.tuner.hypermodel, hp)
        if self._own_fit is None:
            epochs = {"epochs": job.epochs, "initial_epoch": job.first_epoch}
            return {**self._fit, **searched, **epochs}
        given = rows_of(job.run, {**self._kwargs, **searched})
        if "tuner/epochs" in hp.values:  # Hyperband
            given |= {"epochs": job.epochs, "initial_epoch": job.first_epoch}
        given["callbacks"] = copy.deepcopy(list(given.get("callbacks") or []))
        keras.utils.set_random_seed(job.seed)  # as if it were called to train
        asked = with_defaults(self._own_fit.arguments(hp, model, self._args, given))
        if job.run.split is None:
            return asked
        if not same_rows(asked, given):
            raise NotStackable("the hypermodel's own `fit` changes the rows of a fold")
        return {**asked, **{name: self._kwargs.get(name) for name in ROWS}}

    def _member_job(self, job: RunJob) -> tuple[tuple, Job]:
        """Return what the job trains with, models of one structure on one feed, and its member."""
        several = self._own_fit is not None and job.run.split is not None
        model = job.build() if several else job.shared_model()  # `fit` may compile it
        asked = self._asked(job, model)
        executed = getattr(model, "steps_per_execution", 1)
        key, feed = self._feeds.get(asked, job.run.split, per_execution=executed)
        self.row_shape = feed.data.row_shape
        callbacks, tensorboards = _callbacks_of(asked)
        check_callbacks(callbacks)
        callbacks = callbacks_of_run(self._settings.tuner, callbacks, job.trial, job.run.number)
        if not model.built:
            if self.row_shape is None:
                raise NotStackable("the model is not built, and there are several inputs")
            try:
                model.build((None, *self.row_shape))
            except FatalError:
                raise
            except Exception as error:
                raise NotStackable(
                    f"the model cannot be built from the shape of a row: {reason_of(error)}"
                ) from error
        if look_at_models(callbacks):  # which want the whole model
            member = self._read(model)
        else:
            member, key, feed = self._without_frozen_part(model, key, feed)
        start = job.start or RunState(None)
        if start.optimizer is not None:
            raise NotStackable("what it goes on from was trained by `fit`")
        split = job.run.split
        if asked["validation_freq"] != 1:
            self._check_frequency(asked["validation_freq"])
        for name, stock in (("validation_freq", 1), ("validation_steps", None)):
            if asked[name] != stock and (self._halves or job.run.halves is not None):
                raise NotStackable(f"`{name}` is given, and trials are judged half by half")
        job.epochs = check_integer("epochs", asked["epochs"], minimum=1)
        job.first_epoch = check_integer("initial_epoch", asked["initial_epoch"], minimum=0)
        if job.first_epoch >= job.epochs:
            raise NotStackable("`initial_epoch` is not below `epochs`: there is no epoch")
        group = member.signature, key
        self._feed_of[group] = feed
        self._tensorboards[job] = tensorboards
        self._csv_files.set_aside(callbacks)
        if any(map(acts_on_training, callbacks)):
            callbacks.append(LoggedRates())
        return group, Job(
            member=member,
            weights=_of_member(member, start.weights),
            state=start.population,
            learning_rate=start.learning_rate,
            counters=start.counters,
            keep_end=job.may_go_on,
            seed=job.seed,
            callbacks=callbacks,
            own_model=functools.partial(self._own_model, job),
            verbose=self._verbose,
            epochs=job.epochs,
            first_epoch=job.first_epoch,
            validation_freq=asked["validation_freq"],
            train_rows=None if split is None else split.train_places,
            validation_rows=None if split is None else split.validation_places,
            validation_parts=()
            if split is None
            else [split.validation_places[half] for half in job.run.halves or ()],
            name=job,
        )

    def _without_frozen_part(
        self, model: keras.Model, key: tuple, feed: Feed
    ) -> tuple[Member, tuple, Feed]:
        """Return what of a model trains, and the rows as the frozen part before it sees them."""
        if model not in self._frozen_parts:  # the folds of a trial share its model
            self._frozen_parts[model] = frozen_part(model) if self._feeds.has_arrays(feed) else None
        parts = self._frozen_parts[model]
        computed = None if parts is None else self._feeds.after(key, feed, parts)
        if parts is None or computed is None:
            return self._read(model), key, feed
        if parts.digest not in self._said:
            self._said.add(parts.digest)
            count = sum(math.prod(v.shape) for v in parts.trunk.weights)
            self._settings.tuner.progress.note(
                f"the frozen part of the models, {count:,} weights, is computed once for all trials"
            )
        member = dataclasses.replace(read_member(parts.head), whole=model)
        return member, (key, parts.digest), computed

    def _read(self, model: keras.Model) -> Member:
        if self._own_fit is not None:  # which may have compiled it anew
            return read_member(model)
        if self._last_read is None or self._last_read.model is not model:
            self._last_read = read_member(model)
        return self._last_read

    @staticmethod
    def _check_frequency(frequency: Any) -> None:
        """Raise `NotStackable` unless a `validation_freq` is one that populations have."""
        if not (isinstance(frequency, list) or (isinstance(frequency, int) and frequency > 0)):
            raise NotStackable(f"`validation_freq` is {frequency!r}, no list and no integer > 0")

    def _own_model(self, job: RunJob) -> keras.Model:
        """Return a model of the run's own: the shared one is not to be changed."""
        model = job.build()
        if self._own_fit is not None:
            self._asked(job, model)  # it may compile the model
        if not model.built and self.row_shape is not None:
            model.build((None, *self.row_shape))
        return model

    # ---- training --------------------------------------------------------------------------

    def _train(self, group: tuple, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """Train a group; jobs of it that are added meanwhile join it."""
        pairs = [pair for pair in self._waiting.pop(group) if not pair[0].cancelled]
        if not pairs:
            return
        under_way = {id(job): job for job, _ in pairs}
        try:
            training = self._training(group, [member_job for _, member_job in pairs])
            queue = collections.deque(member_job for _, member_job in pairs)
            with contextlib.closing(training.run(queue)) as ended:
                for member_job in ended:
                    under_way.pop(id(member_job.name), None)  # it may be of an earlier run
                    yield self._outcome(member_job)
                    yield from self._sort(jobs)
                    for waiting in [j for j in queue if j.name.cancelled]:
                        queue.remove(waiting)
                        under_way.pop(id(waiting.name), None)
                    for job, new in self._waiting.pop(group, []):
                        if training.layout.fits(new.member):
                            under_way[id(job)] = job
                            queue.append(new)
                        else:
                            self._waiting.setdefault(group, []).append((job, new))
        except FatalError:
            raise
        except ListenerError as error:
            raise error.reason from None
        except _REFUSALS as error:
            # found out only when it was traced or run: nothing that is done is lost
            for job in under_way.values():
                yield RunOutcome(job=job, refusal=reason_of(error))

    def _training(self, group: tuple, jobs: list[Job]) -> Training:
        """Return a training that the jobs fit, compiled already if one of this structure was."""
        for place, (trained, training) in enumerate(self._trainings):
            if trained == group and all(training.layout.fits(job.member) for job in jobs):
                self._trainings.append(self._trainings.pop(place))
                return training
        settings, feed = self._settings, self._feed_of[group]
        scorer, scores = scorer_of(settings.objective), {}
        if scorer is not None:
            scores[scorer.logged] = scorer.of_model(jobs[0].member.whole_model)
        layout = Layout([job.member for job in jobs])
        training = Training(
            layout,
            members_at_once(layout, feed.step_rows, self._max_members),
            feed,
            objective=settings.value,
            keep_last=settings.score_at == "last_epoch",
            cross_fit=settings.cross_fits,
            devices=self._devices,
            scores=scores,
            on_epoch=lambda member_job: settings.tell(
                member_job.name,
                member_job.epoch,
                numbers_of(member_job.logs),
                _Member(training, member_job),
            ),
        )
        self._trainings.append((group, training))
        while len(self._trainings) > _COMPILED:
            self._trainings.pop(0)[1].forget()
        return training

    def _outcome(self, member_job: Job) -> RunOutcome:
        job: RunJob = member_job.name
        self._csv_files.put_back(member_job.callbacks)
        error = member_job.error
        if isinstance(error, FatalError):
            raise error
        if isinstance(error, NotStackable):
            return RunOutcome(job=job, refusal=str(error))
        if error is not None:
            return RunOutcome(job=job, error=error)
        logged_epochs = {
            part: epochs
            for name, epochs in member_job.logged_epochs.items()
            for part in numbers_of({name: member_job.history[name][-1]})
        }
        for callback in self._tensorboards.get(job, ()):
            folder = tensorboard_folder(
                self._settings.tuner, callback.log_dir, job.trial_id, job.run.number
            )
            write_tensorboard(
                callback,
                folder,
                job.trial,
                histories_of(member_job.history),
                logged_epochs,
                member_job.first_epoch,
            )
        best = member_job.best_epoch
        return RunOutcome(
            history=histories_of(member_job.history),
            logged_epochs=logged_epochs,
            best_epoch=best - member_job.first_epoch if best >= 0 else -1,
            best_value=member_job.best_value,
            state=RunState(_of_model(member_job.member, member_job.best_weights)),
            last=self._last_state(member_job) if job.may_go_on else None,
            seconds=member_job.seconds,
            failure=member_job.failure,
            halves=[histories_of(part) for part in member_job.part_histories],
            crossed=numbers_of(member_job.crossed_logs),
            job=job,
            model=member_job.member.whole_model,
            signature=member_job.member.signature,
            member=None if member_job.member.whole is not None else member_job.member,
        )

    @staticmethod
    def _last_state(member_job: Job) -> RunState:
        state = member_job.end_state
        return RunState(
            _of_model(member_job.member, member_job.end_weights),
            population=state,
            learning_rate=None if state is None else state.learning_rate,
            counters=member_job.end_counters,
        )


@dataclasses.dataclass(frozen=True)
class _Member:
    """See `RunControl`: a run that is a member of a population."""

    training: Training
    job: Job

    def stop(self) -> None:
        self.job.stop_training = True

    def state(self) -> RunState:
        weights = self.training.weights_of(self.job)
        return RunState(
            _of_model(self.job.member, weights), population=self.training.state_of(self.job)
        )

    def restore(self, state: RunState) -> None:
        weights = _of_member(self.job.member, state.weights)
        self.training.replace(self.job, weights=weights, state=state.population)

    def change(self, model: keras.Model) -> None:
        member = read_member(model)
        parts = None if self.job.member.whole is None else frozen_part(model)
        if parts is not None:
            member = dataclasses.replace(read_member(parts.head), whole=model)
        self.training.replace(self.job, member=member)


def _of_member(member: Member, weights: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Return weights in the order of the model's in that of `member.weights`."""
    if weights is None:
        return None
    by_variable = dict(zip(map(id, member.whole_model.weights), weights, strict=True))
    return [by_variable[id(variable)] for variable in member.weights]


def _of_model(member: Member, weights: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Return weights in the order of `member.weights` in that of the model's."""
    if weights is None:
        return None
    by_variable = dict(zip(map(id, member.weights), weights, strict=True))
    return [  # those of a frozen part are the model's own
        by_variable[id(v)] if id(v) in by_variable else v.numpy()
        for v in member.whole_model.weights
    ]


def _callbacks_of(asked: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the callbacks that run in the training, and those that write what it has logged."""
    callbacks = list(asked["callbacks"] or [])
    tensorboards = [callback for callback in callbacks if is_plain_tensorboard(callback)]
    return [callback for callback in callbacks if callback not in tensorboards], tensorboards
