"""Many models of one structure, trained as one. How it flows, file by file:

1.  Compiled Keras models come in (`population.py`); each is read as a graph of layers (`graph.py`)
    and becomes a `Member` with a signature: what must be equal (`signature.py`). Functions and
    classes, which may be defined anew for each model, are told apart by what they compute
    (`fingerprint.py`).
2.  Members of one signature share a `Layout`: a place for every number that may differ, λ, rates,
    learning rate, ... (`layout.py`). Most layer classes have a stacked form (`registry.py`,
    `layers/`), which computes on tensors of K members (`stacked.py`) and draws noise by each
    member's seed (`threefry.py`); any other layer is called once a member (`layers/by_member.py`).
    A part that is frozen in all can be computed beforehand (`frozen.py`).
3.  A `Program` is the stacked model (`stacked_model.py`) with loss, metrics (`objective.py`) and
    optimizer (`optimizers.py`; any other by `optimizer_by_member.py`), compiled once, with a slot
    for each of K members (`program.py`).
4.  A `Training` takes `Job`s, members to be trained (`jobs.py`), from a queue, puts them into the
    slots of each device (`lane.py`) with their rows (`rows.py`), epoch by epoch, as many as memory
    holds (`capacity.py`), and yields each job when it has ended (`training.py`). Keras callbacks
    are called for each member, which they see as a Keras model of its own (`callbacks.py`).
5.  A job then has its history and weights; `Population` hands them back as plain Keras models.

Every private name of Keras that this needs is in `keras_internals.py`.
"""

from kregs.population import layers  # noqa: F401  (registers the stacked forms)
from kregs.population.population import Population
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked

__all__ = ["Context", "NotStackable", "Population", "Stacked", "StackedLayer", "register"]
