"""`Job`: one member to be trained, and what came of it; `Slot`: a job while it trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kregs.population.callbacks import (
    MemberCallbacks,
    MemberModel,
    OwnModel,
    SlotValues,
    set_counters,
)
from kregs.population.optimizers import OptimizerState, schedule_table
from kregs.population.registry import NotStackable
from kregs.population.signature import Member, read_member
from kregs.population.steps import EpochSteps


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
        own_model: returns a model like the member's with weights of its own, for callbacks to look
            at; `None`: the member's model is that.
        verbose: as callbacks find it among their `params`.
        name: tells jobs apart, for who hands them in.
        state: of its optimizer, if it goes on from an earlier job; `None`: that of its model's.
        epochs_before: how many epochs it has behind it that `first_epoch` does not count, as in a
            second `fit`: the order of rows goes on after them.
        learning_rate: that it goes on with; `None`: that of its model.
        counters: of each callback the numbers that it goes on with, see `counters_of`.
        validation_freq: it is validated every so many epochs, or after those listed, counted from
            1, as in `fit`; in the others its history has no entry. With `validation_parts` it is 1.
        keep_end: it ends with all that a job that goes on from it needs: its last weights, the
            state of its optimizer, its learning rate and its callbacks' counters.

    Attributes:
        epoch: how many epochs are behind it, `first_epoch` included.
        history: metric name to a list with one number an epoch in which it was logged.
        logs: what its last epoch logged.
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
        error: what a callback raised, which ended it.
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
    own_model: Callable[[], keras.Model] | None = None
    verbose: Any = 0
    name: Any = None
    state: OptimizerState | None = None
    epochs_before: int = 0
    learning_rate: float | None = None
    counters: Sequence[Mapping[str, Any]] = ()
    keep_end: bool = False
    validation_freq: int | Sequence[int] = 1

    epoch: int = dataclasses.field(init=False)
    history: dict[str, list[float]] = dataclasses.field(init=False)
    logs: dict[str, float] = dataclasses.field(init=False)
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
    error: Exception | None = dataclasses.field(init=False)
    seconds: float = dataclasses.field(init=False)
    stop_training: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all that came of it, so that it can be trained from its beginning."""
        self.epoch = self.first_epoch
        self.history, self.logs = {}, {}
        self._logged: dict[str, list[int]] = {}
        self.part_histories = []
        self.part_bests = [(math.inf, None), (math.inf, None)]
        self.crossed_logs = {}
        self.best_epoch, self.best_value = -1, math.inf
        self.best_weights = self.end_weights = self.end_state = None
        self.end_counters = []
        self.stopped_epoch = None
        self.failure = self.error = None
        self.seconds = 0.0
        self.stop_training = False

    @property
    def validates(self) -> bool:
        """Whether it is validated after the epoch that it is in."""
        freq, number = self.validation_freq, self.epoch + 1
        return number % freq == 0 if isinstance(freq, (int, np.integer)) else number in freq

    def rows_of(self, part: int | None) -> np.ndarray | None:
        """The numbers of its own validation rows, or those of a part of them."""
        return self.validation_rows if part is None else self.validation_parts[part]

    @property
    def trained(self) -> int:
        """How many epochs it has trained."""
        return self.epoch - self.first_epoch

    @property
    def logged_epochs(self) -> dict[str, list[int]]:
        """The epochs, counted from its first, of what was not logged in each of them."""
        longest = max(map(len, self._logged.values()), default=0)
        return {name: epochs for name, epochs in self._logged.items() if len(epochs) < longest}

    def log(self, logs: dict[str, float], by_part: Sequence[dict[str, float]]) -> None:
        """Add the logs of the epoch that has just ended to its histories."""
        self.logs = logs
        for name in logs:
            self._logged.setdefault(name, []).append(self.trained - 1)
        if by_part and not self.part_histories:
            self.part_histories = [{} for _ in by_part]
        pairs = zip((self.history, *self.part_histories), (logs, *by_part), strict=True)
        for history, values in pairs:
            for name, value in values.items():
                history.setdefault(name, []).append(value)


@dataclasses.dataclass(eq=False)
class Slot:
    """A job under way.

    Args:
        job: what trains.
        member: whose numbers it trains with: the job's own, until a driver replaces it.
        model: what its callbacks share.
        steps: of its epochs.
        callbacks: the job's.
        logs: of the last epoch, without what callbacks have added.
        rates: the learning rate of each step from epoch `rates_from` on; `None`: no schedule.
        rates_from: an epoch, counted from the job's first.
    """

    job: Job
    member: Member
    model: MemberModel
    steps: EpochSteps
    callbacks: MemberCallbacks = dataclasses.field(init=False)
    logs: dict[str, Any] = dataclasses.field(default_factory=dict, init=False)
    rates: np.ndarray | None = None
    rates_from: int = 0

    @classmethod
    def begin(
        cls, job: Job, state: OptimizerState | None, metrics: Sequence[Any], steps: EpochSteps
    ) -> Slot:
        """Begin a job; see `begin_callbacks`, too.

        Args:
            job: in its beginning.
            state: of its optimizer; `None` if it is fresh.
            metrics: see `MemberModel`.
            steps: of its epochs.
        """
        job.reset()
        slot = cls(job, job.member, MemberModel(metrics, job.member.model), steps)
        slot.set_learning_rate(state)
        slot.tabulate(0 if state is None else state.steps)
        return slot

    def begin_callbacks(self, values: SlotValues) -> None:
        """Tell the callbacks that training begins.

        Args:
            values: of the slot.
        """
        job, history = self.job, self.model.history
        params = {"verbose": job.verbose, "epochs": job.epochs, "steps": self.steps.nominal}
        history.history, history.epoch, history.params = job.history, [], params
        own = OwnModel(self.model, type(job.member.model), self._own_member, values)
        self.callbacks = MemberCallbacks(job.callbacks, own)
        self._try(self.callbacks.begin, params)
        if job.learning_rate is not None and self.model.optimizer.constant is not None:
            self.model.optimizer.constant = job.learning_rate
        for callback, counters in zip(job.callbacks, job.counters, strict=False):
            set_counters(callback, counters)

    def _own_member(self) -> Member:
        if self.job.own_model is None:
            return self.job.member
        member = read_member(self.job.own_model())
        if member.signature != self.job.member.signature:
            raise NotStackable(
                "a callback looks at the model, which is built anew and then differs"
            )
        return member

    def tell(self, hook: str, *arguments: Any) -> None:
        """Call a hook of its callbacks; where one raises, that is the job's `error`."""
        self._try(self.callbacks.call, hook, *arguments)

    def end_epoch(self, epoch: int, last_step: int, logs: dict[str, Any]) -> None:
        """Tell its callbacks of an epoch, which may add to its logs."""
        self._try(self.callbacks.end_epoch, epoch, last_step, logs)
        self.model.history.epoch.append(epoch)

    def swap_averages(self, hook: str) -> None:
        """Let the weights be as they are judged while they are kept: averaged ones, if so."""
        if self.callbacks.judged_by_averages:
            self._try(self.callbacks.swap, hook)

    def _try(self, call: Callable[..., None], *arguments: Any) -> None:
        if self.job.error is not None:
            return
        try:
            call(*arguments)
        except Exception as error:
            self.job.error = error

    def set_learning_rate(self, state: OptimizerState | None) -> None:
        """Go on with the learning rate of a state; a schedule's stays."""
        optimizer = self.model.optimizer
        if state is not None and None not in (state.learning_rate, optimizer.constant):
            optimizer.constant = state.learning_rate

    def adopt(self, member: Member) -> None:
        """Go on with another member's numbers and learning rate."""
        self.member = member
        self.model.adopt(member.model)

    def tabulate(self, taken: int) -> None:
        """Look up a schedule's learning rates from the present epoch on.

        Args:
            taken: how many steps the optimizer has taken.
        """
        job = self.job
        self.rates, self.rates_from = None, job.trained
        if self.model.optimizer.constant is None:
            last = job.epochs - job.first_epoch
            count = self.steps.before(last) - self.steps.before(job.trained)
            self.rates = schedule_table(self.member.model.optimizer, taken, count)

    @property
    def epoch_steps(self) -> int:
        """How many steps the epoch has that it is in."""
        return self.steps.count(self.job.trained)

    def epoch_rates(self, first: int, steps: int) -> np.ndarray:
        """Return the learning rates of so many steps of its epoch, fewer where that ends."""
        count = max(0, min(steps, self.epoch_steps - first))
        if self.rates is None:
            return np.full(count, self.model.optimizer.constant)
        begin = self.steps.before(self.job.trained) - self.steps.before(self.rates_from) + first
        return self.rates[begin : begin + count]

    @property
    def ended(self) -> bool:
        """Whether it has no further epoch."""
        job = self.job
        stopped = self.model.stop_training or job.stop_training or job.failure is not None
        return stopped or job.error is not None or job.epoch >= job.epochs
