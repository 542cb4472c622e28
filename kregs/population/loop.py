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
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.layout import Layout
from kregs.population.optimizers import learning_rate_table
from kregs.population.program import OptimizerState, Program, Sums
from kregs.population.rows import GATHER_BYTES, Rows, Stream, in_steps
from kregs.population.structure import Member

_VALIDATION_BATCH = 256


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
        state: of its optimizer, if it goes on from an earlier job.
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

    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    part_histories: list[dict[str, list[float]]] = dataclasses.field(default_factory=list)
    best_epoch: int = -1  # none yet
    best_value: float = math.inf
    best_weights: list[np.ndarray] | None = None
    end_state: OptimizerState | None = None
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


class Training:
    """One run of many jobs over the slots of a program.

    Args:
        layout: the jobs' common structure.
        slots: how many members train at once.
        data, validation: rows on the device, or streams; `validation` may be `None`.
        validation_parts: rows of `validation`, by number, that make it up: a job whose validation
            rows are all of them gets a history on each part, too.
        batch_size, validation_batch_size: rows a step; streams have their own.
        shuffle: draw a new order each epoch from (seed, epoch); not of streams.
        objective: maps an epoch's logs to a number, the lower the better; a job then ends with the
            weights of its best epoch. `None`: it ends as `fit` does, with the last weights or those
            that early stopping restores.
        keep_state: a job ends with the state of its optimizer, for a job that goes on from it.
        keep_last: a job with an `objective` ends with the weights of its last finite epoch.
        on_epoch, on_done: called with a job after each of its epochs and at its end.
        accelerate: see `Program`.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        data: Rows | Stream,
        validation: Rows | Stream | None,
        *,
        batch_size: int,
        validation_batch_size: int | None = None,
        shuffle: bool = True,
        objective: Callable[[dict[str, float]], float] | None = None,
        keep_state: bool = False,
        keep_last: bool = False,
        validation_parts: Sequence[np.ndarray] = (),
        on_epoch: Callable[[Job, int, dict[str, float]], None] | None = None,
        on_done: Callable[[Job], None] | None = None,
        accelerate: bool | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self.data = data
        self.validation = validation
        self.batch_size = data.batch_size if isinstance(data, Stream) else batch_size
        self.validation_batch_size = validation_batch_size or self.batch_size
        self._given_validation_batch = validation_batch_size is not None
        self.shuffle = shuffle
        self.objective = objective
        self.keep_state = keep_state
        self.keep_last = keep_last
        self.validation_parts = validation_parts if isinstance(validation, Rows) else ()
        self.on_epoch = on_epoch or (lambda *_: None)
        self.on_done = on_done or (lambda *_: None)
        self.accelerate = accelerate
        self._programs: dict[int, Program] = {}
        self._setup_seconds: dict[int, float] = {}
        self._epoch_seconds = 0.0

    def program(self, slots: int) -> Program:
        """Return the program with this many slots, made once."""
        if slots not in self._programs:
            self._programs[slots] = Program(
                self.layout,
                slots,
                self.data.head,
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
            [job.state for job in jobs],
        )
        for position, job in zip(free, jobs, strict=True):
            model = MemberModel(self.layout.template.model, job.member.model)
            table = None
            if model.optimizer.constant is None:
                steps = self._steps(job) * (job.epochs - job.first_epoch)
                taken = 0 if job.state is None else job.state.steps
                table = learning_rate_table(job.member.model.optimizer, taken, steps)
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
        if isinstance(self.data, Stream):
            return self.data.steps
        rows = len(self.data) if job.train_rows is None else len(job.train_rows)
        return math.ceil(rows / self.batch_size)

    def _epoch(self, program: Program, slots: list[_Slot | None]) -> None:
        active = [(i, slot) for i, slot in enumerate(slots) if slot is not None]
        for _, slot in active:
            for callback in slot.job.callbacks:
                callback.on_epoch_begin(slot.epoch)
        logs = self._train(program, active).means()
        if program.metrics.others:
            own = self._predicted_metrics(program, active)
        validated, by_part = self._validate(program, slots)
        keeps = {"best": np.zeros(program.slots, bool), "kept": np.zeros(program.slots, bool)}
        for i, slot in active:
            epoch_logs = {name: float(values[i]) for name, values in logs.items()}
            if program.metrics.others:
                epoch_logs |= own[i]
            epoch_logs |= {name: float(values[i]) for name, values in validated.items()}
            if not program.metrics.has_data_loss:
                epoch_logs.pop("data_loss")
                epoch_logs.pop("val_data_loss", None)
            if by_part and not slot.job.part_histories:
                slot.job.part_histories = [{} for _ in by_part]
            for history, part in zip(slot.job.part_histories, by_part, strict=True):
                for name, values in part.items():
                    history.setdefault(name, []).append(float(values[i]))
            self._end_epoch(slot, epoch_logs)
            keeps["best"][i] = slot.job.best_epoch == slot.epoch - 1 and self.objective is not None
            keeps["kept"][i] = slot.model.keep_requested and self.objective is None
            slot.model.keep_requested = False
        for name, which in keeps.items():
            if which.any():
                program.keep(name, which)

    def _train(self, program: Program, active: list[tuple[int, _Slot]]) -> Sums:
        if not isinstance(self.data, Stream):
            index = self._train_index(program, active)
            rates = self._rates(program, active, 0, index.shape[1])
            return program.train(self.data, index, rates, GATHER_BYTES)
        sums, first = None, 0
        for rows, index in self.data.chunks(padded=program.accelerated):
            shared = np.broadcast_to(index, [program.slots, *index.shape])
            rates = self._rates(program, active, first, len(index))
            part = program.train(rows, shared, rates, GATHER_BYTES, shared=True)
            sums = part if sums is None else sums + part
            first += len(index)
        if sums is None:
            raise ValueError("the dataset was empty in a later epoch: it cannot be read twice")
        return sums

    def _train_index(self, program: Program, active: list[tuple[int, _Slot]]) -> np.ndarray:
        steps = max(self._steps(slot.job) for _, slot in active)
        index = np.full([program.slots, steps, self.batch_size], -1, np.int32)
        for i, slot in active:
            index[i] = in_steps(self._order(slot), steps, self.batch_size)
        for i in set(range(program.slots)) - {i for i, _ in active}:
            index[i] = index[active[0][0]]  # a free slot idles along; its rate is 0
        return index

    def _order(self, slot: _Slot) -> np.ndarray:
        rows = slot.job.train_rows
        count = len(self.data) if rows is None else len(rows)  # type: ignore[arg-type]
        if not self.shuffle:
            return np.arange(count, dtype=np.int32) if rows is None else rows
        order = _shuffled(slot.job.seed, slot.epoch, count)
        return order if rows is None else rows[order]

    def _rates(
        self, program: Program, active: list[tuple[int, _Slot]], first: int, steps: int
    ) -> np.ndarray:
        """The learning rates `(K, steps)` from step `first` of the epoch on; free slots have 0."""
        rates = np.zeros([program.slots, steps])
        for i, slot in active:
            if slot.table is None:
                rates[i] = slot.model.optimizer.constant
                continue
            a_epoch = self._steps(slot.job)
            begin = (slot.epoch - slot.job.first_epoch) * a_epoch
            own = slot.table[begin + first : begin + min(first + steps, a_epoch)]
            rates[i, : len(own)] = own
        return rates

    def _validate(
        self, program: Program, slots: list[_Slot | None]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """Return the logs on all validation rows, and on each part of them."""
        if self.validation is None:
            return {}, []
        parts: list[tuple[Sums, list]] = []
        if isinstance(self.validation, Stream):  # which has an index of its own
            whole = [self._pass(program, self.validation, None, True)]
        elif any(slot is not None and slot.job.validation_rows is not None for slot in slots):
            whole = [self._pass(program, self.validation, self._own_rows(program, slots), False)]
        else:
            index = [self._common_rows(program, rows) for rows in self.validation_parts]
            parts = [self._pass(program, self.validation, own, True) for own in index]
            whole = parts
            if not parts or not program.loss.is_mean:  # else the parts' sums are those over all
                own = self._common_rows(program, np.arange(len(self.validation)))
                whole = [self._pass(program, self.validation, own, True)]
        logs = [self._logs(program, passes) for passes in (whole, *([part] for part in parts))]
        all_rows, *by_part = [{f"val_{name}": v for name, v in own.items()} for own in logs]
        return all_rows, by_part

    def _batch(self, program: Program) -> int:
        """How many validation rows to take at once."""
        if self._given_validation_batch or not program.loss.is_mean:
            return self.validation_batch_size
        # a mean does not depend on how the rows are cut
        rows = min(len(self.validation), _VALIDATION_BATCH)  # type: ignore[arg-type]
        return max(self.validation_batch_size, rows)

    def _common_rows(self, program: Program, rows: np.ndarray) -> np.ndarray:
        """The index of the same rows for all slots."""
        batch = self._batch(program)
        return in_steps(rows.astype(np.int32), math.ceil(len(rows) / batch), batch)

    def _own_rows(self, program: Program, slots: list[_Slot | None]) -> np.ndarray:
        """The index of each slot's own rows, `(K, steps, batch)`."""
        batch = self._batch(program)
        rows = [slot.job.validation_rows if slot is not None else None for slot in slots]
        present = [own for own in rows if own is not None]
        steps = math.ceil(max(map(len, present)) / batch)
        return np.stack([in_steps(present[0] if r is None else r, steps, batch) for r in rows])

    def _predicted_metrics(
        self, program: Program, active: list[tuple[int, _Slot]]
    ) -> dict[int, dict[str, float]]:
        """Metrics that need all predictions, on the training rows after the epoch."""
        stream = isinstance(self.data, Stream)
        index = None if stream else self._train_index(program, active)
        logs = self._logs(program, [self._pass(program, self.data, index, stream)])
        others = [name for name in logs if name not in program.sum_names]
        return {i: {name: float(logs[name][i]) for name in others} for i, _ in active}

    def _pass(
        self, program: Program, source: Rows | Stream, index: Any, shared: bool
    ) -> tuple[Sums, list]:
        """Go over rows once: return the sums, and each slot's predictions by chunk if needed."""
        others = bool(program.metrics.others)
        sums, kept = None, []
        chunks = source.chunks() if isinstance(source, Stream) else [(source, index)]
        for rows, own in chunks:
            whole = np.broadcast_to(own, [program.slots, *own.shape[-2:]])
            part, predictions = program.test(rows, whole, shared, GATHER_BYTES, collect=others)
            sums = part if sums is None else sums + part
            if predictions is not None:
                kept.append([_taken(rows, whole[i], predictions[i]) for i in range(program.slots)])
        return sums, kept  # type: ignore[return-value]

    @staticmethod
    def _logs(program: Program, passes: Sequence[tuple[Sums, list]]) -> dict[str, np.ndarray]:
        """Return all metrics of all slots over the rows of some passes, `(K,)` each."""
        first, *further = [sums for sums, _ in passes]
        logs = sum(further, first).means()
        if program.metrics.others:
            chunks = [chunk for _, kept in passes for chunk in kept]
            values = [
                program.metrics.compute_others(*_together(own)) for own in zip(*chunks, strict=True)
            ]
            logs |= {name: np.array([own[name] for own in values]) for name in values[0]}
        return logs

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
            if math.isfinite(value) and (self.keep_last or value < job.best_value):
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
        if self.keep_state:
            job.end_state = program.state_of(position)


def _fresh(job: Job) -> Job:
    """The job as it was before it began."""
    return dataclasses.replace(
        job,
        history={},
        part_histories=[],
        best_epoch=-1,
        best_value=math.inf,
        best_weights=None,
        seconds=0.0,
    )


def _numpy(variable: Any) -> np.ndarray:
    return variable.value.numpy()


def _taken(rows: Rows, index: np.ndarray, predictions: np.ndarray) -> tuple:
    """The targets, predictions and weights of the rows that an index of steps really holds."""
    flat = index.reshape(-1)
    real = flat >= 0
    own = flat[real]
    guesses = predictions.reshape(-1, *predictions.shape[2:])[real]
    return rows.y.numpy()[own], guesses, None if rows.weight is None else rows.weight.numpy()[own]


def _together(parts: tuple) -> list:
    """Concatenate what several chunks gave, `None` where there are no weights."""
    columns = zip(*parts, strict=True)
    return [None if own[0] is None else np.concatenate(own) for own in columns]
