"""`Job`: one member to be trained, and what came of it; `Slot`: a job while it trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
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
        name: tells jobs apart, for who hands them in.
        state: of its optimizer, if it goes on from an earlier job.

    Attributes:
        epoch: how many epochs are behind it, `first_epoch` included.
        history: metric name to a list with one number an epoch.
        part_histories: the same on each part of the validation rows, see `Feed`.
        part_bests: for each part the best objective on it, and what the other part gave in that
            epoch, see `Training`'s `cross_fit`.
        crossed_logs: the metrics over both parts, each as it was in the epoch that is best on the
            other; empty if there are none.
        best_epoch, best_value: the epoch, counted from 0, and value of the best objective; -1 and
            infinity if there is none.
        best_weights: the weights that it ends with, see `Training`.
        end_state: of its optimizer at the end, if the training keeps it.
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
    name: Any = None
    state: OptimizerState | None = None

    epoch: int = dataclasses.field(init=False)
    history: dict[str, list[float]] = dataclasses.field(init=False)
    part_histories: list[dict[str, list[float]]] = dataclasses.field(init=False)
    part_bests: list[tuple[float, Any]] = dataclasses.field(init=False)
    crossed_logs: dict[str, float] = dataclasses.field(init=False)
    best_epoch: int = dataclasses.field(init=False)
    best_value: float = dataclasses.field(init=False)
    best_weights: list[np.ndarray] | None = dataclasses.field(init=False)
    end_state: OptimizerState | None = dataclasses.field(init=False)
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
        self.best_weights = self.end_state = None
        self.stopped_epoch = None
        self.failure = None
        self.seconds = 0.0
        self.stop_training = False

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
    """What a callback sees as `model`: one member of the population.

    Keras's own callbacks run on it, so that stopping and learning-rate rules are Keras's. The
    weights never leave the device: `get_weights` returns a token for "as they are now".

    Args:
        template: the model whose metrics all members have.
        member: the member's model, whose learning rate is its own.
    """

    def __init__(self, template: keras.Model, member: keras.Model) -> None:
        self.stop_training = False
        self.optimizer = _FacadeOptimizer(member.optimizer)
        self.metrics = template.metrics
        self.keep_requested = False
        self.restored = False

    def get_weights(self) -> str:
        self.keep_requested = True
        return "kept"

    def set_weights(self, token: str) -> None:
        self.restored = True


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
    def begin(cls, job: Job, template: keras.Model, steps: int) -> Slot:
        """Begin a job of so many steps an epoch: its callbacks are told."""
        job.reset()
        slot = cls(job, job.member, MemberModel(template, job.member.model))
        slot.tabulate(0 if job.state is None else job.state.steps, steps)
        for callback in job.callbacks:
            callback.set_model(slot.model)
            callback.set_params({"epochs": job.epochs, "verbose": 0})
            callback.on_train_begin()
        return slot

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
