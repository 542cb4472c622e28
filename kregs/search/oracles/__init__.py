"""What proposes the next trial: keras-tuner's oracles, with what a search to be repeated needs."""

from __future__ import annotations

from typing import Any

import keras_tuner

from kregs.search.keras_tuner_internals import open_brackets, round_size
from kregs.search.objective import is_unset, scorer_of
from kregs.search.oracles.bayesian import BayesianOracle
from kregs.search.oracles.grid import GridOracle
from kregs.search.oracles.hyperband import HyperbandOracle
from kregs.search.oracles.random_from_defaults import RandomFromDefaultsOracle
from kregs.search.protocol import ORACLES
from kregs.search.randomness import derived_seed
from kregs.validation import check_choice

__all__ = [
    "ORACLE_CLASSES",
    "BayesianOracle",
    "GridOracle",
    "HyperbandOracle",
    "RandomFromDefaultsOracle",
    "check_oracle",
    "expected_trials",
    "make_oracle",
    "trials_to_go_on_from",
]

# what `PopulationTuner(oracle=...)` takes by name, with keras-tuner's own arguments
ORACLE_CLASSES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "random_from_defaults": RandomFromDefaultsOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
    "grid": GridOracle,
}

# a failed trial is recorded and the search goes on: keras-tuner gives up after three in a row
_NEVER = 10**9

_DEFAULT_TRIALS = 20


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
    if hasattr(oracle.objective, "objectives"):  # keras-tuner's MultiObjective, not public
        raise TypeError(
            "`oracle` must have one objective. "
            f"Received: oracle={type(oracle).__name__} with {len(oracle.objective.objectives)}"
        )
    known = oracle.objective
    wanted = (objective.name, objective.direction)
    if not is_unset(known) and (known.name, known.direction) != wanted:
        raise ValueError(
            f"`objective` must be the one of the Oracle object that is passed, {known.name!r} "
            f"({known.direction}). Received: objective={objective.name!r} ({objective.direction})"
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
        space: the hyperparameters that are known; trials may meet more.
        max_trials: upper bound of the number of trials; `None` is 20 for random and Bayesian
            search, all points for `"grid"`, one sweep for `"hyperband"`.
        epochs: the most epochs of a trial, which Hyperband divides.
        seed: of the proposals.
    """
    if isinstance(oracle, keras_tuner.Oracle):
        if is_unset(oracle.objective) or scorer_of(objective) is not None:
            oracle.objective = objective
        oracle.update_space(space)
        oracle.verbose = 0
        oracle.space_is_whole = True  # of this search
        return oracle
    common: dict[str, Any] = {
        "objective": objective,
        "seed": derived_seed(seed),
        "max_consecutive_failed_trials": _NEVER,
    }
    fresh: keras_tuner.Oracle
    if oracle == "hyperband":
        fresh = HyperbandOracle(max_epochs=epochs, max_trials=max_trials, **common)
    elif oracle == "grid":
        fresh = GridOracle(max_trials=max_trials, **common)
    elif oracle == "bayesian":
        trials = max_trials or _DEFAULT_TRIALS
        # keras-tuner's own rule, but no more than half of the trials at random
        random_points = max(3, min(3 * len(space.space), trials // 2))
        fresh = BayesianOracle(max_trials=trials, num_initial_points=random_points, **common)
    else:
        fresh = ORACLE_CLASSES[oracle](max_trials=max_trials or _DEFAULT_TRIALS, **common)
    fresh.update_space(space)
    fresh.verbose = 0
    fresh.space_is_whole = True
    return fresh


def expected_trials(oracle: keras_tuner.Oracle) -> int | None:
    """Return how many trials a search will run at most, or `None` if that is not known."""
    size = None
    if isinstance(oracle, HyperbandOracle):
        size = oracle.size
    elif isinstance(oracle, GridOracle):
        size = oracle.count()
    known = [number for number in (size, oracle.max_trials) if number]
    return min(known) if known else None


def trials_to_go_on_from(oracle: keras_tuner.Oracle) -> set[str]:
    """Return the trials whose last state a later trial may go on from (`"tuner/trial_id"`)."""
    trials = oracle.trials.values()
    under_way = [trial for trial in trials if trial.status not in ("COMPLETED", "FAILED")]
    # such as the trial that one under way went on from: that may be lost and begun again
    values = [trial.hyperparameters.values for trial in under_way]
    needed = {v["tuner/trial_id"] for v in values if "tuner/trial_id" in v}
    if not isinstance(oracle, keras_tuner.oracles.HyperbandOracle):
        return needed | {trial.trial_id for trial in trials}  # what it will ask for is not known
    for bracket in open_brackets(oracle):
        rounds = bracket["rounds"]
        for place, following in enumerate(rounds[1:], start=1):
            if isinstance(oracle, HyperbandOracle):
                size = oracle.size_of_round(bracket, place)
            else:
                size = round_size(oracle, bracket["bracket_num"], place)
            if len(following) < size:
                promoted = {entry["past_id"] for entry in following}
                needed |= {entry["id"] for entry in rounds[place - 1]} - promoted
    return needed
