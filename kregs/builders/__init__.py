"""Builders: shapes, sizes and a `Regularization` in, an uncompiled stock Keras model out."""

from kregs.builders.autoencoder import autoencoder
from kregs.builders.convolutional import convnet
from kregs.builders.dense import mlp
from kregs.builders.linear import linear
from kregs.builders.residual import resnet
from kregs.builders.retrofit import regularization_summary, regularize
from kregs.builders.table import table_mlp
from kregs.builders.text import recurrent, text_cnn

__all__ = [
    "autoencoder",
    "convnet",
    "linear",
    "mlp",
    "recurrent",
    "regularization_summary",
    "regularize",
    "resnet",
    "table_mlp",
    "text_cnn",
]
