"""Runs: the trainings of one trial, one for each fold and seed, and what each leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

Histories = dict[str, list[float]]  # metric -> a value an epoch
Halves = tuple[np.ndarray, np.ndarray]  # row numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of one fold: those trained on, and those judged on."""

    train: np.ndarray
    validation: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training of a trial.

    Args:
        number: its place among the trial's runs.
        seed: which of the seeds, counted from 0.
        fold: which of the folds, counted from 0; `None` without folds.
        split: the fold's rows; `None` without folds.
        halves: without folds, two halves of the validation rows, by their numbers: each chooses the
            epoch that the other is scored at. `None` where the rows have no numbers.
    """

    number: int
    seed: int
    fold: int | None = None
    split: Split | None = None
    halves: Halves | None = None


def make_runs(
    splits: Sequence[Split] | None, seeds: int, halves: Halves | None = None
) -> list[Run]:
    """Return the runs of every trial: each fold with each seed."""
    folds: list[tuple[int | None, Split | None]] = [(None, None)]
    if splits is not None:
        folds = list(enumerate(splits))
    pairs = [(seed, fold, split) for fold, split in folds for seed in range(seeds)]
    return [Run(number, *pair, halves) for number, pair in enumerate(pairs)]


@dataclasses.dataclass
class RunState:
    """Where a run goes on: its weights and, if they were kept, its optimizer's state.

    Args:
        weights: of the model, in the order of `model.weights`.
        optimizer: values of Keras's `optimizer.variables`.
        population: a population's `OptimizerState`.
    """

    weights: list[np.ndarray] | None
    optimizer: list[np.ndarray] | None = None
    population: Any = None


@dataclasses.dataclass(eq=False)
class RunJob:
    """A run of a trial, to be trained.

    Args:
        trial: keras-tuner's.
        run: which of the trial's runs.
        seed: of the order of batches and the noise.
        epochs, first_epoch: it is trained from the one up to the other, as in `fit`.
        build: returns a fresh model, with its initial weights.
        shared_model: returns a model that all the trial's runs of one seed share: its initial
            weights are to be read, not changed.
        start: what an earlier run left that this one goes on from.
        cut_short: it was stopped before its end, since the time was up.
    """

    trial: Any
    run: Run
    seed: int
    epochs: int
    first_epoch: int
    build: Callable[[], keras.Model]
    shared_model: Callable[[], keras.Model]
    start: RunState | None = None
    cancelled: bool = False
    cut_short: bool = False

    @property
    def trial_id(self) -> str:
        return self.trial.trial_id


@dataclasses.dataclass
class RunOutcome:
    """What one run left, written to disk so that a search that is killed need not repeat it.

    Args:
        history: each logged metric's values by epoch.
        best_epoch: index in the history of the epoch that counts, -1 if there is none.
        best_value: the objective there, lower is better.
        state: of the epoch that counts.
        seconds: of training.
        failure: why it ended without a result, or `None`.
        halves: the history on each half of the validation rows, if the run has halves.
        by_epoch: whether `history` has an entry an epoch; else a user's own `fit` returned it.
        job: what was trained. This and the following are not written.
        error: the exception that ended it; the trial has failed.
        refusal: why this trainer cannot train it; another one may.
        model: one that has the structure of what was trained, for the checkpoint.
        signature: equal for models of one structure, `None` if that is not known.
    """

    history: Histories = dataclasses.field(default_factory=dict)
    best_epoch: int = -1
    best_value: float = float("inf")
    state: RunState | None = None
    seconds: float = 0.0
    failure: str | None = None
    halves: list[Histories] = dataclasses.field(default_factory=list)
    by_epoch: bool = True
    job: RunJob | None = None
    error: Exception | None = None
    refusal: str | None = None
    model: Any = None
    signature: Any = None
