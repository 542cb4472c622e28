"""Keras models whose regularization is one explicit value, and the search that finds that value.

Public names are loaded on first use, so that `import kregs` does not import TensorFlow.
"""

from __future__ import annotations

from kregs.lazy import lazy_names

__version__ = "0.1.0"

_HOMES = {
    "Regularization": "kregs.regularization",
    "initializer_for": "kregs.initializers",
    "mlp": "kregs.builders",
    "convnet": "kregs.builders",
    "resnet": "kregs.builders",
    "text_cnn": "kregs.builders",
    "recurrent": "kregs.builders",
    "linear": "kregs.builders",
    "autoencoder": "kregs.builders",
    "table_mlp": "kregs.builders",
    "regularize": "kregs.builders",
    "regularization_summary": "kregs.builders",
    "compile_model": "kregs.training",
    "proximal": "kregs.training",
    "DataLoss": "kregs.training",
    "SmoothedSparseCategoricalCrossentropy": "kregs.training",
    "early_stopping": "kregs.training",
    "default_callbacks": "kregs.training",
    "warmup_cosine": "kregs.training",
    "FlatCosine": "kregs.training",
    "CosLog4": "kregs.training",
    "MixedLoss": "kregs.training",
    "AdversarialLoss": "kregs.training",
    "decay_schedule": "kregs.training",
    "lookahead": "kregs.training",
    "StochasticWeightAveraging": "kregs.training",
    "SnapshotEnsemble": "kregs.training",
    "cycle_ends": "kregs.training",
    "refresh_batch_norm": "kregs.training",
    "augment": "kregs.training",
    "augmentation_layers": "kregs.training",
    "set_up_gpu": "kregs.training",
    "Population": "kregs.population",
    "Audit": "kregs.inspection.audit",
    "audit": "kregs.inspection.audit",
    "diagnose": "kregs.inspection.diagnosis",
    "Diagnosis": "kregs.inspection.diagnosis",
    "penalties": "kregs.inspection.penalties",
    "Penalties": "kregs.inspection.penalties",
    "PenaltyLogger": "kregs.inspection.penalties",
    "gradient_flow": "kregs.inspection.gradient_flow",
    "GradientFlow": "kregs.inspection.gradient_flow",
    "GradientFlowLogger": "kregs.inspection.gradient_flow",
    "learning_rate_curve": "kregs.inspection.curves",
    "penalty_curve": "kregs.inspection.curves",
    "RangeTest": "kregs.inspection.curves",
    "sparsity": "kregs.inspection.sparsity",
    "shrink": "kregs.inspection.shrink",
    "feature_selection": "kregs.inspection.feature_selection",
    "mc_dropout": "kregs.inspection.mc_dropout",
    "ensemble": "kregs.inspection.ensemble",
    "calibration": "kregs.inspection.calibration",
    "temperature_scaling": "kregs.inspection.calibration",
    "PopulationTuner": "kregs.search",
    "tune": "kregs.search",
    "regularization_path": "kregs.search",
    "validation_map": "kregs.search",
    "SearchResult": "kregs.search",
    "load_result": "kregs.search",
    "KregsClassifier": "kregs.estimators",
    "KregsRegressor": "kregs.estimators",
    "Table": "kregs.tables",
    "read_table": "kregs.tables",
    "TableRun": "kregs.tables",
    "tune_table": "kregs.tables",
    "predict_table": "kregs.tables",
}
_SUBPACKAGES = (
    "builders",
    "layers",
    "presets",
    "training",
    "population",
    "search",
    "inspection",
    "tables",
    "reporting",
    "catalog",
    "demos",
)

__all__ = sorted([*_HOMES, "__version__", *_SUBPACKAGES])


__getattr__, __dir__ = lazy_names(__name__, _HOMES, _SUBPACKAGES)
