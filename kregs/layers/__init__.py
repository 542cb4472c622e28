"""Layers that Keras lacks. A model that holds one needs kregs to be loaded."""

from kregs.layers.batch_ensemble import BatchEnsembleDense, EnsembleDense, RandomSign
from kregs.layers.category_embedding import CategoryEmbedding
from kregs.layers.columns import Columns
from kregs.layers.drop_block import DropBlock2D
from kregs.layers.ensemble_average import EnsembleAverage
from kregs.layers.periodic_embedding import PeriodicEmbedding
from kregs.layers.piecewise_linear_embedding import PiecewiseLinearEmbedding, quantile_edges
from kregs.layers.scale import Scale
from kregs.layers.tied_dense import TiedDense

__all__ = [
    "BatchEnsembleDense",
    "CategoryEmbedding",
    "Columns",
    "DropBlock2D",
    "EnsembleAverage",
    "EnsembleDense",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "RandomSign",
    "Scale",
    "TiedDense",
    "quantile_edges",
]
