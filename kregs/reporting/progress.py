"""Live progress of a search: done, running, best so far, time left."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kregs.reporting.console import make_console
from kregs.reporting.tables import format_duration, format_value, format_values
from kregs.search.progress import Progress

_LINES = 10  # printed in all, where nothing can be redrawn
_LINES_EVERY = 5  # trials, where their number is not known
_SECONDS_A_LINE = 15.0
_RUNNING_SHOWN = 3  # of perhaps thousands that are trained together


class SearchProgress(Progress):
    """Shows how far a search is: redrawn in a terminal, else one plain line per few trials.

    Use it as a context manager, so that the display ends when the search is interrupted.

    Args:
        total: number of trials, or `None` if it is not known.
        done: how many are done already, in a search that is resumed.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        best: score and hyperparameters of the best trial so far, or `None`.
        verbose: `"auto"`, 0 for silence, 1 for the live display, 2 for plain lines. `"auto"` is
            live in a terminal or notebook, and plain lines elsewhere.
        console: where to print; default: standard output.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        done: int = 0,
        objective: str = "score",
        direction: str = "min",
        best: tuple[float, Mapping[str, Any]] | None = None,
        verbose: str | int = "auto",
        console: Console | None = None,
    ) -> None:
        self._console = console or make_console()
        if verbose == "auto":
            verbose = 1 if self._console.is_terminal or self._console.is_jupyter else 2
        self._verbose = verbose
        self._total = total
        self._done = self._done_before = done
        self._failed = 0
        self._objective, self._direction = objective, direction
        self._best = best
        # trial -> its hyperparameters, epochs trained, epochs in all
        self._running: dict[str, tuple[Mapping[str, Any], int, int | None]] = {}
        # a thread of the live display reads what is running
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> SearchProgress:
        self._started = time.monotonic()
        if self._verbose == 1:
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def trial_started(self, trial: str, values: Mapping[str, Any]) -> None:
        """Say that a trial begins, with its hyperparameters."""
        with self._lock:
            self._running[trial] = (values, 0, None)

    def epoch_ended(self, trial: str, epoch: int, epochs: int | None) -> None:
        """Say that a running trial has been trained for `epoch` of `epochs` epochs."""
        with self._lock:
            if trial in self._running:
                self._running[trial] = (self._running[trial][0], epoch, epochs)

    def trial_ended(self, trial: str, score: float | None, message: str | None = None) -> None:
        """Say that a trial ended: with a score, or failed for the reason in `message`."""
        with self._lock:
            values = self._running.pop(trial, ({}, 0, None))[0]
        self._done += 1
        if score is None:
            self._failed += 1
        elif self._best is None or self._better(score, self._best[0]):
            self._best = (score, values)
        if self._verbose == 2:
            if score is None:
                self._print(f"trial {trial} failed: {message}")
            if self._is_line_due():
                self._print(f"{self._count()} trials, {self._times()}; {self._best_words()}")

    def note(self, text: str) -> None:
        """Print a line about the search as a whole, above the live display."""
        if self._verbose:
            self._print(text)

    def _better(self, a: float, b: float) -> bool:
        return a < b if self._direction == "min" else a > b

    def _is_line_due(self) -> bool:
        if self._total is None:
            return self._done % _LINES_EVERY == 0
        return self._done == self._total or self._done % math.ceil(self._total / _LINES) == 0

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _count(self) -> str:
        return str(self._done) if self._total is None else f"{self._done}/{self._total}"

    def _times(self) -> str:
        elapsed = time.monotonic() - self._started
        words = format_duration(elapsed)
        now = self._done - self._done_before
        if self._total is not None and now and self._done < self._total:
            words += _time_left(elapsed, now, self._total - self._done)
        if self._failed:
            words += f", {self._failed} failed"
        return words

    def _best_words(self) -> str:
        if self._best is None:
            return f"no {self._objective} yet"
        score, values = self._best
        return f"best {self._objective} {format_value(score)} ({format_values(values)})"

    def _render(self) -> Group:
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._total, completed=self._done, width=30)
        head.add_row(bar, f"{self._count()} trials", Text(self._times(), style="dim"))
        lines = [Text(self._best_words(), style="bold")]
        with self._lock:
            count = len(self._running)
            shown = list(itertools.islice(self._running.items(), _RUNNING_SHOWN))
        for trial, (values, epoch, epochs) in shown:
            of = f" of {epochs}" if epochs else ""
            lines.append(
                Text(f"trial {trial}, epoch {epoch}{of}: {format_values(values)}", style="dim")
            )
        if count > len(shown):
            lines.append(Text(f"and {count - len(shown)} more are running", style="dim"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(head, *lines)


def _time_left(elapsed: float, done: int, others: int) -> str:
    """Say how long the others will take, if they take as long as those that are done."""
    return f", about {format_duration(elapsed / done * others)} left"


class EpochLines:
    """Prints now and then how many epochs are trained, and how long the others will take.

    Args:
        what: is trained, such as `"networks"`.
        seconds: between two lines, and before the first.
        console: where to print; default: standard output.

    Example:

    >>> lines = EpochLines("networks", seconds=0.0)
    >>> lines(10, 10)
    networks: 10/10 epochs, 0.0 s
    """

    def __init__(
        self, what: str, *, seconds: float = _SECONDS_A_LINE, console: Console | None = None
    ) -> None:
        self._what, self._seconds = what, seconds
        self._console = console or make_console()
        self._started = self._printed = time.monotonic()
        self._first: tuple[float, int] | None = None

    def __call__(self, trained: int, total: int) -> None:
        """Take note that so many epochs of all are trained."""
        now = time.monotonic()
        if self._first is None:  # it took the compiling, too, and tells nothing of the others
            self._first = now, trained
        if now - self._printed < self._seconds:
            return
        self._printed = now
        words = (
            f"{self._what}: {trained:,}/{total:,} epochs, {format_duration(now - self._started)}"
        )
        began, before = self._first
        if before < trained < total:
            words += _time_left(now - began, trained - before, total - trained)
        self._console.print(Text(words), soft_wrap=True)
