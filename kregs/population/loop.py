"""The training loop: members wait in a queue, take a slot, train epoch by epoch, leave.

Every slot is at its own epoch, so a slot that early stopping frees is given to the next member at
once and no arithmetic is spent on the departed. Several devices share the members out.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from kregs.population.jobs import Job, Slot
from kregs.population.lane import EpochLogs, Feed, Lane
from kregs.population.layout import Layout
from kregs.population.program import Program
from kregs.population.rows import Stream


class Training:
    """One run of many jobs over the slots of a program on each device.

    Args:
        layout: the jobs' common structure.
        slots: how many members train at once on a device.
        feed: the rows.
        objective: maps an epoch's logs to a number, the lower the better; a job then ends with the
            weights of its best epoch. `None`: it ends as `fit` does, with the last weights or those
            that early stopping restores.
        keep_state: a job ends with the state of its optimizer, for a job that goes on from it.
        keep_last: a job with an `objective` ends with the weights of its last finite epoch.
        on_epoch, on_done: called with a job after each of its epochs and at its end.
        accelerate: see `Program`.
        devices: names of the devices that share the members out. Default: all GPUs. A stream is
            read for one device only.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        feed: Feed,
        *,
        objective: Callable[[dict[str, float]], float] | None = None,
        keep_state: bool = False,
        keep_last: bool = False,
        on_epoch: Callable[[Job, int, dict[str, float]], None] | None = None,
        on_done: Callable[[Job], None] | None = None,
        accelerate: bool | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self.objective = objective
        self.keep_state = keep_state
        self.keep_last = keep_last
        self.on_epoch = on_epoch or (lambda *_: None)
        self.on_done = on_done or (lambda *_: None)
        if devices is None:
            devices = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
        streamed = isinstance(feed.data, Stream) or isinstance(feed.validation, Stream)
        places: Sequence[Any] = devices if len(devices) > 1 and not streamed else [None]
        self._lanes = [
            Lane(layout, feed, device=device, accelerate=accelerate) for device in places
        ]

    def program(self, slots: int) -> Program:
        """Return the program with this many slots on the first device, made once."""
        return self._lanes[0].program(slots)

    def run(self, queue: collections.deque[Job]) -> None:
        """Train all jobs in the queue, and those that `on_done` or `on_epoch` add to it.

        A job is finished when `on_done` has been called with it.
        """
        with ThreadPoolExecutor(len(self._lanes)) as threads:
            while queue:
                started: list[Job] = []
                try:
                    self._run(queue, started, threads)
                except tf.errors.ResourceExhaustedError:
                    if self.slots == 1:
                        raise
                    # nothing is lost: what was under way starts again, half as many at once
                    self.slots = max(1, self.slots // 2)
                    for lane in self._lanes:
                        lane.forget()
                    queue.extendleft(reversed([job.fresh() for job in started]))

    def _run(
        self, queue: collections.deque[Job], started: list[Job], threads: ThreadPoolExecutor
    ) -> None:
        share = min(self.slots, math.ceil(len(queue) / len(self._lanes)))
        for lane in self._lanes:
            lane.open(share)
        while True:
            self._share_out(queue, started)
            lanes = [lane for lane in self._lanes if lane.active]
            if not lanes:
                return
            for lane in lanes:
                lane.compact(len(queue))
                for _, slot in lane.active:
                    for callback in slot.job.callbacks:
                        callback.on_epoch_begin(slot.epoch)
            # nothing but arithmetic is in threads: callbacks and oracles know none
            over = map if len(lanes) == 1 else threads.map
            for lane, found in zip(lanes, list(over(Lane.epoch, lanes)), strict=True):
                self._end_epochs(lane, found)
            for lane in lanes:
                self._leave(lane, started)

    def _share_out(self, queue: collections.deque[Job], started: list[Job]) -> None:
        """Give free slots to waiting jobs, the most to the lane with the most of them."""
        free = {lane: lane.free for lane in self._lanes}
        taken: dict[Lane, list[Job]] = {lane: [] for lane in self._lanes}
        while queue and any(free.values()):
            lane = max(free, key=free.__getitem__)
            taken[lane].append(queue.popleft())
            started.append(taken[lane][-1])  # before a lane may run out of memory
            free[lane] -= 1
        for lane, jobs in taken.items():
            lane.take(jobs)

    def _end_epochs(self, lane: Lane, found: list[EpochLogs]) -> None:
        keeps: dict[str, list[int]] = {"best": [], "kept": []}
        for own in found:
            slot = own.slot
            if own.by_part and not slot.job.part_histories:
                slot.job.part_histories = [{} for _ in own.by_part]
            for history, part in zip(slot.job.part_histories, own.by_part, strict=True):
                for name, value in part.items():
                    history.setdefault(name, []).append(value)
            self._end_epoch(slot, own.logs)
            if self.objective is not None:
                if slot.job.best_epoch == slot.epoch - 1:
                    keeps["best"].append(own.position)
            elif slot.model.keep_requested:
                keeps["kept"].append(own.position)
            slot.model.keep_requested = False
            slot.job.seconds += lane.seconds / len(found)
        for name, positions in keeps.items():
            lane.keep(name, positions)

    def _end_epoch(self, slot: Slot, logs: dict[str, float]) -> None:
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

    def _leave(self, lane: Lane, started: list[Job]) -> None:
        """Finish the jobs that have ended."""
        for position, slot in lane.active:
            if not slot.ended:
                continue
            job = slot.job
            for callback in job.callbacks:
                callback.on_train_end()
            job.stopped_epoch = slot.epoch - 1
            if self.objective is not None:
                kept = "best" if job.best_epoch >= 0 else None
            else:
                kept = "kept" if slot.model.restored else None
            lane.leave(position, job, kept, state=self.keep_state)
            started.remove(job)
            self.on_done(job)
