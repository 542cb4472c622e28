"""`table_mlp`: the order of its layers, and the losses of an ensemble."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

ALL = Regularization(dropout=0.5, gaussian_noise=0.1, normalization="batch", drop_path=0.2)


def names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def test_order():
    model = kregs.table_mlp(
        3, 2, categories=(4,), units=(8, 8, 4), embedding="periodic", scaling=True, ensemble=2,
        skip_connections=True, regularization=ALL,
    )  # fmt: skip
    block = ["dense_{}", "dense_normalization_{}", "dense_activation_{}", "dropout_{}"]
    assert sorted(names(model)) == sorted([
        "numbers", "gaussian_noise", "number_embedding", "codes", "category_embedding",
        "concatenation", "scale",
        *(name.format(1) for name in block), *(name.format(2) for name in block),
        "drop_path_2", "add_2",
        *(name.format(3) for name in block),  # of other units than its input: no skip connection
        "head", "average",
    ])  # fmt: skip
    assert model.get_layer("drop_path_2").rate == pytest.approx(0.1)
    # signs in the first layer make the members differ, nothing else does
    signs = model.get_layer("dense_1").alpha
    assert set(np.unique(signs)) == {-1.0, 1.0}
    for name in ("dense_1", "dense_2", "dense_3"):
        layer = model.get_layer(name)
        assert (np.asarray(layer.gamma) == 1).all()
        assert name == "dense_1" or (np.asarray(layer.alpha) == 1).all()


def test_only_numbers_without_embedding_are_stock_layers():
    model = kregs.table_mlp(3, 2, units=(8,))
    assert names(model) == ["dense_1", "dense_activation_1", "head"]
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


LOSSES = {
    "softmax": ("categorical_crossentropy", "sparse_categorical_crossentropy",
                keras.losses.CategoricalCrossentropy(label_smoothing=0.1)),
    "sigmoid": ("binary_crossentropy",),
    None: ("mse", "mean_squared_error", keras.losses.MeanSquaredError()),
}  # fmt: skip


@pytest.mark.parametrize("head", LOSSES)
def test_the_losses_of_an_ensemble(head):
    r = Regularization(proximal_l1=1e-4)  # which has a `compile` of its own, too
    plain = kregs.table_mlp(2, 2, units=(3,), ensemble=2, head_activation=head)
    marked = kregs.table_mlp(2, 2, units=(3,), ensemble=2, head_activation=head, regularization=r)

    def own(y, prediction):
        return keras.ops.mean(keras.ops.abs(y - prediction), axis=-1)

    for loss in (*LOSSES[head], own):
        kregs.compile_model(plain, loss)
        kregs.compile_model(marked, loss, regularization=r)
    plain.compile("sgd", LOSSES[head][0])
    others = [loss for other in LOSSES if other != head for loss in LOSSES[other]]
    for loss in (*others, "mae", "hinge", keras.losses.Huber()):
        with pytest.raises(ValueError, match="`loss` of an ensemble"):
            plain.compile("sgd", loss)
        with pytest.raises(ValueError, match="`loss` of an ensemble"):
            kregs.compile_model(marked, loss, regularization=r)
    with pytest.raises(ValueError, match="belongs to the optimizer"):
        marked.compile("sgd", LOSSES[head][0])
    with pytest.raises(ValueError, match="with a mean over rows"):
        plain.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
