"""The oracle as a worker sees it: it asks the chief for trials and tells it of their ends."""

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
from typing import Any

import grpc

from kregs.search.keras_tuner_internals import messages, space_message, trial_message
from kregs.search.oracles import expected_trials

CALLER_HEADER = "kregs-worker"
SEED_HEADER = "kregs-seed"
_BEAT = 2.0  # seconds between signs of life
_IDLE = 0.3
_FIRST_ANSWER = 3600.0  # keras-tuner's time for a chief to start
_ANSWER = 300.0  # the proposal of a Gaussian process may take long
# a proxy is for other networks than this
_CHANNEL = (("grpc.enable_http_proxy", 0),)
_NO_ANSWER = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
)


_messages = messages()


class Client(_messages.OracleClient):  # type: ignore[name-defined]
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
        self._header = _CallerHeader(self.tuner_id, f"{host}:{port}")
        self._channel = grpc.insecure_channel(f"{host}:{port}", _CHANNEL)
        self.stub = _messages.grpc.OracleStub(grpc.intercept_channel(self._channel, self._header))

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

    def chief_seed(self) -> int:
        """Return the chief's oracle's seed; waits for the chief."""
        request = _messages.service.GetSpaceRequest()
        _, call = self.stub.GetSpace.with_call(request, wait_for_ready=True)
        return int(dict(call.trailing_metadata())[SEED_HEADER])

    def create_trial(self, tuner_id: str) -> Any:
        trial = super().create_trial(tuner_id)
        self.waits = trial.status == _messages.TrialStatus.IDLE
        if trial.status == _messages.TrialStatus.RUNNING:
            self._held.add(trial.trial_id)
        elif self.waits and not self._held:
            time.sleep(_IDLE)  # keras-tuner's loop asks again at once
        return trial

    def update_space(self, hyperparameters: Any) -> None:
        request = _messages.service.UpdateSpaceRequest(
            hyperparameters=space_message(hyperparameters)
        )
        self.stub.UpdateSpace(request, wait_for_ready=True)

    def end_trial(self, trial: Any) -> None:
        request = _messages.service.EndTrialRequest(trial=trial_message(trial))
        self.stub.EndTrial(request, wait_for_ready=True)
        self._held.discard(trial.trial_id)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Send signs of life while the block runs."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                # a chief that is gone is noticed by what has to be said to it
                with contextlib.suppress(grpc.RpcError):
                    self.stub.GetSpace(_messages.service.GetSpaceRequest(), timeout=_BEAT)

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


class _CallerHeader(grpc.UnaryUnaryClientInterceptor):
    """Adds to every call who calls, and a limit of the time to wait for the answer."""

    def __init__(self, tuner_id: str, address: str) -> None:
        self._metadata = ((CALLER_HEADER, json.dumps([tuner_id, uuid.uuid4().hex])),)
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


def chief_address() -> tuple[str, int]:
    """Return host and port from keras-tuner's environment variables; `ValueError` if it is none."""
    port = os.environ["KERASTUNER_ORACLE_PORT"]
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"KERASTUNER_ORACLE_PORT must be a port's number. Received: {port!r}")
    return os.environ["KERASTUNER_ORACLE_IP"], int(port)


def wait_for_chief() -> None:
    """Return when the chief answers."""
    client = Client(None)
    try:
        client.get_space()
    finally:
        client._channel.close()
