"""`Lane`: the members that train on one device, and the rows that they train on there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kregs.population.jobs import Job, Slot
from kregs.population.layout import Layout
from kregs.population.program import Program, Sums
from kregs.population.rows import GATHER_BYTES, Rows, Stream, in_steps

_VALIDATION_BATCH = 256


@functools.lru_cache(maxsize=4096)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of rows of one epoch; members with one seed share it."""
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    order.flags.writeable = False
    return order


@dataclasses.dataclass(frozen=True)
class Feed:
    """What members train and are validated on, and how it is cut into steps.

    Args:
        data, validation: rows on the device, or streams; `validation` may be `None`.
        batch_size, validation_batch_size: rows a step; streams have their own.
        validation_parts: rows of `validation`, by number, that make it up: a job whose validation
            rows are all of them gets a history on each part, too.
        shuffle: draw a new order each epoch from (seed, epoch); not of streams.
    """

    data: Rows | Stream
    validation: Rows | Stream | None
    batch_size: int
    validation_batch_size: int | None = None
    validation_parts: Sequence[np.ndarray] = ()
    shuffle: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.data, Stream):
            object.__setattr__(self, "batch_size", self.data.batch_size)
        if not isinstance(self.validation, Rows):
            object.__setattr__(self, "validation_parts", ())

    def on(self, device: str) -> Feed:
        """Return the same with its rows on another device."""
        with tf.device(device):
            own = {
                name: rows.copy()
                for name in ("data", "validation")
                if isinstance(rows := getattr(self, name), Rows)
            }
        return dataclasses.replace(self, **own)  # type: ignore[arg-type]

    def steps(self, job: Job) -> int:
        """Return how many steps an epoch of a job has."""
        if isinstance(self.data, Stream):
            return self.data.steps
        rows = len(self.data) if job.train_rows is None else len(job.train_rows)
        return math.ceil(rows / self.batch_size)

    def order(self, slot: Slot) -> np.ndarray:
        """Return the rows of a job's present epoch, in order."""
        rows = slot.job.train_rows
        count = len(self.data) if rows is None else len(rows)  # type: ignore[arg-type]
        if not self.shuffle:
            return np.arange(count, dtype=np.int32) if rows is None else rows
        order = _shuffled(slot.job.seed, slot.epoch, count)
        return order if rows is None else rows[order]


@dataclasses.dataclass
class EpochLogs:
    """What one epoch of one slot logged: over all validation rows, and on each part of them."""

    position: int
    slot: Slot
    logs: dict[str, float]
    by_part: list[dict[str, float]]


class Lane:
    """The slots of one device.

    Args:
        layout: the jobs' common structure.
        feed: the rows.
        device: where, such as `"GPU:1"`; `None`: wherever TensorFlow likes.
        accelerate: see `Program`.
    """

    def __init__(
        self,
        layout: Layout,
        feed: Feed,
        *,
        device: str | None = None,
        accelerate: bool | None = None,
    ) -> None:
        self.layout = layout
        self.feed = feed if device is None else feed.on(device)
        self.device = device
        self.slots: list[Slot | None] = []
        self.seconds = 0.0  # of the last epoch
        self._accelerate = accelerate
        self._programs: dict[int, Program] = {}
        self._program: Any = None  # the one of these that the slots are in
        self._setup_seconds: dict[int, float] = {}
        self._epoch_seconds = 0.0

    def _here(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.device is None else tf.device(self.device)

    def program(self, slots: int) -> Program:
        """Return the program with this many slots, made once."""
        if slots not in self._programs:
            with self._here():
                self._programs[slots] = Program(
                    self.layout,
                    slots,
                    self.feed.data.head,
                    batch_size=self.feed.batch_size,
                    accelerate=self._accelerate,
                )
        return self._programs[slots]

    def forget(self) -> None:
        """Give back the memory of all programs."""
        self._programs.clear()
        self._program = None
        self.slots = []

    def open(self, slots: int) -> None:
        """Begin with so many free slots."""
        self._program = self.program(slots)
        self.slots = [None] * slots

    @property
    def active(self) -> list[tuple[int, Slot]]:
        """The slots that train, with their positions."""
        return [(i, slot) for i, slot in enumerate(self.slots) if slot is not None]

    @property
    def free(self) -> int:
        """How many jobs it can take."""
        return sum(slot is None for slot in self.slots)

    def take(self, jobs: Sequence[Job]) -> None:
        """Put jobs into free slots."""
        free = [i for i, slot in enumerate(self.slots) if slot is None][: len(jobs)]
        if not free:
            return
        with self._here():
            self._program.fill(
                free,
                [job.weights or [v.value.numpy() for v in job.member.weights] for job in jobs],
                [self.layout.settings_of(job.member) for job in jobs],
                [job.seed for job in jobs],
                [job.state for job in jobs],
            )
        for position, job in zip(free, jobs, strict=True):
            template = self.layout.template.model
            self.slots[position] = Slot.begin(job, template, self.feed.steps(job))

    def compact(self, waiting: int) -> None:
        """Move the remaining members to a smaller program where that saves time."""
        active = [i for i, _ in self.active]
        now = self._program.slots
        smaller = 2 ** math.ceil(math.log2(max(1, len(active))))
        if waiting or smaller > now // 2 or now not in self._setup_seconds:
            return
        left = max(slot.job.epochs - slot.epoch for _, slot in self.active)
        setup = 0.0 if smaller in self._setup_seconds else self._setup_seconds[now]
        # early stopping may end them sooner: count on half of what is left
        if 0.5 * left * self._epoch_seconds * (1 - smaller / now) < setup:
            return
        target = self.program(smaller)
        with self._here():
            self._program.move(active, target)
        self._program = target
        self.slots = [slot for _, slot in self.active] + [None] * (smaller - len(active))

    def keep(self, name: str, positions: Sequence[int]) -> None:
        """Remember the present weights of some slots under a name."""
        if positions:
            which = np.zeros(self._program.slots, bool)
            which[list(positions)] = True
            with self._here():
                self._program.keep(name, which)

    def leave(self, position: int, job: Job, kept: str | None, *, state: bool) -> None:
        """Free a slot: its job gets the present weights, or those kept under a name."""
        with self._here():
            (job.best_weights,) = self._program.weights_of([position], kept)
            if state:
                job.end_state = self._program.state_of(position)
        self.slots[position] = None

    # ---- an epoch --------------------------------------------------------------------------

    def epoch(self) -> list[EpochLogs]:
        """Train and validate one epoch of every slot; only this may run beside other lanes."""
        began = time.perf_counter()
        first_call = self._program.slots not in self._setup_seconds
        with self._here():
            found = self._epoch()
        self.seconds = time.perf_counter() - began
        if first_call:
            self._setup_seconds[self._program.slots] = self.seconds
        else:
            self._epoch_seconds = self.seconds
        return found

    def _epoch(self) -> list[EpochLogs]:
        metrics, active = self._program.metrics, self.active
        logs = self._train(active).means()
        predicted = self._predicted_metrics(active) if metrics.others else {}
        validated, by_part = self._validate()
        found = []
        for i, slot in active:
            own = {name: float(values[i]) for name, values in logs.items()}
            own |= predicted.get(i, {})
            own |= {name: float(values[i]) for name, values in validated.items()}
            if not metrics.has_data_loss:
                own.pop("data_loss")
                own.pop("val_data_loss", None)
            parts = [{name: float(values[i]) for name, values in p.items()} for p in by_part]
            found.append(EpochLogs(i, slot, own, parts))
        return found

    def _train(self, active: list[tuple[int, Slot]]) -> Sums:
        program = self._program
        if not isinstance(self.feed.data, Stream):
            index = self._train_index(active)
            rates = self._rates(active, 0, index.shape[1])
            return program.train(self.feed.data, index, rates, GATHER_BYTES)
        sums, first = None, 0
        for rows, index in self.feed.data.chunks(padded=program.accelerated):
            shared = np.broadcast_to(index, [program.slots, *index.shape])
            rates = self._rates(active, first, len(index))
            part = program.train(rows, shared, rates, GATHER_BYTES, shared=True)
            sums = part if sums is None else sums + part
            first += len(index)
        if sums is None:
            raise ValueError("the dataset was empty in a later epoch: it cannot be read twice")
        return sums

    def _train_index(self, active: list[tuple[int, Slot]]) -> np.ndarray:
        steps = max(self.feed.steps(slot.job) for _, slot in active)
        index = np.full([self._program.slots, steps, self.feed.batch_size], -1, np.int32)
        for i, slot in active:
            index[i] = in_steps(self.feed.order(slot), steps, self.feed.batch_size)
        for i in set(range(self._program.slots)) - {i for i, _ in active}:
            index[i] = index[active[0][0]]  # a free slot idles along; its rate is 0
        return index

    def _rates(self, active: list[tuple[int, Slot]], first: int, steps: int) -> np.ndarray:
        """The learning rates `(K, steps)` from step `first` of the epoch on; free slots have 0."""
        rates = np.zeros([self._program.slots, steps])
        for i, slot in active:
            if slot.table is None:
                rates[i] = slot.model.optimizer.constant
                continue
            a_epoch = self.feed.steps(slot.job)
            begin = (slot.epoch - slot.job.first_epoch) * a_epoch
            own = slot.table[begin + first : begin + min(first + steps, a_epoch)]
            rates[i, : len(own)] = own
        return rates

    def _validate(self) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """Return the logs on all validation rows, and on each part of them."""
        rows, feed = self.feed.validation, self.feed
        if rows is None:
            return {}, []
        parts: list[tuple[Sums, list]] = []
        if isinstance(rows, Stream):  # which has an index of its own
            whole = [self._pass(rows, None, True)]
        elif any(slot.job.validation_rows is not None for _, slot in self.active):
            whole = [self._pass(rows, self._own_rows(), False)]
        else:
            index = [self._common_rows(part) for part in feed.validation_parts]
            parts = whole = [self._pass(rows, own, True) for own in index]
            if not parts or not self._program.loss.is_mean:  # else their sums are those over all
                whole = [self._pass(rows, self._common_rows(np.arange(len(rows))), True)]
        logs = [self._logs(passes) for passes in (whole, *([part] for part in parts))]
        all_rows, *by_part = [{f"val_{name}": v for name, v in own.items()} for own in logs]
        return all_rows, by_part

    def _validation_batch(self) -> int:
        """How many validation rows to take at once."""
        batch = self.feed.validation_batch_size or self.feed.batch_size
        if self.feed.validation_batch_size or not self._program.loss.is_mean:
            return batch
        # a mean does not depend on how the rows are cut
        return max(batch, min(len(self.feed.validation), _VALIDATION_BATCH))  # type: ignore[arg-type]

    def _common_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index of the same rows for all slots."""
        batch = self._validation_batch()
        return in_steps(rows.astype(np.int32), math.ceil(len(rows) / batch), batch)

    def _own_rows(self) -> np.ndarray:
        """The index of each slot's own rows, `(K, steps, batch)`."""
        batch = self._validation_batch()
        rows = [None if slot is None else slot.job.validation_rows for slot in self.slots]
        present = [own for own in rows if own is not None]
        steps = math.ceil(max(map(len, present)) / batch)
        return np.stack([in_steps(present[0] if r is None else r, steps, batch) for r in rows])

    def _predicted_metrics(self, active: list[tuple[int, Slot]]) -> dict[int, dict[str, float]]:
        """Metrics that need all predictions, on the training rows after the epoch."""
        stream = isinstance(self.feed.data, Stream)
        index = None if stream else self._train_index(active)
        logs = self._logs([self._pass(self.feed.data, index, stream)])
        others = [name for name in logs if name not in self._program.sum_names]
        return {i: {name: float(logs[name][i]) for name in others} for i, _ in active}

    def _pass(self, source: Rows | Stream, index: Any, shared: bool) -> tuple[Sums, list]:
        """Go over rows once: return the sums, and each slot's predictions by chunk if needed."""
        others = bool(self._program.metrics.others)
        sums, kept = None, []
        chunks = source.chunks() if isinstance(source, Stream) else [(source, index)]
        for rows, own in chunks:
            whole = np.broadcast_to(own, [self._program.slots, *own.shape[-2:]])
            part, predictions = self._program.test(
                rows, whole, shared, GATHER_BYTES, collect=others
            )
            sums = part if sums is None else sums + part
            if predictions is not None:
                kept.append(
                    [_taken(rows, whole[i], predictions[i]) for i in range(self._program.slots)]
                )
        return sums, kept  # type: ignore[return-value]

    def _logs(self, passes: Sequence[tuple[Sums, list]]) -> dict[str, np.ndarray]:
        """Return all metrics of all slots over the rows of some passes, `(K,)` each."""
        first, *further = [sums for sums, _ in passes]
        logs = sum(further, first).means()
        if self._program.metrics.others:
            chunks = [chunk for _, kept in passes for chunk in kept]
            values = [
                self._program.metrics.compute_others(*_together(own))
                for own in zip(*chunks, strict=True)
            ]
            logs |= {name: np.array([own[name] for own in values]) for name in values[0]}
        return logs


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
