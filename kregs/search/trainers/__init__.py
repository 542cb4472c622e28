"""What trains the runs of trials: many as one stacked model, or one by Keras's own `fit`.

A trainer takes jobs and yields outcomes, `for outcome in trainer.run(jobs)`. The jobs are a queue
to which whoever listens may add while it iterates. It tells of every epoch, and what is told may
end a run, or the whole search by raising.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras_tuner

from kregs.logs import numbers_of
from kregs.population.registry import NotStackable
from kregs.search.objective import is_of_validation
from kregs.search.runs import RunJob, RunOutcome, RunState


class RunControl(Protocol):
    """What whoever is told of an epoch may do with the run: a driver such as successive halving."""

    def stop(self) -> None:
        """End the run with this epoch, as if a callback had stopped it."""

    def state(self) -> RunState:
        """Return the run's present weights and its optimizer's state."""

    def restore(self, state: RunState) -> None:
        """Let the run go on from another state, such as that of a better run of one structure."""

    def change(self, model: Any) -> None:
        """Let the run go on with the numbers of another compiled model of its structure.

        Raises:
            kregs.population.NotStackable: this trainer cannot, or the model has another structure.
        """


class ListenerError(Exception):
    """Whoever was told of an epoch has raised: no fault of the trial, nor of its trainer.

    Args:
        reason: what was raised.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """What a trainer is told about the search.

    Args:
        tuner: the `keras_tuner.Tuner`, for its hypermodel and its TensorBoard folders.
        objective: a `keras_tuner.Objective`; its best epoch is the one whose weights are kept.
        score_at: `"best_epoch"` or `"last_epoch"`: which epoch's weights are kept.
        on_epoch: called after each epoch with the job, the number of epochs trained, the logs and a
            `RunControl`. It may end the search by raising.
    """

    tuner: Any
    objective: Any
    score_at: str
    on_epoch: Callable[[RunJob, int, dict[str, float], RunControl], None]

    @property
    def cross_fits(self) -> bool:
        """Whether a run with halves is scored on each at the epoch that is best on the other."""
        return self.score_at == "best_epoch" and is_of_validation(self.objective)

    def tell(self, job: RunJob, epoch: int, logs: dict[str, float], control: RunControl) -> None:
        """Tell of an epoch.

        Raises:
            ListenerError: who was told has raised; a `FatalError` is raised as it is, and so is a
                `NotStackable`.
        """
        try:
            self.on_epoch(job, epoch, logs, control)
        except (keras_tuner.errors.FatalError, NotStackable):  # what a `RunControl` cannot do
            raise
        except Exception as error:
            raise ListenerError(error) from error

    def value(self, logs: dict[str, float]) -> float:
        """Return the objective, lower is better."""
        try:
            value = self.objective.get_value(numbers_of(logs))
        except KeyError:
            raise ValueError(
                f"the objective {self.objective.name!r} was not logged. Logged: {', '.join(logs)}"
            ) from None
        return -value if self.objective.direction == "max" else value


class Trainer(Protocol):
    """Trains the runs of trials."""

    def run(self, jobs: collections.deque[RunJob]) -> Iterator[RunOutcome]:
        """Train all jobs in the queue, and those that are added to it meanwhile.

        Args:
            jobs: taken from the left; cancelled ones are dropped.

        Yields:
            An outcome for each job, in the order in which they end. One that failed has an `error`,
            one that this trainer cannot train a `refusal`.
        """
        ...
