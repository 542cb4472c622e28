"""Search: spaces sampled through keras-tuner, trials judged by the loss without penalties.

Public names are loaded on first use: reading a result loads no TensorFlow.
"""

from __future__ import annotations

from kregs.lazy import lazy_names

_HOMES = {
    "FoldEnsemble": "kregs.search.fold_ensemble",
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


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
