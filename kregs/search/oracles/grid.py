"""Grid search that can be resumed, and knows how many points it has."""

from __future__ import annotations

from typing import Any

import keras_tuner

from kregs.search.keras_tuner_internals import grid_order, next_grid_point, restore_grid_order

_GRID_LIMIT = 100_000  # counting stops there


class GridOracle(keras_tuner.oracles.GridSearchOracle):
    """keras-tuner's grid, able to go on after an interruption.

    Its own state holds neither the order of the grid nor what comes next: a reloaded
    `GridSearchOracle` stops at once.
    """

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"grid_order": list(grid_order(self))}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        restore_grid_order(self, state["grid_order"])

    def count(self) -> int | None:
        """Return the number of points, or `None` if there are very many."""
        space = self.get_space()
        values: dict[str, Any] | None = {
            hp.name: hp.default for hp in space.space if space.is_active(hp)
        }
        count = 0
        while values is not None:
            count += 1
            if count > _GRID_LIMIT:
                return None
            values = next_grid_point(self, values)
        return count
