"""`kregs.sparsity`: counts of zeros, dead units and dead inputs, layer by layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs

L = keras.layers
numpy_of = keras.ops.convert_to_numpy


def filled(model):
    """Give every weight of a model the value 1."""
    for weight in model.weights:
        weight.assign(np.ones(weight.shape))
    return model


def set_zero(variable, index):
    value = numpy_of(variable).copy()
    value[index] = 0.0
    variable.assign(value)


# layer, shape of its input, which part of which weight is 0, units, dead units, inputs, dead inputs
CASES = {
    "dense": (L.Dense(4), (3,), {"kernel": np.s_[:, 1:3]}, (4, 2, 3, 0)),
    "dense rows": (L.Dense(4), (3,), {"kernel": np.s_[[0, 2]]}, (4, 0, 3, 2)),
    "convolution": (L.Conv2D(4, 2), (5, 5, 3), {"kernel": np.s_[..., 1]}, (4, 1, 3, 0)),
    "one position": (L.Conv2D(4, 2), (5, 5, 3), {"kernel": np.s_[0]}, (4, 0, 3, 0)),
    "transposed": (L.Conv1DTranspose(4, 2), (5, 3), {"kernel": np.s_[:, 1]}, (4, 1, 3, 0)),
    "grouped": (L.Conv1D(4, 2, groups=2), (5, 6), {"kernel": np.s_[..., 1]}, (4, 1, 0, 0)),
    "depthwise": (
        L.DepthwiseConv2D(2, depth_multiplier=2),
        (5, 5, 3),
        {"kernel": np.s_[:, :, 1]},
        (6, 2, 3, 1),
    ),
    "separable": (
        L.SeparableConv1D(4, 2),
        (5, 3),
        {"depthwise_kernel": np.s_[:, 0], "pointwise_kernel": np.s_[:, 1:, 2:]},
        (4, 2, 3, 1),
    ),
    "embedding": (L.Embedding(7, 4), (5,), {"embeddings": np.s_[:, 2]}, (4, 1, 0, 0)),
    "einsum": (L.EinsumDense("ab,bc->ac", 4), (3,), {"kernel": np.s_[:, 1]}, (0, 0, 0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_dead_units_and_inputs(case):
    layer, shape, zeros, expected = CASES[case]
    model = filled(keras.Sequential([keras.Input(shape), layer]))
    for name, index in zeros.items():
        set_zero(getattr(layer, name), index)
    (row,) = kregs.sparsity(model).layers
    assert (row.units, row.dead_units, row.inputs, row.dead_inputs) == expected
    assert row.weights == model.count_params()
    assert row.zeros == sum(int((numpy_of(w) == 0).sum()) for w in model.weights)
    assert row.zeros > 0


@pytest.mark.parametrize("kind", [L.SimpleRNN, L.GRU, L.LSTM])
def test_a_recurrent_unit_is_dead_with_all_of_its_gates(kind):
    layer = kind(4)
    model = filled(keras.Sequential([keras.Input((5, 3)), layer]))
    columns = np.arange(layer.cell.kernel.shape[1])
    set_zero(layer.cell.kernel, np.s_[:, columns % 4 == 1])
    set_zero(layer.cell.recurrent_kernel, np.s_[:, columns % 4 == 1])
    set_zero(layer.cell.kernel, np.s_[:, columns % 4 == 2])  # its state still leads to it
    set_zero(layer.cell.kernel, np.s_[2])
    total = kregs.sparsity(model).total
    assert (total.units, total.dead_units, total.inputs, total.dead_inputs) == (4, 1, 3, 1)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.norm = L.Dense(4, name="first"), L.BatchNormalization()
        self.stack = keras.Sequential([L.Dense(2, use_bias=False, name="second")], name="stack")

    def call(self, x):
        return self.stack(self.norm(self.first(x)))


def test_subclassed_nested_and_shared_layers_are_counted_once():
    model = Subclassed()
    model(np.ones((1, 3), "float32"))
    filled(model)
    set_zero(model.first.kernel, np.s_[:, 3])
    set_zero(model.stack.layers[0].kernel, np.s_[1:])
    report = kregs.sparsity(model)
    assert [row.layer for row in report.layers] == ["first", "stack/second"]
    assert (report.total.weights, report.total.zeros) == (16 + 8, 3 + 6)
    assert (report.total.dead_units, report.total.dead_inputs) == (1, 3)

    shared, x = L.Dense(3, name="shared"), keras.Input((3,))
    twice = filled(keras.Model(x, shared(shared(x))))
    assert kregs.sparsity(twice).total.weights == 12


def test_a_wrapped_layer_stands_behind_its_wrapper():
    model = filled(keras.Sequential([keras.Input((4, 3)), L.TimeDistributed(L.Dense(2, name="d"))]))
    (row,) = kregs.sparsity(model).layers
    assert (row.layer.rpartition("/")[2], row.units, row.inputs) == ("d", 2, 3)
    assert "/" in row.layer


def test_weights_of_one_name_are_all_counted():
    class Twofold(L.Layer):
        def build(self, shape):
            self.parts = [self.add_weight(shape=(n,), name="w") for n in (3, 5)]

        def call(self, x):
            return x * keras.ops.sum(self.parts[0])

    layer = Twofold()
    model = filled(keras.Sequential([keras.Input((2,)), layer]))
    set_zero(layer.parts[0], [1])
    set_zero(layer.parts[1], [0, 4])
    total = kregs.sparsity(model).total
    assert (total.weights, total.zeros) == (8, 3)


@pytest.mark.parametrize("freeze", ["model", "layer", "weight", "before it is built"])
def test_frozen_weights_are_counted(freeze):
    dense = L.Dense(4, trainable=freeze != "before it is built")
    data = L.Normalization()
    data.adapt(np.eye(3))
    model = filled(keras.Sequential([keras.Input((3,)), data, L.BatchNormalization(), dense]))
    set_zero(dense.kernel, np.s_[:, 1])
    frozen = {"model": model, "layer": dense, "weight": dense.kernel}.get(freeze, dense)
    frozen.trainable = False
    total = kregs.sparsity(model).total
    assert (total.weights, total.zeros, total.dead_units) == (16, 3, 1)


def test_the_table_and_its_words_agree():
    model = filled(
        keras.Sequential([keras.Input((3,)), L.Dense(4, name="a"), L.Dense(2, name="b")])
    )
    set_zero(model.layers[0].kernel, np.s_[:, :2])
    report = kregs.sparsity(model)
    frame = report.to_frame()
    assert frame["layer"].tolist() == ["a", "b", "all"]
    assert frame["share"].tolist() == pytest.approx([6 / 16, 0, 6 / 26])
    assert frame.iloc[-1]["dead_units"] == 2
    lines = str(report).splitlines()
    assert " ".join(lines[-1].split()) == "all 26 6 (23%) 2 of 6 0 of 7"
    assert len({len(line) for line in lines}) == 1
    assert "6 of 26 weights are 0, 2 of 6 units dead" in repr(report)


def test_bad_input():
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model\. Received: .*Dense"):
        kregs.sparsity(L.Dense(2))
    with pytest.raises(ValueError, match="`model` must be built"):
        kregs.sparsity(keras.Sequential([L.Dense(2)]))
