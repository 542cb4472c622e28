"""keras-tuner's chief and workers: one process proposes trials, others train them.

The messages are keras-tuner's. Its own chief never learns that a worker was killed, and waits for
the names of a population's trials in vain; this one does and does not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client
from keras_tuner.src.engine import conditions
from keras_tuner.src.engine.trial import Trial, TrialStatus

from kregs.search.engine import TrialRecord, own_hyperparameters
from kregs.search.oracles import expected_trials

SILENCE = 60.0  # seconds after which a worker that sends nothing counts as dead
_BEAT = 2.0
_IDLE = 0.3
_FIRST_ANSWER = 3600.0  # keras-tuner's time for a chief to start
_ANSWER = 300.0  # the proposal of a Gaussian process may take long
_FAREWELL = 10.0
_HEADER = "kregs-worker"
_SEED = "kregs-seed"
_THREADS = 32  # calls wait for one another: a sign of life must not wait behind them
# a proxy is for other networks than this
_CHANNEL = (("grpc.enable_http_proxy", 0),)
# two chiefs could share a port otherwise
_SERVER = (("grpc.so_reuseport", 0),)

# keras-tuner prints every condition that it sends
conditions.print = lambda *values: None


class Chief(oracle_chief.OracleServicer):
    """Hands an oracle's trials to workers, and those of a dead worker to others.

    A trial belongs to the worker that asked for it last: what others say of it is not heard, so
    that every trial ends once. While trials are under way no worker is sent home, since it may be
    needed for one of them.

    Args:
        oracle: knows the space; its project directory is set.
        progress: is told of trials.
        on_end: called after a trial has ended.
    """

    def __init__(self, oracle: Any, progress: Any, on_end: Any = lambda: None) -> None:
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
    def left_alone(self) -> bool:
        """Whether all workers know that the search is over, or had the time to ask."""
        if self._finished is None:
            return False
        with self._lock:
            return not self._seen or time.monotonic() > self._finished + _FAREWELL

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
        protos.get_service_grpc().add_OracleServicer_to_server(self, server)
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
        mine = {trial for trial, owner in self._owners.items() if owner == worker}
        for tuner_id, trial in list(self.oracle.ongoing_trials.items()):
            if trial.trial_id in mine:
                del self.oracle.ongoing_trials[tuner_id]
        # the queue is taken from its end
        self.oracle._retry_queue.extend(sorted(mine, reverse=True))
        for trial_id in mine:
            del self._owners[trial_id]
        if mine:
            self.oracle.save()
            count = f"{len(mine)} trial{'' if len(mine) == 1 else 's'}"
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
        sent = dict(context.invocation_metadata()).get(_HEADER)
        name, life = json.loads(sent) if sent else ("", "")
        return name, life

    def GetSpace(self, request: Any, context: Any) -> Any:
        worker = self._caller(context)
        if worker in self._seen:  # without the lock: this is the sign of life
            self._seen[worker] = time.monotonic()
        context.set_trailing_metadata(((_SEED, str(self.oracle.seed)),))
        return super().GetSpace(request, context)

    def UpdateSpace(self, request: Any, context: Any) -> Any:
        with self._call(context):
            return super().UpdateSpace(request, context)

    def CreateTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            trial = self.oracle.create_trial(request.tuner_id)
            if trial.status == TrialStatus.RUNNING:
                self._owners[trial.trial_id] = worker
                self._progress.trial_started(
                    trial.trial_id, own_hyperparameters(trial.hyperparameters.values)
                )
            elif trial.status == TrialStatus.STOPPED and self.oracle.ongoing_trials:
                trial.status = TrialStatus.IDLE
            elif trial.status == TrialStatus.STOPPED:
                self._finished = self._finished or time.monotonic()
                self._seen.pop(worker, None)
            return protos.get_service().CreateTrialResponse(trial=trial.to_proto())

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            if self._owners.get(request.trial_id) == worker:
                return super().UpdateTrial(request, context)
            trial = self.oracle.trials[request.trial_id]
            return protos.get_service().UpdateTrialResponse(trial=trial.to_proto())

    def EndTrial(self, request: Any, context: Any) -> Any:
        with self._call(context) as worker:
            trial = Trial.from_proto(request.trial)
            if self._owners.get(trial.trial_id) == worker:
                self._end(trial)
            return protos.get_service().EndTrialResponse()

    def _end(self, trial: Any) -> None:
        known = self.oracle.trials[trial.trial_id]
        # a message holds neither the order of hyperparameters nor the reason of a failure
        new = [hp for hp in trial.hyperparameters.space if not _has(known.hyperparameters, hp)]
        known.hyperparameters.merge(new)
        values = {**known.hyperparameters.values, **trial.hyperparameters.values}
        known.hyperparameters.values = values
        trial.hyperparameters = known.hyperparameters
        record = TrialRecord.read(self.oracle._get_trial_dir(trial.trial_id))
        trial.message = None if record is None else record.message
        del self._owners[trial.trial_id]
        self.oracle.end_trial(trial)
        self.oracle.save()  # keras-tuner's last state has the trial under way
        if trial.trial_id in self.oracle.end_order:
            self._progress.trial_ended(trial.trial_id, known.score, trial.message)
        self._on_end()


def _has(hyperparameters: Any, hp: Any) -> bool:
    return hyperparameters._exists(hp.name, hp.conditions)


class Client(oracle_client.OracleClient):
    """An oracle on a worker: asks the chief.

    Args:
        oracle: as the chief's; its objective and number of trials are used.

    Attributes:
        waits: the chief had no trial for the moment when it was last asked.
    """

    def __init__(self, oracle: Any) -> None:
        # not keras-tuner's own, which would open a channel too
        self._oracle = oracle
        self.tuner_id = os.environ["KERASTUNER_TUNER_ID"]
        self.multi_worker, self.should_report = False, True
        self.waits = False
        self._held: set[str] = set()
        host, port = chief_address()
        self._letterhead = _Letterhead(self.tuner_id, f"{host}:{port}")
        self._channel = grpc.insecure_channel(f"{host}:{port}", _CHANNEL)
        self.stub = protos.get_service_grpc().OracleStub(
            grpc.intercept_channel(self._channel, self._letterhead)
        )

    @property
    def proposes_by_model(self) -> bool:
        from keras_tuner.oracles import BayesianOptimizationOracle

        return isinstance(self._oracle, BayesianOptimizationOracle)

    @functools.cached_property
    def share(self) -> int | None:
        """How many trials are this worker's part, or `None` if that is not known.

        A worker does not know how many others there are, unless KREGS_WORKERS says so.
        """
        workers = os.environ.get("KREGS_WORKERS", "4")
        if not workers.isdigit() or int(workers) < 1:
            raise ValueError(f"KREGS_WORKERS must be a positive integer. Received: {workers!r}")
        expected = expected_trials(self._oracle)
        return None if expected is None else math.ceil(expected / int(workers))

    def seed(self) -> int:
        """Return the chief's oracle's seed; waits for the chief."""
        request = protos.get_service().GetSpaceRequest()
        _, call = self.stub.GetSpace.with_call(request, wait_for_ready=True)
        return int(dict(call.trailing_metadata())[_SEED])

    def create_trial(self, tuner_id: str) -> Any:
        trial = super().create_trial(tuner_id)
        self.waits = trial.status == TrialStatus.IDLE
        if trial.status == TrialStatus.RUNNING:
            self._held.add(trial.trial_id)
        elif self.waits and not self._held:
            time.sleep(_IDLE)  # keras-tuner's loop asks again at once
        return trial

    def end_trial(self, trial: Any) -> None:
        super().end_trial(trial)
        self._held.discard(trial.trial_id)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Send signs of life while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                # a chief that is gone is noticed by what has to be said to it
                with contextlib.suppress(grpc.RpcError):
                    self.stub.GetSpace(protos.get_service().GetSpaceRequest(), timeout=_BEAT)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclasses.dataclass
class _Call(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Letterhead(grpc.UnaryUnaryClientInterceptor):
    """Adds to every call who calls, and a limit of the time to wait for the answer."""

    def __init__(self, tuner_id: str, address: str) -> None:
        self._metadata = ((_HEADER, json.dumps([tuner_id, uuid.uuid4().hex])),)
        self._address = address
        self._answered = False

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        limit = _ANSWER if self._answered else _FIRST_ANSWER
        timeout = min(limit, details.timeout or limit)
        call = continuation(
            _Call(details.method, timeout, self._metadata, None, details.wait_for_ready, None),
            request,
        )
        if details.wait_for_ready and call.code() in _NO_ANSWER:
            raise ConnectionError(
                f"the chief at {self._address} does not answer: {call.details()}. What it has been "
                "told is kept; go on with resume=True or by starting it again"
            )
        self._answered = self._answered or call.code() == grpc.StatusCode.OK
        return call


_NO_ANSWER = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)


def chief_address() -> tuple[str, int]:
    """Return host and port from keras-tuner's environment variables; `ValueError` if it is none."""
    port = os.environ["KERASTUNER_ORACLE_PORT"]
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"KERASTUNER_ORACLE_PORT must be a port's number. Received: {port!r}")
    return os.environ["KERASTUNER_ORACLE_IP"], int(port)


def serve(oracle: Any, progress: Any, on_end: Any, check_time: Any) -> None:
    """Be the chief that the environment variables speak of, until the search is over."""
    chief = Chief(oracle, progress, on_end)
    with chief.serving(*chief_address()):
        while not chief.left_alone:
            chief.check()
            check_time()
            time.sleep(0.1)


def wait_for_chief() -> None:
    """Return when the chief answers."""
    client = Client(None)
    try:
        client.get_space()
    finally:
        client._channel.close()
