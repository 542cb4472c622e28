"""Many models of one structure, trained as one."""

from kregs.population import (  # noqa: F401  (they register their stacked forms)
    augmentation,
    convolution,
    dense,
    noise,
    normalization,
    own_layers,
    recurrent,
    stateless,
)
from kregs.population.population import Population
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked

__all__ = ["Context", "NotStackable", "Population", "Stacked", "StackedLayer", "register"]
