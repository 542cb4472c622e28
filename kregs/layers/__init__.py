"""Layers that Keras lacks. A model that holds one needs kregs to be loaded."""

from kregs.layers.adversarial import AdversarialInput
from kregs.layers.drop_block import DropBlock2D
from kregs.layers.flat_cosine_dropout import FlatCosineDropout
from kregs.layers.row_mix import RowMix
from kregs.layers.shake import ShakeDrop, ShakeShake
from kregs.layers.tied_dense import TiedDense

__all__ = [
    "AdversarialInput",
    "DropBlock2D",
    "FlatCosineDropout",
    "RowMix",
    "ShakeDrop",
    "ShakeShake",
    "TiedDense",
]
