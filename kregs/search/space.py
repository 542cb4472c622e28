"""How the hyperparameters of a search space are sampled: on a linear or a logarithmic scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# values that span more than this factor were meant logarithmically
_WIDE = 50


def samplings(space: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    """Return `"linear"`, `"log"`, or `None` for what is no number, by hyperparameter.

    Args:
        space: as keras-tuner serializes it.
    """
    return {hp["config"]["name"]: _sampling(hp) for hp in space}


def _sampling(hp: Mapping[str, Any]) -> str | None:
    config = hp["config"]
    if hp["class_name"] in ("Float", "Int"):
        return "log" if config.get("sampling") in ("log", "reverse_log") else "linear"
    values = config.get("values")
    numbers = hp["class_name"] == "Choice" and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    return scale_of(values) if numbers else None


def scale_of(values: Iterable[float]) -> str:
    """Return the scale on which numbers are spread out: `"log"` if they span orders of magnitude.

    Example:

    >>> scale_of([0.0, 1e-4, 1e-2]), scale_of([0.1, 0.2, 0.5])
    ('log', 'linear')
    """
    values = list(values)
    positive = [value for value in values if value > 0]
    wide = len(positive) > 1 and min(values) >= 0 and max(positive) / min(positive) >= _WIDE
    return "log" if wide else "linear"
