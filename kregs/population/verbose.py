"""What `Population.fit` prints: a progress bar over all members, or a line an epoch of each."""

from __future__ import annotations

import math
from typing import Any

import keras

from kregs.logs import numbers_of
from kregs.population.jobs import Job

VERBOSE = ("auto", 0, 1, 2)  # as in Keras


class FitProgress:
    """Prints the progress of a training; call it with each job after each of its epochs.

    Args:
        verbose: one of `VERBOSE`.
        epochs: of all members together.
    """

    def __init__(self, verbose: Any, epochs: int) -> None:
        self._by_line = verbose == 2
        self._done = 0
        self._logs: dict[Any, dict[str, float]] = {}  # the last of each member
        self._bar = None
        if verbose in ("auto", 1):
            self._bar = keras.utils.Progbar(epochs, unit_name="epoch")

    def __call__(self, job: Job) -> None:
        numbers = numbers_of(job.logs)
        if self._by_line:
            words = [f"{name}: {value:.4f}" for name, value in numbers.items()]
            epoch = f"member {job.name} - epoch {job.epoch}/{job.epochs}"
            print(" - ".join([epoch, *words]), flush=True)
        self._done += 1
        self._logs[job.name] = numbers
        self._update(finalize=False)

    def end(self) -> None:
        """Say that all members have ended, maybe before their last epoch."""
        self._update(finalize=True)

    def _update(self, *, finalize: bool) -> None:
        if self._bar is None:
            return
        if finalize:
            self._bar.target = self._done
        means = self._means()
        # shown as they are; `stateless_metrics=()` would say so, which not all Keras 3 knows
        self._bar.stateful_metrics.update(name for name, _ in means)
        self._bar.update(self._done, means, finalize=finalize)

    def _means(self) -> list[tuple[str, float]]:
        """The mean of each metric over the members, without those that have diverged."""
        names = dict.fromkeys(name for logs in self._logs.values() for name in logs)
        means = []
        for name in names:
            values = [logs[name] for logs in self._logs.values() if name in logs]
            finite = [value for value in values if math.isfinite(value)]
            means.append((name, sum(finite) / len(finite) if finite else math.nan))
        return means
