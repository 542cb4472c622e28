"""What a search is told, checked: it holds for any rows, so that nested searches repeat it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import keras_tuner

from kregs.population.rows import is_dataset
from kregs.search.build import make_hypermodel
from kregs.search.data import Data
from kregs.search.judging.restraint import check_restraint
from kregs.search.objective import is_of_validation, make_objective, scorer_of
from kregs.search.oracles import check_oracle
from kregs.search.own_fit import has_stock_fit
from kregs.search.protocol import ENGINES, FUNCTION, SCORE_AT, SELECTIONS, Protocol
from kregs.search.searched_fit import SearchedFit, check_count
from kregs.training.callbacks import early_stopping
from kregs.training.targets import check_class_weight
from kregs.validation import check_choice, check_flag, check_integer, check_number, check_seed

_MOST_SEEDS = 10_000  # each is a training of every trial


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The arguments of `kregs.tune` that do not belong to the rows or to the call, checked."""

    hypermodel: keras_tuner.HyperModel
    objective: keras_tuner.Objective
    oracle: str | keras_tuner.Oracle
    max_trials: int | None
    epochs: int | None  # `None`: a function of `hp`, which the hypermodel knows
    batch_size: int | None
    validation_split: float
    folds: Any
    seeds: int
    preprocess: Any
    selection: str
    restraint: tuple[str, ...] | None
    score_at: str
    callbacks: list[keras.callbacks.Callback]
    callbacks_given: bool
    class_weight: Mapping[int, float] | str | None
    keep: int
    keep_folds: bool
    seed: int
    engine: str
    workers: int | None
    verbose: str | int
    # why the objective's direction is not known: an error once the logged metrics are
    objective_error: ValueError | None = None

    @property
    def has_stock_fit(self) -> bool:
        """Whether `HyperModel.fit` is keras-tuner's: another may do anything with the rows."""
        return has_stock_fit(self.hypermodel)

    def protocol(self, data: Data) -> Protocol:
        """Return how trials are judged on these rows."""
        weights, scorer = self.class_weight, scorer_of(self.objective)
        return Protocol(
            objective=self.objective.name,
            scorer=None if scorer is None else scorer.metric,
            direction=self.objective.direction,
            data=data.summary,
            oracle=self.oracle if isinstance(self.oracle, str) else type(self.oracle).__name__,
            max_trials=self.max_trials,
            epochs=self.epochs or FUNCTION,
            batch_size=None if is_dataset(data.fit["x"]) else self.batch_size or FUNCTION,
            seeds=self.seeds,
            selection=self.selection,
            restraint=self.restraint,
            score_at=self.score_at,
            epoch_chosen_on=self._epoch_chosen_on(data),
            callbacks=tuple(map(_words, self.callbacks)),
            callbacks_given=self.callbacks_given,
            class_weight=weights
            if weights is None or isinstance(weights, str)
            else {str(label): weight for label, weight in weights.items()},
            engine=self.engine,
            seed=self.seed,
            dtype_policy=keras.config.dtype_policy().name,
        )

    def _epoch_chosen_on(self, data: Data) -> str | None:
        if self.score_at == "last_epoch":
            return None
        halves = data.halves if data.splits is None else data.splits[0].halves
        if halves is not None and self.has_stock_fit:
            return "the other half" if is_of_validation(self.objective) else "the same rows"
        return "the same rows" if data.splits is None else "the other folds"


def check_settings(
    build: Any,
    *,
    objective: Any,
    oracle: Any,
    max_trials: Any,
    epochs: Any,
    batch_size: Any,
    validation_split: Any,
    folds: Any,
    seeds: Any,
    preprocess: Any,
    selection: Any,
    restraint: Any,
    score_at: Any,
    callbacks: Any,
    class_weight: Any,
    keep: Any,
    keep_folds: Any,
    seed: Any,
    engine: Any,
    workers: Any,
    verbose: Any,
) -> SearchSettings:
    """Return the arguments checked, callbacks and objective as objects; see `kregs.tune`."""
    hypermodel = make_hypermodel(build)
    objective_error = None
    try:
        goal = make_objective(objective)
    except ValueError as error:
        if not isinstance(objective, str):
            raise
        # a misspelt name: what training logs, and so the nearest name, is known later
        goal, objective_error = keras_tuner.Objective(objective, "min"), error
    if max_trials is not None:
        max_trials = check_integer("max_trials", max_trials, minimum=1)
    check_oracle(oracle, max_trials, goal)
    counts = {"batch_size": batch_size, "epochs": epochs}
    functions = {name: value for name, value in counts.items() if callable(value)}
    if functions:
        hypermodel = SearchedFit(hypermodel, functions)
    if "epochs" in functions and (
        oracle == "hyperband" or isinstance(oracle, keras_tuner.oracles.HyperbandOracle)
    ):
        raise ValueError(
            "`epochs` must be an integer with Hyperband, which shares them out. "
            f"Received: epochs={epochs!r}"
        )
    for name in counts.keys() - functions.keys():
        counts[name] = check_count(name, counts[name])
    epochs, batch_size = (
        None if name in functions else counts[name] for name in ("epochs", "batch_size")
    )
    validation_split = check_number("validation_split", validation_split, above=0.0, below=1.0)
    seeds = check_integer("seeds", seeds, minimum=1, maximum=_MOST_SEEDS)
    keep = check_integer("keep", keep, minimum=1)
    check_choice("selection", selection, SELECTIONS)
    check_choice("score_at", score_at, SCORE_AT)
    if selection == "one_standard_error" and folds is None and seeds == 1:
        raise ValueError(
            '`selection="one_standard_error"` needs several runs a trial, which have a standard '
            "error: pass folds= or seeds="
        )
    restraint = check_restraint(restraint)
    if restraint is not None and selection != "one_standard_error":
        raise ValueError(
            "`restraint` says which of equally good trials is taken: pass "
            f'selection="one_standard_error", too. Received: selection={selection!r}'
        )
    check_choice("engine", engine, ENGINES)
    check_choice("verbose", verbose, ("auto", 0, 1, 2))
    return SearchSettings(
        hypermodel=hypermodel,
        objective=goal,
        oracle=oracle,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=batch_size,
        validation_split=validation_split,
        folds=folds,
        seeds=seeds,
        preprocess=preprocess,
        selection=selection,
        restraint=restraint,
        score_at=score_at,
        callbacks=_callbacks(callbacks, goal, epochs, score_at),
        objective_error=objective_error,
        callbacks_given=callbacks is not None,
        class_weight=check_class_weight(class_weight),
        keep=keep,
        keep_folds=check_flag("keep_folds", keep_folds),
        seed=check_seed("seed", seed),
        engine=engine,
        workers=workers,
        verbose=verbose,
    )


def default_patience(epochs: int) -> int:
    """Return after how many epochs without improvement a training of at most so many stops.

    Example:

    >>> default_patience(10), default_patience(60)
    (5, 12)
    """
    return max(5, epochs // 5)


def _callbacks(
    callbacks: Any, objective: keras_tuner.Objective, epochs: int | None, score_at: str
) -> list[keras.callbacks.Callback]:
    if callbacks is None and score_at == "last_epoch":
        return []  # early stopping would choose the last epoch
    if callbacks is None:
        # the best epoch's weights are kept anyway
        return [
            early_stopping(
                objective.name,
                mode=objective.direction,
                patience=default_patience(epochs or 0),
                restore_best_weights=False,
            )
        ]
    return check_callbacks(callbacks)


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Return Keras callbacks as a list, or raise if they cannot be copied for each trial."""
    if isinstance(callbacks, (keras.callbacks.Callback, str)) or not isinstance(
        callbacks, Iterable
    ):
        raise TypeError(
            f"`callbacks` must be a list of Keras callbacks or None. Received: {callbacks!r}"
        )
    callbacks = list(callbacks)
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must hold Keras callbacks. "
                f"Received: {callback!r} of type {type(callback).__name__}"
            )
        try:
            copy.deepcopy(callback)
        except Exception as error:
            raise ValueError(
                "`callbacks` must hold callbacks that copy.deepcopy can copy, one for each trial. "
                f"Received: {type(callback).__name__}, which raises {error!r}"
            ) from error
    return callbacks


def _words(callback: keras.callbacks.Callback) -> str:
    name = type(callback).__name__.lstrip("_")
    patience = getattr(callback, "patience", None)
    return name if patience is None else f"{name}(patience={patience})"
