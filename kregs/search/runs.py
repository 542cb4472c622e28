"""Runs: the trainings of one trial, one for each fold and seed, and what each leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kregs.logs import numbers_of

if TYPE_CHECKING:
    import keras

Histories = dict[str, list[float]]  # metric -> a value for each epoch in which it was logged
Halves = tuple[np.ndarray, np.ndarray]  # row numbers


def histories_of(history: Mapping[str, Sequence[Any]]) -> Histories:
    """Return a history whose values are all numbers, see `numbers_of`."""
    by_epoch = [numbers_of({name: value}) for name, values in history.items() for value in values]
    histories: Histories = {}
    for numbers in by_epoch:
        for name, number in numbers.items():
            histories.setdefault(name, []).append(number)
    return histories


def align(histories: Histories, logged_epochs: Mapping[str, Sequence[int]]) -> Histories:
    """Return histories with a value for each epoch, NaN where there was none.

    Args:
        logged_epochs: as in `RunOutcome`.

    Example:

    >>> align({"loss": [3.0, 2.0], "val_loss": [2.5]}, {"val_loss": [1]})
    {'loss': [3.0, 2.0], 'val_loss': [nan, 2.5]}
    """
    epochs = max(map(len, histories.values()), default=0)
    aligned = dict(histories)
    for name, logged in logged_epochs.items():
        if name in histories:
            values = dict(zip(logged, histories[name], strict=False))
            aligned[name] = [values.get(epoch, math.nan) for epoch in range(epochs)]
    return aligned


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Which rows of the data one fold is trained on, and which it is judged on.

    Args:
        train, validation: row numbers of the data as they were given, however they are prepared.
        offset: where the fold's rows begin in the arrays that `fit` gets, those that train before
            those that validate, if each fold has prepared rows of its own there. `None`: the arrays
            are numbered as the data are.
        halves: two halves of the validation rows, by their places among them: each chooses the
            epoch that the other is scored at. `None`: the other folds choose it.
    """

    train: np.ndarray
    validation: np.ndarray
    offset: int | None = None
    halves: Halves | None = None

    @property
    def train_places(self) -> np.ndarray:
        """Where the rows that train stand in the arrays that `fit` gets."""
        if self.offset is None:
            return self.train
        return np.arange(self.offset, self.offset + len(self.train), dtype=np.int32)

    @property
    def validation_places(self) -> np.ndarray:
        """Where the rows that validate stand in the arrays that `fit` gets."""
        if self.offset is None:
            return self.validation
        first = self.offset + len(self.train)
        return np.arange(first, first + len(self.validation), dtype=np.int32)


def disjoint_folds(splits: Sequence[Split]) -> list[set[int]]:
    """Return for each fold the folds that are judged on none of its rows."""
    rows = 1 + max(int(split.validation.max()) for split in splits)
    judged = np.zeros([len(splits), rows], np.float32)
    for fold_judged, split in zip(judged, splits, strict=True):
        fold_judged[split.validation] = 1.0
    common = judged @ judged.T
    return [set(np.flatnonzero(shared == 0).tolist()) for shared in common]


def without_halves(splits: Sequence[Split] | None) -> list[Split] | None:
    """Return folds whose epochs other folds choose."""
    if splits is None:
        return None
    return [dataclasses.replace(split, halves=None) for split in splits]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One training of a trial.

    Args:
        number: its place among the trial's runs.
        seed: which of the seeds, counted from 0.
        fold: which of the folds, counted from 0; `None` without folds.
        split: the fold's rows; `None` without folds.
        halves: two halves of the validation rows, by their places among them: each chooses the
            epoch that the other is scored at. `None` where the rows have no numbers, or where other
            folds choose the epoch.
    """

    number: int
    seed: int
    fold: int | None = None
    split: Split | None = None
    halves: Halves | None = None


def make_runs(
    splits: Sequence[Split] | None, seeds: int, halves: Halves | None = None
) -> list[Run]:
    """Return the runs of every trial: each fold with each seed.

    Args:
        splits: the folds, or `None`.
        seeds: how many.
        halves: without folds, two halves of the validation rows.
    """
    folds: list[tuple[int | None, Split | None]] = [(None, None)]
    if splits is not None:
        folds = list(enumerate(splits))
    runs = [
        (seed, fold, split, halves if split is None else split.halves)
        for fold, split in folds
        for seed in range(seeds)
    ]
    return [Run(number, *run) for number, run in enumerate(runs)]


@dataclasses.dataclass
class RunState:
    """Where a run goes on: its weights and, if they were kept, its optimizer's state.

    Args:
        weights: of the model, in the order of `model.weights`.
        optimizer: values of Keras's `optimizer.variables`.
        population: a population's `OptimizerState`.
        generators: states of Keras's seed generators, which count the noise that was drawn.
        learning_rate: that a callback may have changed; `None` with a schedule.
        counters: of each callback the numbers that it counts by.
        build_config: what builds the model, if it is not.
    """

    weights: list[np.ndarray] | None
    optimizer: list[np.ndarray] | None = None
    population: Any = None
    generators: list[np.ndarray] | None = None
    learning_rate: float | None = None
    counters: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    build_config: dict[str, Any] | None = None


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
        may_go_on: another run may go on from what this one leaves.
        cancelled: its trial has failed, or the time is up: it is not to be begun.
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
    may_go_on: bool = False
    cancelled: bool = False
    cut_short: bool = False

    @property
    def trial_id(self) -> str:
        return self.trial.trial_id


@dataclasses.dataclass
class RunOutcome:
    """What one run left, written to disk so that a search that is killed need not repeat it.

    Args:
        history: each logged metric's values by epoch, as in Keras only of those that logged it.
        logged_epochs: of each metric that not all epochs have logged, those that did, counted from
            the run's first.
        best_epoch: the epoch that counts, counted likewise, -1 if there is none.
        best_value: the objective there, lower is better.
        state: of the epoch that counts.
        last: after the last epoch, if another run may go on from it.
        seconds: of training.
        failure: why it ended without a result, or `None`.
        halves: the history on each half of the validation rows, if the run has halves.
        crossed: each logged metric over both halves, each half as it was in the epoch whose
            objective is best on the other; empty without halves.
        by_epoch: whether `history` has an entry an epoch; else a user's own `fit` returned it.
        job: what was trained. This and the following are not written.
        error: the exception that ended it; the trial has failed.
        refusal: why this trainer cannot train it; another one may.
        model: one that has the structure of what was trained, for the checkpoint.
        signature: equal for models of one structure, `None` if that is not known.
        member: the model as it was read for stacking, `None` if it was not, or only a part of it.
    """

    history: Histories = dataclasses.field(default_factory=dict)
    best_epoch: int = -1
    best_value: float = float("inf")
    state: RunState | None = None
    last: RunState | None = dataclasses.field(default=None, kw_only=True)
    seconds: float = 0.0
    failure: str | None = None
    halves: list[Histories] = dataclasses.field(default_factory=list)
    crossed: dict[str, float] = dataclasses.field(default_factory=dict)
    by_epoch: bool = True
    job: RunJob | None = None
    error: Exception | None = None
    refusal: str | None = None
    model: Any = None
    signature: Any = None
    member: Any = None
    logged_epochs: dict[str, list[int]] = dataclasses.field(default_factory=dict, kw_only=True)

    @property
    def aligned(self) -> Histories:
        """The history with a value for each epoch, NaN where there was none."""
        return align(self.history, self.logged_epochs)
