"""keras-tuner's oracles, which propose the next trial, with what a reproducible search needs."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import keras_tuner
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # scikit-learn requires it

from kregs.files import write_text
from kregs.search.objective import is_unset
from kregs.search.randomness import derived_seed
from kregs.validation import check_choice

ORACLES = ("random", "bayesian", "hyperband", "grid")

# a failed trial is recorded and the search goes on: keras-tuner gives up after three in a row
_NEVER = 10**9

_DEFAULT_TRIALS = 20
_GRID_LIMIT = 100_000  # counting stops there


class GridOracle(keras_tuner.oracles.GridSearchOracle):
    """keras-tuner's grid, able to go on after an interruption.

    Its own state holds neither the order of the grid nor what comes next: a reloaded
    `GridSearchOracle` stops at once.
    """

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"grid_order": list(self._order())}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for trial_id in state["grid_order"]:
            self._ordered_ids.insert(trial_id)
        # one that was followed already is skipped by `populate_space`
        self._populate_next = [i for i in state["grid_order"] if i in self.end_order]

    def _order(self):
        links = self._ordered_ids
        index = links._next_index[None]
        while index is not None:
            yield links._memory[index]
            index = links._next_index[index]

    def count(self) -> int | None:
        """Return the number of points, or `None` if there are very many."""
        space = self.get_space()
        values = {hp.name: hp.default for hp in space.space if space.is_active(hp)}
        count = 0
        while values is not None:
            count += 1
            if count > _GRID_LIMIT:
                return None
            values = self._get_next_combination(values)
        return count


class BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """keras-tuner's Gaussian process: repeatable after an interruption, and never twice a point."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # the place in this generator's sequence is not part of keras-tuner's saved state
        self._random_state.seed(derived_seed(self.seed, len(self.trials)))
        # matrices this small take four times as long with several threads
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            response = super().populate_space(trial_id)
        if response["values"] is not None and self._duplicate(response["values"]):
            return self._random_populate_space()
        return response

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        # they were read in the order of a directory; the fit depends on it in the last digits
        self.trials = {trial_id: self.get_trial(trial_id) for trial_id in self.start_order}


class HyperbandOracle(keras_tuner.oracles.HyperbandOracle):
    """One sweep of Hyperband, as large as the number of trials allows.

    A sweep consists of brackets, from the one that starts with the most and shortest trials to the
    one that trains a few at full length. Cutting it off would leave only short trials, so the
    largest brackets are left out instead until the rest fits. `size` is the number of trials.
    """

    def __init__(self, *, max_trials: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_trials = max_trials
        while (
            max_trials is not None and self._current_bracket > 0 and self._sweep_size() > max_trials
        ):
            self._current_bracket -= 1
        self._brackets: list[dict[str, Any]] = []
        self._start_new_bracket()
        size = self._sweep_size()
        self.size = size if max_trials is None else min(size, max_trials)

    def _sweep_size(self) -> int:
        return sum(
            self._get_size(bracket, round_number)
            for bracket in range(self._current_bracket + 1)
            for round_number in range(self._get_num_rounds(bracket))
        )


def check_oracle(oracle: Any, max_trials: int | None, objective: keras_tuner.Objective) -> None:
    """Raise if `oracle` is neither a known name nor a fitting `keras_tuner.Oracle`."""
    if not isinstance(oracle, keras_tuner.Oracle):
        if not isinstance(oracle, str):
            raise TypeError(
                f"`oracle` must be one of {', '.join(map(repr, ORACLES))} or a keras_tuner.Oracle "
                f"object. Received: oracle={oracle!r} of type {type(oracle).__name__}"
            )
        check_choice("oracle", oracle, ORACLES)
        return
    if max_trials is not None:
        raise ValueError(
            "`max_trials` is set by the Oracle object that is passed: leave it out. "
            f"Received: max_trials={max_trials}, oracle={type(oracle).__name__}"
        )
    own = oracle.objective
    if not is_unset(own) and (own.name, own.direction) != (objective.name, objective.direction):
        raise ValueError(
            f"`objective` must be the one of the Oracle object that is passed, {own.name!r} "
            f"({own.direction}). Received: objective={objective.name!r} ({objective.direction})"
        )


def make_oracle(
    oracle: str | keras_tuner.Oracle,
    *,
    objective: keras_tuner.Objective,
    space: keras_tuner.HyperParameters,
    max_trials: int | None,
    epochs: int,
    seed: int,
) -> keras_tuner.Oracle:
    """Return a fresh oracle by name, or the given object, knowing the space.

    Args:
        oracle: one of `ORACLES`, or an object, which is taken as it is.
        objective: what to optimize.
        space: all hyperparameters, conditional ones too.
        max_trials: upper bound of the number of trials; `None` is 20 for `"random"` and
            `"bayesian"`, all points for `"grid"`, one sweep for `"hyperband"`.
        epochs: the most epochs of a trial, which Hyperband divides.
        seed: of the proposals.
    """
    if isinstance(oracle, keras_tuner.Oracle):
        if is_unset(oracle.objective):
            oracle.objective = objective
        oracle.update_space(space)
        oracle.verbose = 0
        return oracle
    common: dict[str, Any] = {
        "objective": objective,
        "seed": derived_seed(seed),
        "max_consecutive_failed_trials": _NEVER,
    }
    made: keras_tuner.Oracle
    if oracle == "hyperband":
        made = HyperbandOracle(max_epochs=epochs, max_trials=max_trials, **common)
    elif oracle == "grid":
        made = GridOracle(max_trials=max_trials, **common)
    elif oracle == "bayesian":
        trials = max_trials or _DEFAULT_TRIALS
        # keras-tuner's own rule, but no more than half of the trials at random
        random_points = max(3, min(3 * len(space.space), trials // 2))
        made = BayesianOracle(max_trials=trials, num_initial_points=random_points, **common)
    else:
        made = keras_tuner.oracles.RandomSearchOracle(
            max_trials=max_trials or _DEFAULT_TRIALS, **common
        )
    made.update_space(space)
    made.verbose = 0
    return made


def expected_trials(oracle: keras_tuner.Oracle) -> int | None:
    """Return how many trials a search will run at most, or `None` if that is not known."""
    size = None
    if isinstance(oracle, HyperbandOracle):
        size = oracle.size
    elif isinstance(oracle, GridOracle):
        size = oracle.count()
    known = [number for number in (size, oracle.max_trials) if number]
    return min(known) if known else None


def save_atomically(oracle: keras_tuner.Oracle) -> None:
    """Make an oracle write its files whole: keras-tuner writes them in place."""

    def save() -> None:
        write_text(oracle._get_oracle_fname(), json.dumps(oracle.get_state()))

    def save_trial(trial: Any) -> None:
        folder = Path(oracle._get_trial_dir(trial.trial_id))
        write_text(os.fspath(folder / "trial.json"), json.dumps(trial.get_state()))

    oracle.save = save
    oracle._save_trial = save_trial
