"""`Job`: one member to be trained, and what came of it; `Slot`: a job while it trains."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kregs.population.keras_internals import learning_rate_of
from kregs.population.optimizers import OptimizerState, schedule_table
from kregs.population.registry import NotStackable
from kregs.population.signature import Member

# these look at one member's logs, weights and learning rate, which a member has
STACKED_CALLBACKS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.TerminateOnNaN,
)


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Check that callbacks can serve one member of a population.

    Raises:
        TypeError: something is no keras callback.
        NotStackable: a callback wants a whole model; the message names it.
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"`callbacks` must hold keras callbacks. Received: {callback!r}")
        if not isinstance(callback, STACKED_CALLBACKS):
            known = ", ".join(c.__name__ for c in STACKED_CALLBACKS)
            raise NotStackable(
                f"the callback {type(callback).__name__} wants one model (populations run {known})"
            )


# Keras's own facts about a training; it gives `min_delta` its sign in the first epoch of each
_NO_COUNTERS = ("params", "model", "min_delta")


def counters_of(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the numbers that a callback counts by: how long it has waited, its best value.

    `on_train_begin` sets them back; a training that goes on where an earlier one ended needs them
    (`set_counters`). Numbers and lists and dictionaries of them, which JSON can hold.

    Example:

    >>> stopping = keras.callbacks.EarlyStopping(patience=4)
    >>> stopping.on_train_begin()
    >>> stopping.wait = 3
    >>> counters = counters_of(stopping)
    >>> stopping.on_train_begin()
    >>> set_counters(stopping, counters)
    >>> stopping.wait, stopping.patience
    (3, 4)
    """
    if isinstance(callback, keras.callbacks.SwapEMAWeights):
        return {}  # it knows where the averages are, and a training begins with them swapped back
    return {
        name: _plain(value)
        for name, value in vars(callback).items()
        if name.lstrip("_") not in _NO_COUNTERS and _counts(value)
    }


def set_counters(callback: keras.callbacks.Callback, counters: Mapping[str, Any]) -> None:
    """Let a callback count on from where another one has come, see `counters_of`."""
    for name, value in counters.items():
        setattr(callback, name, copy.deepcopy(value))


def _counts(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _counts(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_counts, value))
    return isinstance(value, (bool, int, float, np.number, np.bool_))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


@dataclasses.dataclass(eq=False)
class Job:
    """A member to be trained, and what came of it.

    Args:
        member: the read model.
        weights: its initial weights, in the order of `member.weights`; `None`: those of its model.
        seed: of its batch order and noise.
        callbacks: its own copies of Keras callbacks, see `check_callbacks`.
        epochs, first_epoch: trains from `first_epoch` up to `epochs`, as `fit` does.
        train_rows, validation_rows: numbers of the rows that are its own; `None` for all.
        validation_parts: numbers of rows that make up its own `validation_rows`: it gets a history
            on each part, too. All jobs that train together have as many parts.
        name: tells jobs apart, for who hands them in.
        state: of its optimizer, if it goes on from an earlier job; `None`: that of its model's.
        epochs_before: how many epochs it has behind it that `first_epoch` does not count, as in a
            second `fit`: the order of rows goes on after them.
        learning_rate: that it goes on with; `None`: that of its model.
        counters: of each callback the numbers that it goes on with, see `counters_of`.
        validation_freq: it is validated every so many epochs, or after those listed, counted from
            1, as in `fit`; in the others its history has NaN. With `validation_parts` it is 1.
        keep_end: it ends with all that a job that goes on from it needs: its last weights, the
            state of its optimizer, its learning rate and its callbacks' counters.

    Attributes:
        epoch: how many epochs are behind it, `first_epoch` included.
        history: metric name to a list with one number an epoch.
        part_histories: the same on each part of the validation rows: its own `validation_parts`, or
            those of `Feed`.
        part_bests: for each part the best objective on it, and what the other part gave in that
            epoch, see `Training`'s `cross_fit`.
        crossed_logs: the metrics over both parts, each as it was in the epoch that is best on the
            other; empty if there are none.
        best_epoch, best_value: the epoch, counted from 0, and value of the best objective; -1 and
            infinity if there is none.
        best_weights: the weights that it ends with, see `Training`.
        end_weights, end_state, end_counters: after its last epoch, if it is to
            keep them; the learning rate is `None` with a schedule.
        stopped_epoch: its last epoch, counted from 0.
        failure: why it ended, if its loss was no finite number.
        seconds: its share of the time that training took.
        stop_training: set it to True in `Training`'s `on_epoch`, and the job ends with this epoch,
            as if a callback had stopped it.
    """

    member: Member
    weights: list[np.ndarray] | None
    seed: int
    callbacks: list[keras.callbacks.Callback]
    epochs: int
    first_epoch: int = 0
    train_rows: np.ndarray | None = None
    validation_rows: np.ndarray | None = None
    validation_parts: Sequence[np.ndarray] = ()
    name: Any = None
    state: OptimizerState | None = None
    epochs_before: int = 0
    learning_rate: float | None = None
    counters: Sequence[Mapping[str, Any]] = ()
    keep_end: bool = False
    validation_freq: int | Sequence[int] = 1

    epoch: int = dataclasses.field(init=False)
    history: dict[str, list[float]] = dataclasses.field(init=False)
    part_histories: list[dict[str, list[float]]] = dataclasses.field(init=False)
    part_bests: list[tuple[float, Any]] = dataclasses.field(init=False)
    crossed_logs: dict[str, float] = dataclasses.field(init=False)
    best_epoch: int = dataclasses.field(init=False)
    best_value: float = dataclasses.field(init=False)
    best_weights: list[np.ndarray] | None = dataclasses.field(init=False)
    end_weights: list[np.ndarray] | None = dataclasses.field(init=False)
    end_state: OptimizerState | None = dataclasses.field(init=False)
    end_counters: list[dict[str, Any]] = dataclasses.field(init=False)
    stopped_epoch: int | None = dataclasses.field(init=False)
    failure: str | None = dataclasses.field(init=False)
    seconds: float = dataclasses.field(init=False)
    stop_training: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all that came of it, so that it can be trained from its beginning."""
        self.epoch = self.first_epoch
        self.history = {}
        self.part_histories = []
        self.part_bests = [(math.inf, None), (math.inf, None)]
        self.crossed_logs = {}
        self.best_epoch, self.best_value = -1, math.inf
        self.best_weights = self.end_weights = self.end_state = None
        self.end_counters = []
        self.stopped_epoch = None
        self.failure = None
        self.seconds = 0.0
        self.stop_training = False

    @property
    def validates(self) -> bool:
        """Whether it is validated after the epoch that it is in."""
        freq, number = self.validation_freq, self.epoch + 1
        return number % freq == 0 if isinstance(freq, int) else number in freq

    def rows_of(self, part: int | None) -> np.ndarray | None:
        """The numbers of its own validation rows, or those of a part of them."""
        return self.validation_rows if part is None else self.validation_parts[part]

    @property
    def logs(self) -> dict[str, float]:
        """What its last epoch logged."""
        return {name: values[-1] for name, values in self.history.items()}

    def log(self, logs: dict[str, float], by_part: Sequence[dict[str, float]]) -> None:
        """Add an epoch's logs to its histories."""
        if by_part and not self.part_histories:
            self.part_histories = [{} for _ in by_part]
        pairs = zip((self.history, *self.part_histories), (logs, *by_part), strict=True)
        for history, values in pairs:
            for name, value in values.items():
                history.setdefault(name, []).append(value)


class _FacadeOptimizer:
    """What a callback sees as `model.optimizer`: one member's learning rate."""

    def __init__(self, optimizer: Any) -> None:
        self._given = learning_rate_of(optimizer)
        self.constant: float | None = None  # of a schedule
        if not isinstance(self._given, keras.optimizers.schedules.LearningRateSchedule):
            self.constant = float(keras.ops.convert_to_numpy(self._given))

    @property
    def learning_rate(self) -> Any:
        if self.constant is None:
            return self._given
        # float32 as in the optimizer, so that callbacks compute the same next value
        return np.float32(self.constant) if keras.config.floatx() != "float64" else self.constant

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self.constant is None:
            raise TypeError(
                "This optimizer was created with a learning-rate schedule, so its learning rate "
                "cannot be set by a callback."
            )
        self.constant = float(np.asarray(value, keras.config.floatx()))


class MemberModel:
    """What callbacks may see and change of one member.

    Args:
        metrics: as `model.metrics` is in `fit`; all members have the same.
        member: the member's model, whose learning rate is its own.

    Attributes:
        stop_training: whether a callback has ended it.
        optimizer: with its learning rate.
        keep_requested: the names under which the weights after this epoch are to be kept.
        restored: the name of those that were restored last, `None` for the present ones.
    """

    def __init__(self, metrics: Sequence[Any], member: keras.Model) -> None:
        self.stop_training = False
        self.optimizer = _FacadeOptimizer(member.optimizer)
        self.metrics = metrics
        self.keep_requested: set[str] = set()
        self.restored: str | None = None


class CallbackModel:
    """What one callback sees as `model`: one member of the population.

    Keras's own callbacks run on it, so that stopping and learning-rate rules are Keras's. The
    weights never leave the device: `get_weights` returns the name that they are kept under, one a
    callback, since two that restore have each their own best epoch.

    Args:
        model: what all callbacks of the member share.
        number: of the callback, counted from 0.
    """

    def __init__(self, model: MemberModel, number: int) -> None:
        self._model = model
        self._name = f"callback {number}"

    @property
    def metrics(self) -> Sequence[Any]:
        return self._model.metrics

    @property
    def optimizer(self) -> Any:
        return self._model.optimizer

    @property
    def stop_training(self) -> bool:
        return self._model.stop_training

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._model.stop_training = value

    def get_weights(self) -> str:
        self._model.keep_requested.add(self._name)
        return self._name

    def set_weights(self, name: str) -> None:
        self._model.restored = name


@dataclasses.dataclass(eq=False)
class Slot:
    """A job under way.

    Args:
        job: what trains.
        member: whose numbers it trains with: the job's own, until a driver replaces it.
        model: what its callbacks see.
        rates: the learning rate of each step from epoch `rates_from` on; `None`: no schedule.
        rates_from: an epoch, counted from 0.
    """

    job: Job
    member: Member
    model: MemberModel
    rates: np.ndarray | None = None
    rates_from: int = 0

    @classmethod
    def begin(
        cls, job: Job, state: OptimizerState | None, metrics: Sequence[Any], steps: int
    ) -> Slot:
        """Begin a job of so many steps an epoch: its callbacks are told.

        Args:
            job: in its beginning.
            state: of its optimizer; `None` if it is fresh.
            metrics: see `MemberModel`.
            steps: of an epoch.
        """
        job.reset()
        slot = cls(job, job.member, MemberModel(metrics, job.member.model))
        slot.set_learning_rate(state)
        slot.tabulate(0 if state is None else state.steps, steps)
        for number, callback in enumerate(job.callbacks):
            callback.set_model(CallbackModel(slot.model, number))
            callback.set_params({"epochs": job.epochs, "verbose": 0})
            callback.on_train_begin()
        if job.learning_rate is not None and slot.model.optimizer.constant is not None:
            slot.model.optimizer.constant = job.learning_rate
        for callback, counters in zip(job.callbacks, job.counters, strict=False):
            set_counters(callback, counters)
        return slot

    def set_learning_rate(self, state: OptimizerState | None) -> None:
        """Go on with the learning rate of a state; a schedule's stays."""
        optimizer = self.model.optimizer
        if state is not None and None not in (state.learning_rate, optimizer.constant):
            optimizer.constant = state.learning_rate

    def adopt(self, member: Member) -> None:
        """Go on with another member's numbers and learning rate."""
        self.member = member
        self.model.optimizer = _FacadeOptimizer(member.model.optimizer)

    def tabulate(self, taken: int, steps: int) -> None:
        """Look up a schedule's learning rates from the present epoch on.

        Args:
            taken: how many steps the optimizer has taken.
            steps: of an epoch.
        """
        self.rates, self.rates_from = None, self.job.epoch
        if self.model.optimizer.constant is None:
            count = steps * (self.job.epochs - self.job.epoch)
            self.rates = schedule_table(self.member.model.optimizer, taken, count)

    @property
    def ended(self) -> bool:
        """Whether it has no further epoch."""
        job = self.job
        stopped = self.model.stop_training or job.stop_training or job.failure is not None
        return stopped or job.epoch >= job.epochs
