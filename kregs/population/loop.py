"""The training loop: members wait in a queue, take a slot, train epoch by epoch, leave.

Every slot is at its own epoch, so a slot that early stopping frees is given to the next member at
once and no arithmetic is spent on the departed.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.layout import Layout
from kregs.population.optimizers import learning_rate_table
from kregs.population.program import Program
from kregs.population.structure import Member

# batches gathered at once, so that a whole epoch of a small data set is one call
GATHER_BYTES = 128 * 2**20
_VALIDATION_BATCH = 256


@dataclasses.dataclass
class Rows:
    """Arrays on the device: inputs, targets, sample weights; all rows, first axis first."""

    x: tf.Tensor
    y: tf.Tensor
    weight: tf.Tensor | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def tensors(self) -> tuple:
        return self.x, self.y, self.weight


@dataclasses.dataclass(eq=False)
class Job:
    """A member to be trained, and what came of it.

    Args:
        member: the read model.
        weights: its initial weights.
        seed: of its batch order and noise.
        callbacks: its own copies of Keras callbacks.
        train_rows, validation_rows: which rows are its own; `None` for all.
        first_epoch, epochs: trains from `first_epoch` up to `epochs`, as `fit` does.
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

    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best_epoch: int = -1  # none yet
    best_value: float = math.inf
    best_weights: list[np.ndarray] | None = None
    stopped_epoch: int | None = None
    failure: str | None = None
    seconds: float = 0.0


class _FacadeOptimizer:
    """What a callback sees as `model.optimizer`: one member's learning rate."""

    def __init__(self, optimizer: Any) -> None:
        self._learning_rate = optimizer._learning_rate
        self.constant: float | None = None
        if not isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            self.constant = float(keras.ops.convert_to_numpy(self._learning_rate))

    @property
    def learning_rate(self) -> Any:
        if self.constant is None:
            return self._learning_rate
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


@dataclasses.dataclass
class _Slot:
    job: Job
    model: MemberModel
    epoch: int
    table: np.ndarray | None


@functools.lru_cache(maxsize=4096)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of rows of one epoch; members with one seed share it."""
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    order.flags.writeable = False
    return order


def in_steps(order: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """Cut an order of rows into steps, -1 where there is no row."""
    index = np.full(steps * batch, -1, np.int32)
    index[: len(order)] = order
    return index.reshape(steps, batch)


class Training:
    """One run of many jobs over the slots of a program.

    Args:
        layout: the jobs' common structure.
        slots: how many members train at once.
        data, validation: rows on the device; `validation` may be `None`.
        batch_size, validation_batch_size: rows a step.
        shuffle: draw a new order each epoch from (seed, epoch).
        objective: maps an epoch's logs to a number, the lower the better; a job then ends with the
            weights of its best epoch. `None`: it ends as `fit` does, with the last weights or those
            that early stopping restores.
        on_epoch, on_done: called with a job after each of its epochs and at its end.
        accelerate: see `Program`.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        data: Rows,
        validation: Rows | None,
        *,
        batch_size: int,
        validation_batch_size: int | None = None,
        shuffle: bool = True,
        objective: Callable[[dict[str, float]], float] | None = None,
        on_epoch: Callable[[Job, int, dict[str, float]], None] | None = None,
        on_done: Callable[[Job], None] | None = None,
        accelerate: bool | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self.data = data
        self.validation = validation
        self.batch_size = batch_size
        self.validation_batch_size = validation_batch_size or batch_size
        self._given_validation_batch = validation_batch_size is not None
        self.shuffle = shuffle
        self.objective = objective
        self.on_epoch = on_epoch or (lambda *_: None)
        self.on_done = on_done or (lambda *_: None)
        self.accelerate = accelerate
        self._programs: dict[int, Program] = {}
        self._setup_seconds: dict[int, float] = {}
        self._epoch_seconds = 0.0

    def program(self, slots: int) -> Program:
        """Return the program with this many slots, made once."""
        if slots not in self._programs:
            head = self.data.y[: min(2, len(self.data))]
            self._programs[slots] = Program(
                self.layout,
                slots,
                head,
                batch_size=self.batch_size,
                accelerate=self.accelerate,
            )
        return self._programs[slots]

    def run(self, queue: collections.deque[Job]) -> None:
        """Train all jobs in the queue, and those that `on_done` or `on_epoch` add to it.

        A job is finished when `on_done` has been called with it.
        """
        while queue:
            started: list[Job] = []
            try:
                self._run(queue, started)
            except tf.errors.ResourceExhaustedError:
                if self.slots == 1:
                    raise
                # nothing is lost: what was under way starts again, half as many at once
                self.slots = max(1, self.slots // 2)
                self._programs.clear()
                queue.extendleft(reversed([_fresh(job) for job in started]))

    def _run(self, queue: collections.deque[Job], started: list[Job]) -> None:
        program = self.program(min(self.slots, len(queue)))
        slots: list[_Slot | None] = [None] * program.slots
        while True:
            self._refill(program, slots, queue, started)
            active = [slot for slot in slots if slot is not None]
            if not active:
                return
            program, slots = self._compact(program, slots, len(queue))
            began = time.perf_counter()
            first_call = program.slots not in self._setup_seconds
            self._epoch(program, slots)
            seconds = time.perf_counter() - began
            if first_call:
                self._setup_seconds[program.slots] = seconds
            else:
                self._epoch_seconds = seconds
            for position, slot in enumerate(slots):
                if slot is None:
                    continue
                slot.job.seconds += seconds / len(active)
                if self._ended(slot):
                    self._finish(program, position, slot)
                    slots[position] = None
                    started.remove(slot.job)
                    self.on_done(slot.job)

    def _refill(
        self,
        program: Program,
        slots: list[_Slot | None],
        queue: collections.deque[Job],
        started: list[Job],
    ) -> None:
        free = [i for i, slot in enumerate(slots) if slot is None][: len(queue)]
        if not free:
            return
        jobs = [queue.popleft() for _ in free]
        started.extend(jobs)
        program.fill(
            free,
            [job.weights or [_numpy(v) for v in job.member.weights] for job in jobs],
            [self.layout.settings_of(job.member) for job in jobs],
            [job.seed for job in jobs],
        )
        for position, job in zip(free, jobs, strict=True):
            model = MemberModel(self.layout.template.model, job.member.model)
            table = None
            if model.optimizer.constant is None:
                steps = self._steps(job) * job.epochs
                table = learning_rate_table(job.member.model.optimizer, 0, steps)
            slots[position] = _Slot(job, model, job.first_epoch, table)
            for callback in job.callbacks:
                callback.set_model(model)
                callback.set_params({"epochs": job.epochs, "verbose": 0})
                callback.on_train_begin()

    def _compact(
        self, program: Program, slots: list[_Slot | None], waiting: int
    ) -> tuple[Program, list[_Slot | None]]:
        """Move the remaining members to a smaller program where that saves time."""
        active = [i for i, slot in enumerate(slots) if slot is not None]
        smaller = 2 ** math.ceil(math.log2(max(1, len(active))))
        if waiting or smaller > program.slots // 2 or program.slots not in self._setup_seconds:
            return program, slots
        left = max(slots[i].job.epochs - slots[i].epoch for i in active)  # type: ignore[union-attr]
        setup = 0.0 if smaller in self._setup_seconds else self._setup_seconds[program.slots]
        # early stopping may end them sooner: count on half of what is left
        if 0.5 * left * self._epoch_seconds * (1 - smaller / program.slots) < setup:
            return program, slots
        target = self.program(smaller)
        program.move(active, target)
        moved: list[_Slot | None] = [slots[i] for i in active]
        return target, moved + [None] * (smaller - len(moved))

    def _steps(self, job: Job) -> int:
        rows = len(self.data) if job.train_rows is None else len(job.train_rows)
        return math.ceil(rows / self.batch_size)

    def _epoch(self, program: Program, slots: list[_Slot | None]) -> None:
        active = [(i, slot) for i, slot in enumerate(slots) if slot is not None]
        for _, slot in active:
            for callback in slot.job.callbacks:
                callback.on_epoch_begin(slot.epoch)
        steps = max(self._steps(slot.job) for _, slot in active)
        index = np.full([program.slots, steps, self.batch_size], -1, np.int32)
        rates = np.zeros([program.slots, steps])
        for i, slot in active:
            index[i] = in_steps(self._order(slot), steps, self.batch_size)
            rates[i] = self._rates(slot, steps)
        for i in set(range(program.slots)) - {i for i, _ in active}:
            index[i] = index[active[0][0]]  # a free slot idles along; its rate is 0
        logs = program.train(self.data, index, rates, GATHER_BYTES).means()
        others = program.metrics.others
        if others:
            own = self._predicted_metrics(program, active, self.data, index)
        validated = self._validate(program, slots)
        keeps = {"best": np.zeros(program.slots, bool), "kept": np.zeros(program.slots, bool)}
        for i, slot in active:
            epoch_logs = {name: float(values[i]) for name, values in logs.items()}
            if others:
                epoch_logs |= own[i]
            epoch_logs |= {name: float(values[i]) for name, values in validated.items()}
            if not program.metrics.has_data_loss:
                epoch_logs.pop("data_loss")
                epoch_logs.pop("val_data_loss", None)
            self._end_epoch(slot, epoch_logs)
            keeps["best"][i] = slot.job.best_epoch == slot.epoch - 1 and self.objective is not None
            keeps["kept"][i] = slot.model.keep_requested and self.objective is None
            slot.model.keep_requested = False
        for name, which in keeps.items():
            if which.any():
                program.keep(name, which)

    def _order(self, slot: _Slot) -> np.ndarray:
        rows = slot.job.train_rows
        count = len(self.data) if rows is None else len(rows)
        if not self.shuffle:
            return np.arange(count, dtype=np.int32) if rows is None else rows
        order = _shuffled(slot.job.seed, slot.epoch, count)
        return order if rows is None else rows[order]

    def _rates(self, slot: _Slot, steps: int) -> np.ndarray:
        if slot.table is None:
            return np.full(steps, slot.model.optimizer.constant)
        own = self._steps(slot.job)
        rates = slot.table[(slot.epoch - slot.job.first_epoch) * own :][:own]
        return np.pad(rates, (0, steps - len(rates)))

    def _validate(self, program: Program, slots: list[_Slot | None]) -> dict[str, np.ndarray]:
        validation = self.validation
        if validation is None:
            return {}
        own_rows = [slot.job.validation_rows if slot is not None else None for slot in slots]
        shared = all(rows is None for rows in own_rows)
        batch = self.validation_batch_size
        if not self._given_validation_batch and program.loss.is_mean:
            # a mean does not depend on how the rows are cut
            batch = max(batch, min(len(validation), _VALIDATION_BATCH))
        if shared:
            steps = math.ceil(len(validation) / batch)
            one = in_steps(np.arange(len(validation), dtype=np.int32), steps, batch)
            index = np.broadcast_to(one, [program.slots, *one.shape])
        else:
            present = [rows for rows in own_rows if rows is not None]
            steps = math.ceil(max(map(len, present)) / batch)
            index = np.stack(
                [
                    in_steps(rows if rows is not None else present[0], steps, batch)
                    for rows in own_rows
                ]
            )
        sums, predictions = program.test(
            validation, index, shared, GATHER_BYTES, collect=bool(program.metrics.others)
        )
        logs = {f"val_{name}": values for name, values in sums.means().items()}
        if predictions is not None:
            own = [
                _metrics_of(program, validation, index[i], predictions[i])
                for i in range(program.slots)
            ]
            for name in own[0]:
                logs[f"val_{name}"] = np.array([values[name] for values in own])
        return logs

    def _predicted_metrics(self, program, active, data, index) -> dict[int, dict[str, float]]:
        """Metrics that need all predictions, on the training rows after the epoch."""
        _, predictions = program.test(data, index, False, GATHER_BYTES, collect=True)
        return {i: _metrics_of(program, data, index[i], predictions[i]) for i, _ in active}

    def _end_epoch(self, slot: _Slot, logs: dict[str, float]) -> None:
        job = slot.job
        epoch = slot.epoch
        for name, value in logs.items():
            job.history.setdefault(name, []).append(value)
        if not math.isfinite(logs["loss"]):
            job.failure = f"the loss is {logs['loss']} after epoch {epoch + 1}"
        elif self.objective is not None:
            # lower is better here; the objective's direction is in the function
            value = self.objective(logs)
            if math.isfinite(value) and value < job.best_value:
                job.best_value, job.best_epoch = value, epoch
        for callback in job.callbacks:
            callback.on_epoch_end(epoch, dict(logs))
        slot.epoch += 1
        self.on_epoch(job, epoch, logs)

    def _ended(self, slot: _Slot) -> bool:
        over = slot.epoch >= slot.job.epochs
        return over or slot.model.stop_training or slot.job.failure is not None

    def _finish(self, program: Program, position: int, slot: _Slot) -> None:
        job = slot.job
        for callback in job.callbacks:
            callback.on_train_end()
        job.stopped_epoch = slot.epoch - 1
        if self.objective is not None:
            kept = "best" if job.best_epoch >= 0 else None
        else:
            kept = "kept" if slot.model.restored else None
        (job.best_weights,) = program.weights_of([position], kept)


def _fresh(job: Job) -> Job:
    """The job as it was before it began."""
    return dataclasses.replace(
        job, history={}, best_epoch=-1, best_value=math.inf, best_weights=None, seconds=0.0
    )


def _numpy(variable: Any) -> np.ndarray:
    return variable.value.numpy()


def _metrics_of(
    program: Program, rows: Rows, index: np.ndarray, predictions: np.ndarray
) -> dict[str, float]:
    flat = index.reshape(-1)
    real = flat >= 0
    own = flat[real]
    guesses = predictions.reshape(-1, *predictions.shape[2:])[real]
    weight = None if rows.weight is None else rows.weight.numpy()[own]
    return program.metrics.compute_others(rows.y.numpy()[own], guesses, weight)
