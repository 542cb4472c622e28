"""The network of a table: its first trial is the preset, the others vary it."""

from __future__ import annotations

import keras_tuner
import pytest

import kregs
from kregs.presets import for_table
from kregs.tables.networks import TableNetwork

FACTS = {"numbers": 3, "rows": 60, "epochs": 2, "batch_size": 32}


@pytest.mark.parametrize("classes", [None, 2, 4])
def test_the_defaults_of_the_space_are_the_preset(classes):
    network = TableNetwork(classes=classes, categories=(3,), **FACTS)
    hp = keras_tuner.HyperParameters()
    first = network(hp)
    preset = TableNetwork(classes=classes, categories=(3,), searched=False, **FACTS)
    nothing = keras_tuner.HyperParameters()
    expected = preset(nothing)
    assert nothing.values == {}
    assert first.get_config() == expected.get_config()
    for name in ("weight_decay", "beta_2", "learning_rate"):
        assert first.optimizer.get_config()[name] == expected.optimizer.get_config()[name]
    assert hp.values["learning_rate"] == for_table(classes).learning_rate


def test_what_is_sampled_is_in_the_network():
    network = TableNetwork(classes=2, **FACTS)
    hp = keras_tuner.HyperParameters()
    network(hp)
    hp.values |= {
        "learning_rate": 2e-3, "weight_decay": 0.3, "dropout": 0.4, "use_l2": True, "l2": 1e-3,
    }  # fmt: skip
    if "embedding" in hp.values:
        hp.values["embedding"] = "periodic"
    model = network(hp)
    assert model.get_layer("dropout_1").rate == 0.4
    assert model.get_layer("dense_1").kernel_regularizer.l2 == pytest.approx(1e-3)
    assert model.optimizer.weight_decay == 0.3
    if "embedding" in hp.values:
        layer = model.get_layer("number_embedding")
        assert isinstance(layer, kregs.layers.PeriodicEmbedding)


def test_edges_are_those_of_the_piecewise_embedding():
    edges = ((0.0, 1.0), (0.0, 0.5, 2.0), (-1.0, 1.0))
    network = TableNetwork(classes=None, searched=False, edges=edges, **FACTS)
    layer = network(None).get_layer("number_embedding")
    assert [tuple(column) for column in layer.get_config()["edges"]] == list(edges)
    # a table of categories alone has none
    facts = FACTS | {"numbers": 0, "categories": (3,), "edges": ()}
    assert TableNetwork(classes=3, searched=False, **facts)(None).input_shape == (None, 1)
