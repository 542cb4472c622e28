"""Trains runs of one structure together, as the members of one stacked model."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalError

from kregs.logs import numbers_of
from kregs.population.callbacks import check_callbacks
from kregs.population.capacity import members_at_once
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.registry import NotStackable
from kregs.population.rows import Feed, Rows, Stream, as_rows, as_source, as_validation, is_dataset
from kregs.population.signature import Member, read_member
from kregs.population.training import Training
from kregs.search.failures import reason_of
from kregs.search.keras_tuner_internals import callbacks_of_run, tensorboard_folder
from kregs.search.replay import LoggedRates, acts_on_training
from kregs.search.runs import (
    Halves,
    RunJob,
    RunOutcome,
    RunState,
    histories_of,
)
from kregs.search.tensorboard import is_plain_tensorboard, write_tensorboard
from kregs.search.trainers import ListenerError, TrainerSettings
from kregs.search.trainers.csv_files import CsvFiles

_FIT_ARGUMENTS = (
    "x", "y", "validation_data", "validation_split", "batch_size", "epochs", "callbacks",
    "class_weight", "sample_weight", "shuffle", "verbose", "validation_batch_size",
)  # fmt: skip
# how many structures stay compiled: more only matter to a search that comes back to them, and each
# holds the weights, gradients and best weights of all its members
_COMPILED = 3
# what TensorFlow or Keras may raise when a program is traced or run first
_REFUSALS = (NotStackable, tf.errors.OpError, TypeError, ValueError)


class StackedTrainer:
    """Groups jobs by the structure of their models and trains each group as one population.

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
        fit = _bind_fit(args, kwargs)
        _check_stackable(settings.tuner, fit)
        callbacks = list(fit["callbacks"] or [])
        self._tensorboards = [c for c in callbacks if is_plain_tensorboard(c)]
        self._callbacks = [c for c in callbacks if not is_plain_tensorboard(c)]
        check_callbacks(self._callbacks)
        self._csv_files = CsvFiles()
        self._verbose = kwargs.get("verbose", 0)  # as `FitTrainer` has it
        self._max_members, self._devices = max_members, devices
        data, validation = _rows(fit, folds)
        self.row_shape = data.row_shape
        self._feed = Feed(
            data,
            validation,
            fit["batch_size"] or 32,
            fit["validation_batch_size"],
            halves or (),
            bool(fit["shuffle"]),
        )
        # the last ones whose programs are compiled, the latest at the end
        self._trainings: list[tuple[tuple, Training]] = []
        # jobs whose structure is known, by it
        self._waiting: dict[tuple, list[tuple[RunJob, Job]]] = {}

    def run(self, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """See `Trainer.run`."""
        while True:
            yield from self._sort(jobs)
            if not self._waiting:
                return
            # the largest group first: later results may still add to the others
            signature = max(self._waiting, key=lambda s: len(self._waiting[s]))
            yield from self._train(signature, jobs)

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
                waiting = self._waiting.setdefault(member_job.member.signature, [])
                waiting.append((job, member_job))

    def _member_job(self, job: RunJob) -> Job:
        model = job.shared_model()
        if not model.built:
            try:
                model.build((None, *self.row_shape))
            except FatalError:
                raise
            except Exception as error:
                raise NotStackable(
                    f"the model cannot be built from the shape of a row: {reason_of(error)}"
                ) from error
        member = read_member(model)
        start = job.start or RunState(None)
        if start.optimizer is not None:
            raise NotStackable("what it goes on from was trained by `fit`")
        split = job.run.split
        callbacks = callbacks_of_run(
            self._settings.tuner, self._callbacks, job.trial, job.run.number
        )
        self._csv_files.set_aside(callbacks)
        if any(map(acts_on_training, callbacks)):
            callbacks.append(LoggedRates())
        return Job(
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
            train_rows=None if split is None else split.train_places,
            validation_rows=None if split is None else split.validation_places,
            validation_parts=()
            if split is None
            else [split.validation_places[half] for half in job.run.halves or ()],
            name=job,
        )

    def _own_model(self, job: RunJob) -> keras.Model:
        """Return a model of the run's own: the shared one is not to be changed."""
        model = job.build()
        if not model.built:
            model.build((None, *self.row_shape))
        return model

    # ---- training --------------------------------------------------------------------------

    def _train(self, signature: tuple, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """Train a group; jobs of its structure that are added meanwhile join it."""
        group = [pair for pair in self._waiting.pop(signature) if not pair[0].cancelled]
        if not group:
            return
        under_way = {id(job): job for job, _ in group}
        try:
            training = self._training(signature, [member_job for _, member_job in group])
            queue = collections.deque(member_job for _, member_job in group)
            with contextlib.closing(training.run(queue)) as ended:
                for member_job in ended:
                    under_way.pop(id(member_job.name), None)  # it may be of an earlier run
                    yield self._outcome(member_job)
                    yield from self._sort(jobs)
                    for waiting in [j for j in queue if j.name.cancelled]:
                        queue.remove(waiting)
                        under_way.pop(id(waiting.name), None)
                    for job, new in self._waiting.pop(signature, []):
                        if training.layout.fits(new.member):
                            under_way[id(job)] = job
                            queue.append(new)
                        else:
                            self._waiting.setdefault(signature, []).append((job, new))
        except FatalError:
            raise
        except ListenerError as error:
            raise error.reason from None
        except _REFUSALS as error:
            # found out only when it was traced or run: nothing that is done is lost
            for job in under_way.values():
                yield RunOutcome(job=job, refusal=reason_of(error))

    def _training(self, signature: tuple, jobs: list[Job]) -> Training:
        """Return a training that the jobs fit, compiled already if one of this structure was."""
        for place, (trained, training) in enumerate(self._trainings):
            if trained == signature and all(training.layout.fits(job.member) for job in jobs):
                self._trainings.append(self._trainings.pop(place))
                return training
        settings = self._settings
        layout = Layout([job.member for job in jobs])
        training = Training(
            layout,
            members_at_once(layout, self._feed.step_rows, self._max_members),
            self._feed,
            objective=settings.value,
            keep_last=settings.score_at == "last_epoch",
            cross_fit=settings.cross_fits,
            devices=self._devices,
            on_epoch=lambda member_job: settings.tell(
                member_job.name,
                member_job.epoch,
                numbers_of(member_job.logs),
                _Member(training, member_job),
            ),
        )
        self._trainings.append((signature, training))
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
        for callback in self._tensorboards:
            folder = tensorboard_folder(
                self._settings.tuner, callback.log_dir, job.trial_id, job.run.number
            )
            write_tensorboard(callback, folder, job.trial, histories_of(member_job.history))
        best = member_job.best_epoch
        return RunOutcome(
            history=histories_of(member_job.history),
            best_epoch=best - member_job.first_epoch if best >= 0 else -1,
            best_value=member_job.best_value,
            state=RunState(_of_model(member_job.member, member_job.best_weights)),
            last=self._last_state(member_job) if job.may_go_on else None,
            seconds=member_job.seconds,
            failure=member_job.failure,
            halves=[histories_of(part) for part in member_job.part_histories],
            crossed=numbers_of(member_job.crossed_logs),
            job=job,
            model=member_job.member.model,
            signature=member_job.member.signature,
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
        self.training.replace(self.job, member=read_member(model))


def _of_member(member: Member, weights: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Return weights in the order of `model.weights` in that of `member.weights`."""
    return _reordered(weights, member.model.weights, member.weights)


def _of_model(member: Member, weights: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Return weights in the order of `member.weights` in that of `model.weights`."""
    return _reordered(weights, member.weights, member.model.weights)


def _reordered(
    weights: list[np.ndarray] | None, variables: Sequence[Any], wanted: Sequence[Any]
) -> list[np.ndarray] | None:
    if weights is None:
        return None
    by_variable = {id(v): weight for v, weight in zip(variables, weights, strict=True)}
    return [by_variable[id(variable)] for variable in wanted]


def _bind_fit(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` by name, with Keras's defaults."""
    parameters = inspect.signature(keras.Model.fit)
    bound = dict(parameters.bind(None, *args, **kwargs).arguments)
    bound.pop("self", None)
    if set(bound) - set(_FIT_ARGUMENTS):
        raise NotStackable("`search` is given arguments of `fit` that populations have not")
    defaults = {
        name: parameter.default
        for name, parameter in parameters.parameters.items()
        if name in _FIT_ARGUMENTS
    }
    return {**defaults, **bound}


def _check_stackable(tuner: Any, fit: Mapping[str, Any]) -> None:
    """Raise `NotStackable` if nothing that is given could be trained together."""
    if type(tuner.hypermodel).fit is not keras_tuner.HyperModel.fit:
        raise NotStackable("the hypermodel has a `fit` of its own")
    if tuner.distribution_strategy is not None:
        raise NotStackable("a distribution strategy is used")
    x, validation = fit["x"], fit["validation_data"]
    parts = [] if is_dataset(x) else [x, fit["y"]]
    if isinstance(validation, (tuple, list)):
        parts += validation[:2]
    elif validation is not None and not is_dataset(validation):
        kind = type(validation).__name__
        raise NotStackable(f"`validation_data` is a {kind}, no arrays and no dataset")
    for part in parts:
        # for Keras a list or a dictionary is several inputs
        if not (isinstance(part, (np.ndarray, tf.Tensor)) or hasattr(part, "__array__")):
            kind = type(part).__name__
            raise NotStackable(f"the data are a {kind}, no arrays and no dataset")


def _rows(fit: Mapping[str, Any], folds: bool) -> tuple[Rows | Stream, Rows | Stream | None]:
    """Return the training and the validation rows on the device, datasets as streams."""
    validation = fit["validation_data"]
    if is_dataset(fit["x"]):
        data = as_source(
            fit["x"],
            fit["y"],
            fit["sample_weight"],
            fit["class_weight"],
            batch_order=np.random.default_rng(0) if fit["shuffle"] else None,
        )
        return data, None if validation is None else as_validation(validation)
    x, y, weight = np.asarray(fit["x"]), np.asarray(fit["y"]), fit["sample_weight"]
    if validation is None and fit["validation_split"]:
        # as Keras: the last rows
        cut = int(len(x) * (1.0 - fit["validation_split"]))
        weight = None if weight is None else np.asarray(weight)
        validation = (x[cut:], y[cut:], *(() if weight is None else (weight[cut:],)))
        x, y = x[:cut], y[:cut]
        weight = None if weight is None else weight[:cut]
    rows = as_rows(x, y, weight, fit["class_weight"])
    if folds:
        # every run takes its own of all rows, by number; class weights are for training
        return rows, rows if fit["class_weight"] is None else dataclasses.replace(rows, weight=None)
    return rows, None if validation is None else as_validation(validation)
