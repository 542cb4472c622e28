"""Stacked forms of layers, one kind a file; importing this package registers them."""

from kregs.population.layers import (  # noqa: F401
    activations,
    augmentation,
    by_member,
    convolution,
    dense,
    embedding,
    ensembles,
    masking,
    merging,
    noise,
    normalization,
    own_layers,
    recurrent,
    shake,
    stateless,
    tables,
)
