"""Hyperband that makes the largest sweep which a number of trials allows."""

from __future__ import annotations

from typing import Any

import keras_tuner

from kregs.search.keras_tuner_internals import shrink_sweep


class HyperbandOracle(keras_tuner.oracles.HyperbandOracle):
    """One sweep of Hyperband, as large as the number of trials allows.

    A sweep consists of brackets, from the one that starts with the most and shortest trials to the
    one that trains a few at full length. Cutting it off would leave only short trials, so the
    largest brackets are left out instead until the rest fits. `size` is the number of trials.
    """

    def __init__(self, *, max_trials: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_trials = max_trials
        size = shrink_sweep(self, max_trials)
        self.size = size if max_trials is None else min(size, max_trials)
