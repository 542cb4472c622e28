"""Random search that tries the default hyperparameters first."""

from __future__ import annotations

from typing import Any

import keras_tuner


class RandomFromDefaultsOracle(keras_tuner.oracles.RandomSearchOracle):
    """keras-tuner's random search, whose first trial has the default of each hyperparameter.

    So a search that begins with values known to be good ends no worse than these.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self.start_order or self.trials:
            return super().populate_space(trial_id)
        return {"status": "RUNNING", "values": self._defaults()}

    def _defaults(self) -> dict[str, Any]:
        space = self.get_space()
        return {hp.name: hp.default for hp in space.space if space.is_active(hp)}
