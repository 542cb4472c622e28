"""The chief of a search: hands an oracle's trials to workers, and takes back those of dead ones.

The messages are keras-tuner's. Its own chief never learns that a worker was killed, and waits for
the names of a population's trials in vain; this one does and does not.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from kregs.search.keras_tuner_internals import (
    knows,
    messages,
    space_message,
    trial_folder,
    trial_message,
    try_again,
)
from kregs.search.storage import TrialRecord, searched_values
from kregs.search.workers.client import CALLER_HEADER, SEED_HEADER, chief_address

SILENCE = 60.0  # seconds after which a worker that sends nothing counts as dead
_TIME_TO_ASK = 10.0  # seconds that workers have to learn that the search is over
_THREADS = 32  # calls wait for one another: a sign of life must not wait behind them
# two chiefs could share a port otherwise
_SERVER = (("grpc.so_reuseport", 0),)

_messages = messages()


class Chief(_messages.OracleServicer):  # type: ignore[name-defined]
    """Hands an oracle's trials to workers, and those of a dead worker to others.

    A trial belongs to the worker that asked for it last: what others say of it is not heard, so
    that every trial ends once. While trials are under way no worker is sent home, since it may be
    needed for one of them.

    Args:
        oracle: knows the space; its project directory is set.
        progress: is told of trials.
        on_end: called with a trial's id after it has ended.
    """

    def __init__(
        self, oracle: Any, progress: Any, on_end: Callable[[str], None] = lambda trial_id: None
    ) -> None:
        super().__init__(oracle)
        self._progress, self._on_end = progress, on_end
        self._lock = threading.Lock()
        self._owners: dict[str, tuple[str, str]] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._gone: set[tuple[str, str]] = set()
        self._error: Exception | None = None
        self._finished: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the oracle has no further trial and all have ended."""
        return self._finished is not None

    @property
    def all_workers_told(self) -> bool:
        """Whether all workers know that the search is over, or had the time to ask."""
        if self._finished is None:
            return False
        with self._lock:
            return not self._seen or time.monotonic() > self._finished + _TIME_TO_ASK

    @contextlib.contextmanager
    def serving(self, host: str, port: int) -> Iterator[int]:
        """Answer calls; gives the port.

        Args:
            host: name or address of this machine.
            port: 0 for any that is free.

        Raises:
            ValueError: the address cannot be listened at.
        """
        server = grpc.server(futures.ThreadPoolExecutor(_THREADS), options=_SERVER)
        _messages.grpc.add_OracleServicer_to_server(self, server)
        try:
            bound = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:
            raise ValueError(
                f"KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT: the chief cannot listen at "
                f"{host}:{port}; another process may have that port. Choose another"
            )
        server.start()
        try:
            yield bound
        finally:
            server.stop(1.0).wait()

    def check(self) -> None:
        """Take the trials of workers that fell silent; raise what a call has raised."""
        with self._lock:
            if self._error is not None:
                raise self._error
            now = time.monotonic()
            for worker in [w for w, seen in self._seen.items() if now > seen + SILENCE]:
                self._lose(worker)

    def lost(self, tuner_id: str) -> None:
        """Say that a worker has ended: its trials go to others."""
        with self._lock:
            for worker in [w for w in {*self._seen, *self._owners.values()} if w[0] == tuner_id]:
                self._lose(worker)

    def _lose(self, worker: tuple[str, str]) -> None:
        self._gone.add(worker)
        self._seen.pop(worker, None)
        lost_trials = {trial for trial, owner in self._owners.items() if owner == worker}
        try_again(self.oracle, lost_trials)
        for trial_id in lost_trials:
            del self._owners[trial_id]
        if lost_trials:
            self.oracle.save()
            count = f"{len(lost_trials)} trial{'' if len(lost_trials) == 1 else 's'}"
            self._progress.note(f"worker {worker[0]} is gone; its {count} will be trained again")

    # ---- calls -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self, context: Any) -> Iterator[tuple[str, str]]:
        """Give the caller; one call at a time. An error is the search's, not the caller's."""
        worker = self._caller(context)
        with self._lock:
            if self._error is not None:
                context.abort(grpc.StatusCode.ABORTED, str(self._error))
            if worker in self._gone:
                context.abort(
                    grpc.StatusCode.ABORTED,
                    f"it has not heard of this worker for {SILENCE:.0f} s; others have its trials",
                )
            for other in [w for w in self._seen if w[0] == worker[0] and w != worker]:
                self._lose(other)  # this one was started in its place
            if worker[1]:
                self._seen[worker] = time.monotonic()
            try:
                yield worker
            except Exception as error:
                self._error = error
                raise

    def _caller(self, context: Any) -> tuple[str, str]:
        """The caller's tuner id and which of its lives this is; empty for keras-tuner's client."""
        sent = dict(context.invocation_metadata()).get(CALLER_HEADER)
        name, life = json.loads(sent) if sent else ("", "")
        return name, life

    def GetSpace(self, request: Any, context: Any) -> Any:
        worker = self._caller(context)
        if worker in self._seen:  # without the lock: this is the sign of life
            self._seen[worker] = time.monotonic()
        context.set_trailing_metadata(((SEED_HEADER, str(self.oracle.seed)),))
        space = space_message(self.oracle.get_space())
        return _messages.service.GetSpaceResponse(hyperparameters=space)

    def UpdateSpace(self, request: Any, context: Any) -> Any:
        with self._call(context):
            return super().UpdateSpace(request, context)

    def CreateTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            trial = self.oracle.create_trial(request.tuner_id)
            if trial.status == _messages.TrialStatus.RUNNING:
                self._owners[trial.trial_id] = worker
                self._progress.trial_started(
                    trial.trial_id, searched_values(trial.hyperparameters.values)
                )
            elif trial.status == _messages.TrialStatus.STOPPED and self.oracle.ongoing_trials:
                trial.status = _messages.TrialStatus.IDLE
            elif trial.status == _messages.TrialStatus.STOPPED:
                self._finished = self._finished or time.monotonic()
                self._seen.pop(worker, None)
            return _messages.service.CreateTrialResponse(trial=trial_message(trial))

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            if self._owners.get(request.trial_id) == worker:
                self.oracle.update_trial(request.trial_id, request.metrics, step=request.step)
            trial = self.oracle.trials[request.trial_id]
            return _messages.service.UpdateTrialResponse(trial=trial_message(trial))

    def GetTrial(self, request: Any, context: Any) -> Any:
        trial = self.oracle.get_trial(request.trial_id)
        return _messages.service.GetTrialResponse(trial=trial_message(trial))

    def GetBestTrials(self, request: Any, context: Any) -> Any:
        best = self.oracle.get_best_trials(request.num_trials)
        return _messages.service.GetBestTrialsResponse(trials=map(trial_message, best))

    def EndTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            trial = _messages.Trial.from_proto(request.trial)
            if self._owners.get(trial.trial_id) == worker:
                self._end(trial)
            return _messages.service.EndTrialResponse()

    def _end(self, trial: Any) -> None:
        known = self.oracle.trials[trial.trial_id]
        # a message holds neither the order of hyperparameters nor the reason of a failure
        new = [hp for hp in trial.hyperparameters.space if not knows(known.hyperparameters, hp)]
        known.hyperparameters.merge(new)
        values = {**known.hyperparameters.values, **trial.hyperparameters.values}
        known.hyperparameters.values = values
        trial.hyperparameters = known.hyperparameters
        record = TrialRecord.read(trial_folder(self.oracle, trial.trial_id))
        trial.message = None if record is None else record.traceback or record.message
        del self._owners[trial.trial_id]
        self.oracle.end_trial(trial)
        self.oracle.save()  # keras-tuner's last state has the trial under way
        if trial.trial_id in self.oracle.end_order:
            reason = None if record is None else record.message
            self._progress.trial_ended(trial.trial_id, known.score, reason)
        self._on_end(trial.trial_id)


def serve(oracle: Any, progress: Any, on_end: Any, check_time: Any) -> None:
    """Be the chief that the environment variables speak of, until the search is over."""
    chief = Chief(oracle, progress, on_end)
    with chief.serving(*chief_address()):
        while not chief.all_workers_told:
            chief.check()
            check_time()
            time.sleep(0.1)
