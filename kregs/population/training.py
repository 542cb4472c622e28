"""`Training`: the training loop. Jobs wait in a queue, take a slot, train epoch by epoch, leave.

Every slot is at its own epoch, so a slot that early stopping frees is given to the next job at once
and no arithmetic is spent on the departed. Several devices share the jobs out.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.jobs import Job, Slot
from kregs.population.lane import EpochLogs, Lane
from kregs.population.layout import Layout
from kregs.population.metrics import Score
from kregs.population.optimizers import OptimizerState
from kregs.population.program import Program
from kregs.population.registry import NotStackable
from kregs.population.rows import Feed, Stream
from kregs.population.signature import Member


def check_devices(devices: Sequence[str] | None) -> list[str] | None:
    """Return names of devices that TensorFlow has; `None` stays `None`.

    Raises:
        TypeError: it is no list of names.
        ValueError: TensorFlow has no such device; the message names those that it has.
    """
    if devices is None:
        return None
    if not isinstance(devices, (list, tuple)) or not devices:
        raise TypeError(f"`devices` must be a list of names of devices. Received: {devices!r}")
    known = {device.name for device in tf.config.list_logical_devices()}
    short = {name.removeprefix("/device:") for name in known}
    for device in devices:
        if device not in known | short:
            raise ValueError(
                f"`devices` must be among {', '.join(sorted(short))}. Received: {device!r}"
            )
    return list(devices)


class Training:
    """Trains jobs of one structure together, over the slots of a program on each device.

    `run` yields each job when it has ended. While it waits for the next one, and in `on_epoch`, a
    driver may hand in further jobs, stop jobs (`job.stop_training = True`), read the weights and
    the optimizer state of those that train, and let one go on as another member (`replace`).

    Args:
        layout: the jobs' common structure.
        slots: how many members train at once on a device.
        feed: the rows.
        objective: maps an epoch's logs to a number, the lower the better; a job then ends with the
            weights of its best epoch. `None`: it ends as `fit` does, with the last weights or those
            that early stopping restores.
        keep_last: a job with an `objective` ends with the weights of its last finite epoch.
        cross_fit: with two parts of the validation rows, a job ends with the metrics over both,
            each part as it was in the epoch whose `objective` is best on the other. Its sums and,
            where a metric is no mean over rows, its predictions of these two epochs are kept.
        on_epoch: called with every job that trains after each of its epochs, when all devices have
            ended theirs; `job.epoch`, `job.history` and `job.logs` are up to date.
        accelerate: see `Program`.
        devices: names of the devices that share the members out. Default: all GPUs. A stream is
            read for one device only.
        scores: further logs of an epoch by name: functions of the targets, the predictions and
            the weights of all validation rows of a member, of models with one output.

    Example:

    >>> import collections, keras, numpy as np
    >>> from kregs.population.jobs import Job
    >>> from kregs.population.layout import Layout
    >>> from kregs.population.rows import Feed, as_rows
    >>> from kregs.population.signature import read_member
    >>> def member(rate):
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(rate), "mse")
    ...     return read_member(model)
    >>> members = [member(rate) for rate in (0.01, 0.1, 0.2)]
    >>> feed = Feed(as_rows(np.ones((8, 2)), np.ones(8)), None, batch_size=4)
    >>> training = Training(Layout(members), 2, feed)
    >>> jobs = [Job(m, None, seed=0, callbacks=[], epochs=2, name=k) for k, m in enumerate(members)]
    >>> [(job.name, len(job.history["loss"])) for job in training.run(collections.deque(jobs))]
    [(0, 2), (1, 2), (2, 2)]
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        feed: Feed,
        *,
        objective: Callable[[dict[str, float]], float] | None = None,
        keep_last: bool = False,
        cross_fit: bool = False,
        on_epoch: Callable[[Job], None] | None = None,
        accelerate: bool | None = None,
        devices: Sequence[str] | None = None,
        scores: Mapping[str, Score] | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self.objective = objective
        self.keep_last = keep_last
        self.cross_fit = cross_fit
        self.on_epoch = on_epoch or (lambda job: None)
        if devices is None:
            devices = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
        streamed = isinstance(feed.data, Stream) or isinstance(feed.validation, Stream)
        lane_devices: Sequence[Any] = devices if len(devices) > 1 and not streamed else [None]
        self._lanes = [
            Lane(layout, feed, device=device, accelerate=accelerate, scores=scores)
            for device in lane_devices
        ]
        self._under_way: list[Job] = []  # in slots, or about to be
        self._finished: collections.deque[Job] = collections.deque()  # and not yet yielded
        self._runs = False

    def program(self, slots: int) -> Program:
        """Return the program with this many slots on the first device, made once."""
        return self._lanes[0].program(slots)

    def targets_like(self, head: Any) -> bool:
        """Return whether targets have the structure, types and shapes of those it trains on."""
        own = self._lanes[0].feed.data.head
        try:
            keras.tree.assert_same_structure(own, head)
        except ValueError:
            return False
        pairs = zip(keras.tree.flatten(own), keras.tree.flatten(head), strict=True)
        return all(a.dtype == b.dtype and a.shape[1:] == b.shape[1:] for a, b in pairs)

    def forget(self) -> None:
        """Give back the memory of all programs, which are compiled anew if they are needed."""
        for lane in self._lanes:
            lane.forget()

    def run(self, queue: collections.deque[Job]) -> Generator[Job, None, None]:
        """Train all jobs in the queue, and those that are added to it meanwhile.

        Where memory does not suffice, the jobs under way begin anew, half as many at once. A
        consumer may stop early and close the iterator (`contextlib.closing`): the slots are freed,
        jobs under way stand at the front of the queue again as they were before they began, and
        jobs that have ended but were not yielded come first in the next `run`. An error ends the
        iterator in the same way, after the jobs that had ended.

        Args:
            queue: waiting jobs; they are taken from its left.

        Yields:
            Each job when it has ended, with its results in it.

        Raises:
            RuntimeError: another `run` of this training is not at its end.
            tensorflow.errors.ResourceExhaustedError: a single member does not fit the memory.
        """
        if self._runs:
            raise RuntimeError("this training runs already: close that iterator first")
        self._runs = True
        try:
            with ThreadPoolExecutor(len(self._lanes)) as threads:
                while True:
                    yield from self._yield_finished()
                    if not queue:
                        return
                    try:
                        yield from self._train(queue, threads)
                    except tf.errors.ResourceExhaustedError:
                        if self.slots == 1:
                            raise
                        # nothing is lost: what was under way begins anew
                        self.slots = max(1, self.slots // 2)
                        self._release(queue)
                        for lane in self._lanes:
                            lane.forget()
        except Exception:
            yield from self._yield_finished()
            raise
        finally:
            self._release(queue)
            self._runs = False

    def _yield_finished(self) -> Generator[Job, None, None]:
        while self._finished:
            yield self._finished.popleft()

    def _release(self, queue: collections.deque[Job]) -> None:
        """Free all slots; jobs under way go back to the front of the queue."""
        for lane in self._lanes:
            lane.release()
        for job in self._under_way:
            job.reset()
        queue.extendleft(reversed(self._under_way))
        self._under_way = []

    def _train(
        self, queue: collections.deque[Job], threads: ThreadPoolExecutor
    ) -> Generator[Job, None, None]:
        share = math.ceil(len(queue) / len(self._lanes))
        for lane in self._lanes:
            lane.open(share, self.slots)
        while True:
            for lane in self._lanes:
                lane.grow(math.ceil(len(queue) / len(self._lanes)), self.slots)
            self._share_out(queue)
            lanes = [lane for lane in self._lanes if lane.active]
            if not lanes:
                return
            for lane in lanes:
                lane.compact(len(queue))
                for _, slot in lane.active:
                    slot.tell("on_epoch_begin", slot.job.epoch, {})
                self._drop_failed(lane)
            lanes = [lane for lane in lanes if lane.active]
            for lane, slot_logs in zip(lanes, self._epoch(lanes, threads), strict=True):
                self._record(lane, slot_logs)
                self._drop_failed(lane)
            try:
                for lane in lanes:
                    for _, slot in lane.active:
                        self.on_epoch(slot.job)
            finally:  # whatever a driver raises, what has ended is not lost
                for lane in lanes:
                    self._leave(lane)
            yield from self._yield_finished()

    def _share_out(self, queue: collections.deque[Job]) -> None:
        """Give free slots to waiting jobs, the most to the lane with the most of them."""
        free = {lane: lane.free for lane in self._lanes}
        shares: dict[Lane, list[Job]] = {lane: [] for lane in self._lanes}
        while queue and any(free.values()):
            lane = max(free, key=free.__getitem__)
            job = queue.popleft()
            shares[lane].append(job)
            self._under_way.append(job)  # before a lane may run out of memory
            free[lane] -= 1
        for lane, jobs in shares.items():
            lane.take(jobs)

    def _epoch(self, lanes: Sequence[Lane], threads: ThreadPoolExecutor) -> list[list[EpochLogs]]:
        """Train an epoch of all lanes and validate it; callbacks are told in between."""
        validates = any(lane.feed.validation is not None for lane in lanes)
        if not validates or not any(
            slot.callbacks.see_tests for lane in lanes for _, slot in lane.active
        ):
            return self._in_threads([lane.epoch for lane in lanes], threads)
        self._in_threads([lane.train_epoch for lane in lanes], threads)
        for lane in lanes:
            for _, slot in lane.active:
                if slot.job.validates:
                    slot.tell("on_test_begin", {})
        lane_logs = self._in_threads([lane.validate_epoch for lane in lanes], threads)
        for slot_logs in lane_logs:
            for ended in slot_logs:
                if not ended.slot.job.validates:
                    continue
                validation_logs = {
                    name.removeprefix("val_"): value
                    for name, value in ended.logs.items()
                    if name.startswith("val_")
                }
                ended.slot.tell("on_test_end", validation_logs)
        return lane_logs

    @staticmethod
    def _in_threads(calls: Sequence[Callable[[], Any]], threads: ThreadPoolExecutor) -> list[Any]:
        """Let all lanes do something: arithmetic alone is in threads, callbacks know none."""
        if len(calls) == 1:
            return [calls[0]()]
        futures = [threads.submit(call) for call in calls]
        wait(futures)  # where one fails, the others must not go on by themselves
        return [future.result() for future in futures]

    def _record(self, lane: Lane, slot_logs: list[EpochLogs]) -> None:
        """Add an epoch to the jobs of a lane, and remember weights that are the best so far."""
        keeps: dict[str, list[int]] = collections.defaultdict(list)
        judged: list[Slot] = []
        for ended in slot_logs:
            slot, job = ended.slot, ended.slot.job
            self._keep_parts(ended)
            epoch, loss = job.epoch, ended.logs["loss"]
            if not math.isfinite(loss):
                job.failure = f"the loss is {loss} after epoch {epoch + 1}"
            last_step = slot.epoch_steps - 1
            job.epoch += 1
            slot.logs = ended.logs
            logs = dict(slot.logs)  # as in `fit`, callbacks add to it
            slot.end_epoch(epoch, last_step, logs)
            job.seconds += lane.seconds / len(slot_logs)
            if job.error is not None:
                continue
            job.log(logs, ended.by_part)
            if self._judge(job, epoch, dict.fromkeys(ended.missing, math.nan) | logs):
                keeps["best"].append(ended.position)
                judged.append(slot)
                slot.swap_averages("on_test_begin")
            if self.objective is None:
                for name in slot.model.keep_requested:
                    keeps[name].append(ended.position)
            slot.model.keep_requested.clear()
        for name, positions in keeps.items():
            lane.keep(name, positions)
        for slot in judged:
            slot.swap_averages("on_test_end")

    def _keep_parts(self, ended: EpochLogs) -> None:
        """Keep what one part gave in an epoch that is the best so far on the other."""
        if not self.cross_fit or self.objective is None or len(ended.by_part) != 2:
            return
        bests = ended.slot.job.part_bests
        for part, other in ((0, 1), (1, 0)):
            value = self.objective(ended.by_part[part])
            if value < bests[part][0]:  # never of NaN
                bests[part] = value, ended.part_passes[other].of_slot(ended.position)

    def _judge(self, job: Job, epoch: int, logs: dict[str, float]) -> bool:
        """Note a better objective; return whether these weights are to be kept."""
        if self.objective is None or job.failure is not None:
            return False
        # lower is better here; the objective's direction is in the function
        value = self.objective(logs)
        if not math.isfinite(value) or not (self.keep_last or value < job.best_value):
            return False
        job.best_value, job.best_epoch = value, epoch
        return True

    def _drop_failed(self, lane: Lane) -> None:
        """Finish the jobs whose callbacks have raised."""
        for position, slot in lane.active:
            if slot.job.error is not None:
                lane.drop(position)
                self._under_way.remove(slot.job)
                self._finished.append(slot.job)

    def _leave(self, lane: Lane) -> None:
        """Finish the jobs that have ended."""
        for position, slot in lane.active:
            if not slot.ended:
                continue
            job = slot.job
            if self.objective is not None:  # as callbacks left it before they end the training
                lane.keep_end(position)
            else:
                lane.finalize(position)
            slot.tell("on_train_end", slot.logs)
            if job.error is not None:
                continue
            if self.objective is None:
                lane.keep_end(position)
            job.stopped_epoch = job.epoch - 1
            passes = [kept_pass for _, kept_pass in job.part_bests]
            if all(kept_pass is not None for kept_pass in passes):
                job.crossed_logs = lane.logs_over(passes[::-1])  # in the order of the parts
            job.part_bests = [(math.inf, None), (math.inf, None)]
            if self.objective is not None:
                kept = "best" if job.best_epoch >= 0 else None
            else:
                kept = slot.model.restored
            lane.leave(position, kept)
            self._under_way.remove(job)
            self._finished.append(job)
        self._drop_failed(lane)

    # ---- what a driver may do with jobs that train -----------------------------------------

    @property
    def running(self) -> list[Job]:
        """The jobs that train and have a further epoch before them."""
        return [slot.job for lane in self._lanes for _, slot in lane.active if not slot.ended]

    def weights_of(self, job: Job) -> list[np.ndarray]:
        """Return the present weights of a job that trains, in the order of `job.member.weights`.

        Raises:
            ValueError: the job does not train at the moment.
        """
        lane, position = self._place_of(job)
        return lane.weights_at(position)

    def state_of(self, job: Job) -> OptimizerState:
        """Return the present state of the optimizer of a job that trains.

        Raises:
            ValueError: the job does not train at the moment.
        """
        lane, position = self._place_of(job)
        return lane.state_at(position)

    def replace(
        self,
        job: Job,
        *,
        member: Member | None = None,
        weights: list[np.ndarray] | None = None,
        state: OptimizerState | None = None,
    ) -> None:
        """Let a job that trains go on as another member, as population-based training does.

        Its seed, rows, callbacks, epochs and what came of it so far stay: `best_weights` may be of
        an epoch before. Where memory runs out later, it begins anew as the member that it was
        handed in with.

        Args:
            job: one of `running`.
            member: whose numbers it goes on with (penalties, rates, learning rate or schedule).
                Default: the present ones.
            weights: `(*shape)` each, such as `weights_of` another job. Default: the present ones.
            state: of the optimizer, such as `state_of` another job. Default: the present one.

        Raises:
            ValueError: the job does not train, or has no further epoch.
            NotStackable: the member has something that the layout has no place for.

        Example: in `on_epoch`, a job goes on from another one with a learning rate of its own.

            training.replace(
                worse, member=read_member(build(learning_rate=0.8 * rate)),
                weights=training.weights_of(better), state=training.state_of(better),
            )
        """
        lane, position = self._place_of(job)
        if job not in self.running:
            raise ValueError(f"`job` must have a further epoch. Received: job {job.name!r}")
        if member is not None and not self.layout.fits(member):
            raise NotStackable("`member` has something that the jobs' layout has no place for")
        lane.replace(position, member, weights, state)

    def _place_of(self, job: Job) -> tuple[Lane, int]:
        for lane in self._lanes:
            for position, slot in lane.active:
                if slot.job is job:
                    return lane, position
        raise ValueError(f"`job` must train at the moment. Received: job {job.name!r}")
