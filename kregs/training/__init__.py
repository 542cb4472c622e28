"""Training: compile, callbacks, schedules, augmentation, checks of the data, devices."""

from __future__ import annotations

from kregs.training.augmentation import augment, augmentation_layers
from kregs.training.callbacks import default_callbacks, early_stopping
from kregs.training.compilation import compile_model
from kregs.training.data_checks import check_data
from kregs.training.data_loss import DataLoss
from kregs.training.device import set_up_gpu
from kregs.training.label_smoothing import SmoothedSparseCategoricalCrossentropy
from kregs.training.optimizer_additions import decay_schedule, lookahead
from kregs.training.proximal import proximal
from kregs.training.schedules import CosLog4, FlatCosine, warmup_cosine
from kregs.training.weight_averaging import (
    SnapshotEnsemble,
    StochasticWeightAveraging,
    cycle_ends,
    refresh_batch_norm,
)
from kregs.training.wrapped_loss import AdversarialLoss, MixedLoss

__all__ = [
    "AdversarialLoss",
    "CosLog4",
    "DataLoss",
    "FlatCosine",
    "MixedLoss",
    "SmoothedSparseCategoricalCrossentropy",
    "SnapshotEnsemble",
    "StochasticWeightAveraging",
    "augment",
    "augmentation_layers",
    "check_data",
    "compile_model",
    "cycle_ends",
    "decay_schedule",
    "default_callbacks",
    "early_stopping",
    "lookahead",
    "proximal",
    "refresh_batch_norm",
    "set_up_gpu",
    "warmup_cosine",
]
