"""`Lane`: the slots of one device, in which members train and are validated epoch by epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kregs.population.callbacks import counters_of, look_at_models
from kregs.population.graph import few_predictions
from kregs.population.jobs import Job, Slot
from kregs.population.keras_internals import callback_metrics
from kregs.population.layout import Layout
from kregs.population.metrics import (
    Predicted,
    Score,
    concatenated,
    number_or_array,
    predicted_rows,
    scores_of,
)
from kregs.population.optimizers import OptimizerState
from kregs.population.program import Program, Snapshot, Sums
from kregs.population.rows import GATHER_BYTES, Feed, Rows, Stream, in_steps
from kregs.population.signature import Member

_VALIDATION_BATCH = 256


@dataclasses.dataclass
class EpochLogs:
    """What one epoch of one slot logged.

    Args:
        position: of the slot.
        slot: whose job trained.
        logs: metric name to number, those of validation over all its rows.
        by_part: the same on each part of them.
        part_passes: what that was computed from, of all slots.
        missing: names of what it would have logged if it had been validated.
    """

    position: int
    slot: Slot
    logs: dict[str, float]
    by_part: list[dict[str, float]]
    part_passes: list[Pass]
    missing: list[str] = dataclasses.field(default_factory=list)


class Lane:
    """The slots of one device.

    Args:
        layout: the jobs' common structure.
        feed: the rows.
        device: where, such as `"GPU:1"`; `None`: wherever TensorFlow likes.
        accelerate: see `Program`.
        scores: see `Training`.

    Attributes:
        slots: what trains at each position, `None` where it is free.
        seconds: the last epoch's.
    """

    def __init__(
        self,
        layout: Layout,
        feed: Feed,
        *,
        device: str | None = None,
        accelerate: bool | None = None,
        scores: Mapping[str, Score] | None = None,
    ) -> None:
        self.layout = layout
        self._scores = dict(scores or {})
        self.feed = feed if device is None else feed.on(device)
        self.device = device
        self.slots: list[Slot | None] = []
        self.seconds = 0.0
        self._accelerate = accelerate
        self._programs: dict[int, Program] = {}
        self._program: Any = None  # the one of these that the slots are in
        self._setup_seconds: dict[int, float] = {}
        self._epoch_seconds = 0.0
        self._trained: dict[str, np.ndarray] = {}
        self._snapshot: Snapshot | None = None  # after an epoch, if several callbacks look
        self._written: set[int] = set()  # positions that have changed since

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
                    batch_size=self.feed.step_rows,
                    accelerate=self._accelerate,
                )
        return self._programs[slots]

    def forget(self) -> None:
        """Give back the memory of all programs; nothing trains then."""
        self._snapshot = None
        for program in self._programs.values():
            program.forget()
        self._programs.clear()
        self._program = None
        self._setup_seconds.clear()
        self.slots = []

    def open(self, jobs: int, most: int) -> None:
        """Begin with free slots for so many jobs, but for `most` at once.

        A program that has been compiled is used again if at least half of it is.
        """
        wanted = min(jobs, most)
        compiled = [s for s in self._setup_seconds if wanted <= s <= min(2 * wanted, most)]
        self._program = self.program(min(compiled, default=wanted))
        self.slots = [None] * self._program.slots
        self._forget_snapshot()

    def grow(self, waiting: int, most: int) -> None:
        """Move to a larger program that has been compiled, if more jobs wait than slots are free.

        Such as when a rung of Hyperband begins while the last members of another one end.
        """
        wanted = min(len(self.active) + waiting, most)
        larger = [s for s in self._setup_seconds if len(self.slots) < s <= max(wanted, 1)]
        if waiting > self.free and larger and not self._goes_on:
            self._move_to(max(larger))

    @property
    def active(self) -> list[tuple[int, Slot]]:
        """The slots that train, with their positions."""
        return [(i, slot) for i, slot in enumerate(self.slots) if slot is not None]

    @property
    def free(self) -> int:
        """How many jobs it can take."""
        if self._goes_on and self.active:  # a job begins where the dataset does
            return 0
        return sum(slot is None for slot in self.slots)

    @property
    def _goes_on(self) -> bool:
        """Whether epochs go on in a dataset where the last one has stopped."""
        return isinstance(self.feed.data, Stream) and self.feed.data.goes_on

    def take(self, jobs: Sequence[Job]) -> None:
        """Put jobs into free slots."""
        positions = [i for i, slot in enumerate(self.slots) if slot is None][: len(jobs)]
        if not positions:
            return
        if self._goes_on:
            self.feed.data.restart()  # type: ignore[union-attr]
        states = [job.state or self.layout.state_of(job.member) for job in jobs]
        weights = [job.weights or [v.numpy() for v in job.member.weights] for job in jobs]
        self._written |= set(positions)
        with self._here():
            self._program.fill(
                positions,
                weights,
                [self.layout.settings_of(job.member) for job in jobs],
                [job.seed for job in jobs],
                states,
            )
        for position, job, initial, state in zip(positions, jobs, weights, states, strict=True):
            steps = self.feed.steps(job.train_rows)
            slot = Slot.begin(job, state, self._callback_metrics, steps)
            self.slots[position] = slot
            if job.own_model is None and look_at_models(job.callbacks):
                # callbacks change the member's model, from which it may have to begin anew
                job.weights, job.state = initial, job.state or self.state_at(position)
            slot.begin_callbacks(_ValuesInSlot(self, slot))

    @functools.cached_property
    def _callback_metrics(self) -> list[Any]:
        model, y = self.layout.template.model, self.feed.data.head
        return callback_metrics(model, y, few_predictions(model, y))

    def release(self) -> None:
        """Free all slots, whatever trains there."""
        for _, slot in self.active:
            slot.callbacks.detach()
        self.slots = [None] * len(self.slots)

    def weights_at(
        self, position: int, kept: str | None = None, *, final: bool = False
    ) -> list[np.ndarray]:
        """Return a member's weights, see `Program.weights_of`."""
        with self._here():
            (weights,) = self._program.weights_of([position], kept, final=final)
        return weights

    def state_at(self, position: int) -> OptimizerState:
        """Return what a member's optimizer has gathered."""
        with self._here():
            state = self._program.state_of(position)
        return self._with_rate(position, state)

    def _with_rate(self, position: int, state: OptimizerState) -> OptimizerState:
        slot: Any = self.slots[position]
        return dataclasses.replace(state, learning_rate=slot.model.optimizer.constant)

    def _read(self, position: int) -> Snapshot | None:
        """What all callbacks look at after an epoch, read once; `None`: read the slot alone."""
        if position in self._written:
            return None
        if self._snapshot is None:
            if sum(slot.callbacks.have_looked for _, slot in self.active) < 2:
                return None
            with self._here():
                self._snapshot = self._program.read()
        return self._snapshot

    def seen_weights(self, position: int, kept: str | None) -> list[np.ndarray]:
        """Return what `weights_at` returns, maybe as views that are only to be looked at."""
        snapshot = None if kept is not None else self._read(position)
        return (
            self.weights_at(position, kept) if snapshot is None else snapshot.weights_of(position)
        )

    def seen_state(self, position: int) -> OptimizerState:
        """Return what `state_at` returns, likewise."""
        snapshot = self._read(position)
        if snapshot is None:
            return self.state_at(position)
        return self._with_rate(position, snapshot.state_of(position))

    def steps_at(self, position: int) -> int:
        """Return how many steps a member's optimizer has taken."""
        if self._snapshot is None or position in self._written:
            return int(self._program.steps[position])
        return int(self._snapshot.steps[position])

    def _forget_snapshot(self) -> None:
        self._snapshot, self._written = None, set()

    def replace(
        self,
        position: int,
        member: Member | None,
        weights: list[np.ndarray] | None,
        state: OptimizerState | None,
    ) -> None:
        """Let the job in a slot go on with another member's numbers, weights or optimizer state.

        Args:
            position: of the slot.
            member, weights, state: `None` for the present ones.
        """
        slot: Any = self.slots[position]
        taken = int(self._program.steps[position])
        weights = weights or self.weights_at(position)
        state = state or self.state_at(position)
        if member is not None:
            slot.adopt(member)
        settings = self.layout.settings_of(slot.member)
        with self._here():
            self._program.fill([position], [weights], [settings], [slot.job.seed], [state])
        self._written.add(position)
        slot.callbacks.stale()
        if member is not None or state.steps != taken:  # else the table is that of its schedule
            slot.tabulate(state.steps)

    def compact(self, waiting: int) -> None:
        """Move the remaining members to a smaller program where that saves time."""
        active = [i for i, _ in self.active]
        now = self._program.slots
        smaller = 2 ** math.ceil(math.log2(max(1, len(active))))
        if waiting or smaller > now // 2 or now not in self._setup_seconds:
            return
        left = max(slot.job.epochs - slot.job.epoch for _, slot in self.active)
        setup = 0.0 if smaller in self._setup_seconds else self._setup_seconds[now]
        # early stopping may end them sooner: count on half of what is left
        if 0.5 * left * self._epoch_seconds * (1 - smaller / now) < setup:
            return
        self._move_to(smaller)

    def _move_to(self, slots: int) -> None:
        """Let the members go on in the program with this many slots."""
        active = self.active
        target = self.program(slots)
        with self._here():
            self._program.move([position for position, _ in active], target)
        self._program = target
        self._forget_snapshot()
        self.slots = [slot for _, slot in active] + [None] * (slots - len(active))

    def keep(self, name: str, positions: Sequence[int]) -> None:
        """Remember the present weights of some slots under a name."""
        if positions:
            which = np.zeros(self._program.slots, bool)
            which[list(positions)] = True
            with self._here():
                self._program.keep(name, which)

    def keep_end(self, position: int) -> None:
        """Give a job what another one goes on from, if it is to keep that."""
        slot: Any = self.slots[position]
        job = slot.job
        if job.keep_end:
            job.end_weights, job.end_state = self.weights_at(position), self.state_at(position)
            job.end_counters = [counters_of(callback) for callback in job.callbacks]

    def finalize(self, position: int) -> None:
        """Let an optimizer write its averages over the weights, as at the end of Keras's `fit`.

        The callbacks are told that training ends after it, and may change the weights once more.
        """
        if self._program.optimizer.final_weights():
            self.replace(position, None, self.weights_at(position, final=True), None)

    def leave(self, position: int, kept: str | None) -> None:
        """Free a slot: its job gets the present weights, or those kept under a name."""
        slot: Any = self.slots[position]
        slot.job.best_weights = self.weights_at(position, kept)
        self.drop(position)

    def drop(self, position: int) -> None:
        """Free a slot whose job has failed."""
        slot: Any = self.slots[position]
        slot.callbacks.detach()
        self.slots[position] = None

    # ---- an epoch --------------------------------------------------------------------------

    def epoch(self) -> list[EpochLogs]:
        """Train and validate one epoch of every slot."""
        self.train_epoch()
        return self.validate_epoch()

    def train_epoch(self) -> None:
        """Train one epoch of every slot; this and `validate_epoch` may run beside other lanes."""
        began = time.perf_counter()
        self._forget_snapshot()
        with self._here():
            self._trained = self._logs([self._train(self.active)])
        for _, slot in self.active:
            slot.callbacks.stale()
        self.seconds = time.perf_counter() - began

    def validate_epoch(self) -> list[EpochLogs]:
        """Validate what `train_epoch` has trained; return the logs of both."""
        began = time.perf_counter()
        first_call = self._program.slots not in self._setup_seconds
        with self._here():
            slot_logs = self._validated_logs()
        self.seconds += time.perf_counter() - began
        if first_call:
            self._setup_seconds[self._program.slots] = self.seconds
        else:
            self._epoch_seconds = self.seconds
        return slot_logs

    def _validated_logs(self) -> list[EpochLogs]:
        trained = self._trained
        validated: dict[str, np.ndarray] = {}
        part_passes: list[Pass] = []
        if any(slot.job.validates for _, slot in self.active):
            validated, part_passes = self._validate()
        by_part = [self._validation_logs([part]) for part in part_passes]
        slot_logs, in_order = [], self._program.metrics.in_order
        for i, slot in self.active:
            logs = _of_slot(trained, i)
            if not slot.job.validates:
                missing: list[str] = []
                if self.feed.validation is not None:
                    missing = [*(f"val_{name}" for name in logs), *self._scores]
                slot_logs.append(EpochLogs(i, slot, in_order(logs), [], [], missing))
                continue
            logs |= _of_slot(validated, i)
            parts = [_of_slot(part, i) for part in by_part]
            slot_logs.append(EpochLogs(i, slot, in_order(logs), parts, part_passes))
        return slot_logs

    def _train(self, active: list[tuple[int, Slot]]) -> Pass:
        program = self._program
        collect = bool(program.metrics.others)
        if not isinstance(self.feed.data, Stream):
            index = self._train_index(active)
            rates = self._rates(active, 0, index.shape[1])
            rows = self.feed.data
            sums, predictions = program.train(rows, index, rates, GATHER_BYTES, collect=collect)
            return Pass(sums, _of_slots(rows, index, predictions))
        chunk_passes, first = [], 0
        for rows, index in self.feed.data.chunks(padded=program.accelerated):
            shared = np.broadcast_to(index, [program.slots, *index.shape])
            rates = self._rates(active, first, len(index))
            sums, predictions = program.train(
                rows, shared, rates, GATHER_BYTES, shared=True, collect=collect
            )
            chunk_passes.append(Pass(sums, _of_slots(rows, shared, predictions)))
            first += len(index)
        return _total(chunk_passes)

    def _train_index(self, active: list[tuple[int, Slot]]) -> np.ndarray:
        steps = max(slot.epoch_steps for _, slot in active)
        index = np.full([self._program.slots, steps, self.feed.step_rows], -1, np.int32)
        for i, slot in active:
            index[i] = in_steps(self._epoch_order(slot), steps, self.feed.step_rows)
        for i in set(range(self._program.slots)) - {i for i, _ in active}:
            index[i] = index[active[0][0]]  # a free slot idles along; its rate is 0
        return index

    def _epoch_order(self, slot: Slot) -> np.ndarray:
        """The row numbers of the epoch that a slot is in, in order: of a pass, or a part of it."""
        job, steps, batch = slot.job, slot.steps, self.feed.step_rows
        began = job.epochs_before + job.first_epoch + steps.pass_began(job.trained)
        order = self.feed.order(job.train_rows, job.seed, began)
        if steps.per_epoch is None:
            return order
        first = steps.first(job.trained) * batch
        return order[first : first + slot.epoch_steps * batch]

    def _rates(self, active: list[tuple[int, Slot]], first: int, steps: int) -> np.ndarray:
        """The learning rates `(K, steps)` from step `first` of the epoch on; free slots have 0."""
        rates = np.zeros([self._program.slots, steps])
        for i, slot in active:
            slot_rates = slot.epoch_rates(first, steps)
            rates[i, : len(slot_rates)] = slot_rates
        return rates

    # ---- validation and metrics ------------------------------------------------------------

    def _validate(self) -> tuple[dict[str, np.ndarray], list[Pass]]:
        """Return the logs on all validation rows, and the passes over each part of them."""
        rows, feed = self.feed.validation, self.feed
        if rows is None:
            return {}, []
        part_passes: list[Pass] = []
        if isinstance(rows, Stream):  # which has an index of its own
            passes = [self._pass(rows, None, shared=True)]
        elif any(slot.job.validation_rows is not None for _, slot in self.active):
            count = min(len(slot.job.validation_parts) for _, slot in self.active)
            part_passes = [
                self._pass(rows, self._slot_rows(part), shared=False) for part in range(count)
            ]
            passes = part_passes
            if not part_passes or not self._has_only_means:
                passes = [self._pass(rows, self._slot_rows(), shared=False)]
        else:
            part_indices = [self._common_rows(part) for part in feed.validation_parts]
            part_passes = [self._pass(rows, index, shared=True) for index in part_indices]
            passes = part_passes
            if not part_passes or not self._has_only_means:  # else their sums are all rows'
                all_rows = self._common_rows(feed.validated(np.arange(len(rows))))
                passes = [self._pass(rows, all_rows, shared=True)]
        return self._validation_logs(passes), part_passes

    def logs_over(self, passes: Sequence[Pass]) -> dict[str, float]:
        """Return the validation logs over what several passes of one slot went over.

        Args:
            passes: as `Pass.of_slot` returns them; they may be of different epochs.
        """
        with self._here():
            return _of_slot(self._validation_logs(passes), 0)

    def _validation_logs(self, passes: Sequence[Pass]) -> dict[str, np.ndarray]:
        logs = {f"val_{name}": values for name, values in self._logs(passes).items()}
        if self._scores:
            slot_values = [
                scores_of(self._scores, concatenated(slot_chunks))
                for slot_chunks in zip(*_total(passes).predictions, strict=True)
            ]
            logs |= {
                name: np.array([values[name] for values in slot_values]) for name in self._scores
            }
        return logs

    @property
    def _has_only_means(self) -> bool:
        """Whether loss and metrics are means over rows, however these are cut into batches."""
        return self._program.loss.is_mean and not self._program.metrics.others

    def _validation_batch(self) -> int:
        """How many validation rows to take at once."""
        batch = self.feed.validation_step_rows
        if self.feed.validation_batch_size or not self._has_only_means:
            return batch
        # a mean does not depend on how the rows are cut
        return max(batch, min(len(self.feed.validation), _VALIDATION_BATCH))  # type: ignore[arg-type]

    def _common_rows(self, rows: np.ndarray) -> np.ndarray:
        """The index of the same rows for all slots."""
        batch = self._validation_batch()
        return in_steps(rows.astype(np.int32), math.ceil(len(rows) / batch), batch)

    def _slot_rows(self, part: int | None = None) -> np.ndarray:
        """The index of each slot's validation rows, or of a part of them: `(K, steps, batch)`."""
        batch = self._validation_batch()
        job_rows = [None if slot is None else slot.job.rows_of(part) for slot in self.slots]
        job_rows = [None if rows is None else self.feed.validated(rows) for rows in job_rows]
        present = [rows for rows in job_rows if rows is not None]
        steps = math.ceil(max(map(len, present)) / batch)
        return np.stack(
            [in_steps(present[0] if rows is None else rows, steps, batch) for rows in job_rows]
        )

    def _pass(self, source: Rows | Stream, index: np.ndarray | None, *, shared: bool) -> Pass:
        """Go over rows once: add up sums, and gather each slot's predictions if needed.

        Args:
            index: which rows each slot takes, `(K, steps, batch)` or, if `shared`, `(steps,
                batch)`; not of a stream.
        """
        collect = bool(self._program.metrics.others or self._scores)
        chunk_passes = []
        chunks: Any = source.chunks() if isinstance(source, Stream) else [(source, index)]
        for rows, chunk_index in chunks:
            slot_index = np.broadcast_to(
                chunk_index, [self._program.slots, *chunk_index.shape[-2:]]
            )
            sums, predictions = self._program.test(
                rows, slot_index, shared, GATHER_BYTES, collect=collect
            )
            chunk_passes.append(Pass(sums, _of_slots(rows, slot_index, predictions)))
        return _total(chunk_passes)

    def _logs(self, passes: Sequence[Pass]) -> dict[str, np.ndarray]:
        """Return all metrics of all slots over the rows of some passes, `(K, ...)` each."""
        total = _total(passes)
        logs = total.sums.means()
        if self._program.metrics.others:
            slot_values = [
                self._program.metrics.compute_others(concatenated(slot_chunks))
                for slot_chunks in zip(*total.predictions, strict=True)
            ]
            logs |= {
                name: np.array([values[name] for values in slot_values]) for name in slot_values[0]
            }
        return logs


@dataclasses.dataclass(eq=False, frozen=True)
class _ValuesInSlot:
    """See `SlotValues`: the numbers of a slot, wherever it stands in its lane."""

    lane: Lane
    slot: Slot

    @property
    def _position(self) -> int:
        return self.lane.slots.index(self.slot)

    def weights(self) -> list[np.ndarray]:
        return self.lane.seen_weights(self._position, self.slot.model.restored)

    def state(self) -> OptimizerState:
        return self.lane.seen_state(self._position)

    def write(self, weights: list[np.ndarray], state: OptimizerState) -> None:
        position = self._position
        # who asked to keep the weights meant those before
        for name in self.slot.model.keep_requested:
            self.lane.keep(name, [position])
        self.slot.model.keep_requested.clear()
        self.slot.model.restored = None
        self.lane.replace(position, None, weights, state)

    def steps(self) -> int:
        return self.lane.steps_at(self._position)

    def put_weights(self, member: Member, weights: list[np.ndarray]) -> None:
        self.lane.layout.restore_weights(member, weights)

    def put_state(self, member: Member, state: OptimizerState) -> None:
        self.lane.layout.restore_state(member, state)

    def state_in(self, member: Member) -> OptimizerState | None:
        return self.lane.layout.state_of(member)


@dataclasses.dataclass
class Pass:
    """What going over rows once gave.

    Args:
        sums: of losses and mean metrics.
        predictions: by chunk and slot; empty if not needed.
    """

    sums: Sums
    predictions: list[list[Predicted]]

    def of_slot(self, position: int) -> Pass:
        """Return what it gave for one slot, as of a program that has no other."""
        return Pass(self.sums.of_slot(position), [[chunk[position]] for chunk in self.predictions])


def _of_slot(values: dict[str, np.ndarray], position: int) -> dict[str, Any]:
    return {
        name: number_or_array(values_of_slots[position]) for name, values_of_slots in values.items()
    }


def _total(passes: Sequence[Pass]) -> Pass:
    """What going over rows gave in several passes, or chunks of one."""
    if not passes:
        raise ValueError("the dataset was empty in a later epoch: it cannot be read twice")
    sums = [each.sums for each in passes]
    return Pass(sum(sums[1:], sums[0]), [chunk for each in passes for chunk in each.predictions])


def _of_slots(
    rows: Rows, index: np.ndarray, predictions: Sequence[np.ndarray] | None
) -> list[list[Predicted]]:
    """The predictions of a chunk by slot, as `Pass` has them.

    Args:
        predictions: of each output, `(K, steps, batch, ...)`.
    """
    if predictions is None:
        return []
    slots = zip(index, *predictions, strict=True)
    return [[predicted_rows(rows, slot_index, parts) for slot_index, *parts in slots]]
