"""Search: spaces sampled through keras-tuner, trials judged by the loss without penalties.

Public names are loaded on first use: reading a result loads no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "PopulationTuner": "kregs.search.tuner",
    "Protocol": "kregs.search.protocol",
    "RegularizationPath": "kregs.search.judging.paths",
    "SearchResult": "kregs.search.result",
    "SequentialFallback": "kregs.search.tuner",
    "ValidationMap": "kregs.search.judging.paths",
    "load_result": "kregs.search.result",
    "regularization_path": "kregs.search.judging.paths",
    "tune": "kregs.search.tuning",
    "validation_map": "kregs.search.judging.paths",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
