"""Search: spaces sampled through keras-tuner, trials judged by the loss without penalties."""

from __future__ import annotations

from kregs.search.paths import (
    RegularizationPath,
    ValidationMap,
    regularization_path,
    validation_map,
)
from kregs.search.population_tuner import PopulationTuner, SequentialFallback
from kregs.search.result import SearchResult, load_result
from kregs.search.tuning import tune

__all__ = [
    "PopulationTuner",
    "RegularizationPath",
    "SearchResult",
    "SequentialFallback",
    "ValidationMap",
    "load_result",
    "regularization_path",
    "tune",
    "validation_map",
]
