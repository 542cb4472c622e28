"""Layers that Keras lacks. A model that holds one is loaded after `import kregs.layers`."""

from kregs.layers.adversarial import AdversarialInput
from kregs.layers.batch_ensemble import BatchEnsembleDense, EnsembleDense, RandomSign
from kregs.layers.category_embedding import CategoryEmbedding
from kregs.layers.columns import Columns
from kregs.layers.drop_block import DropBlock2D
from kregs.layers.ensemble_average import EnsembleAverage
from kregs.layers.flat_cosine_dropout import FlatCosineDropout
from kregs.layers.periodic_embedding import PeriodicEmbedding
from kregs.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding, quantile_edges
from kregs.layers.row_mix import RowMix
from kregs.layers.scale import Scale
from kregs.layers.shake import ShakeDrop, ShakeShake
from kregs.layers.smooth_clip import SmoothClip
from kregs.layers.tied_dense import TiedDense

__all__ = [
    "AdversarialInput",
    "BatchEnsembleDense",
    "CategoryEmbedding",
    "Columns",
    "DropBlock2D",
    "EnsembleAverage",
    "EnsembleDense",
    "FlatCosineDropout",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "RandomSign",
    "RowMix",
    "Scale",
    "ShakeDrop",
    "ShakeShake",
    "SmoothClip",
    "TiedDense",
    "quantile_edges",
]
