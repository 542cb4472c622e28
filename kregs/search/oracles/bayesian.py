"""Bayesian optimization by a Gaussian process, the same after an interruption."""

from __future__ import annotations

import warnings
from typing import Any

import keras_tuner
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # scikit-learn requires it

from kregs.search.keras_tuner_internals import random_point, seed_generator, was_tried
from kregs.search.randomness import derived_seed


class BayesianOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """keras-tuner's Gaussian process: repeatable after an interruption, and never twice a point."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # the place in this generator's sequence is not part of keras-tuner's saved state
        seed_generator(self, derived_seed(self.seed, len(self.trials)))
        # matrices this small take four times as long with several threads
        with warnings.catch_warnings(), threadpool_limits(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            response = super().populate_space(trial_id)
        if response["values"] is not None and was_tried(self, response["values"]):
            return random_point(self)
        return response

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        # they were read in the order of a directory; the fit depends on it in the last digits
        self.trials = {trial_id: self.get_trial(trial_id) for trial_id in self.start_order}
