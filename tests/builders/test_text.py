"""What `text_cnn` and `recurrent` promise beyond the table of all builders."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

L = keras.layers
RNG = np.random.default_rng(0)
EVERYTHING = Regularization(
    l1=1e-3, l2=1e-2, bias_l2=1e-2, max_norm=3.0, dropout=0.5, spatial_dropout=0.2, activity_l2=0.1
)


def test_text_cnn_against_numpy():
    model = kregs.text_cnn(
        30, 2, sequence_length=6, embedding_units=5, filters=3, kernel_sizes=(2, 3), seed=0
    )
    x = RNG.integers(0, 30, size=(4, 6))
    weights = {"/".join(v.path.split("/")[-2:]): v.numpy() for v in model.weights}
    embedded = weights["embedding/embeddings"][x]
    pooled = []
    for size in (2, 3):
        kernel, bias = weights[f"convolution_{size}/kernel"], weights[f"convolution_{size}/bias"]
        windows = np.stack([embedded[:, i : i + 6 - size + 1] for i in range(size)], axis=2)
        maps = np.maximum(np.einsum("btke,kef->btf", windows, kernel) + bias, 0)
        pooled.append(maps.max(axis=1))
    scores = np.concatenate(pooled, axis=1) @ weights["head/kernel"] + weights["head/bias"]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4)


def test_text_cnn_places_its_regularization():
    model = kregs.text_cnn(
        30, 2, sequence_length=6, kernel_sizes=(2, 3),
        regularization=EVERYTHING.replace(normalization="layer", gaussian_noise=0.1),
    )  # fmt: skip
    names = [layer.name for layer in model.layers]
    assert names.index("embedding") < names.index("gaussian_noise") < names.index("spatial_dropout")
    assert names[-3:] == ["concatenate", "dropout", "head"]
    assert isinstance(model.get_layer("spatial_dropout"), L.SpatialDropout1D)
    for size in (2, 3):
        convolution = model.get_layer(f"convolution_{size}")
        assert convolution.kernel_constraint is None
        assert not convolution.use_bias
        assert convolution.kernel_regularizer.get_config() == {"l1": 1e-3, "l2": 1e-2}
    head = model.get_layer("head")
    assert head.kernel_constraint.get_config() == {"max_value": 3.0, "axis": 0}
    assert model.get_layer("embedding").embeddings_regularizer is None


def test_max_norm_holds_after_training():
    model = kregs.text_cnn(
        30, 2, sequence_length=6, filters=4, regularization=Regularization(max_norm=0.1), seed=0
    )
    kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=0.5)
    model.run_eagerly = True
    model.fit(RNG.integers(0, 30, size=(16, 6)), RNG.integers(0, 2, 16), verbose=0)
    norms = np.linalg.norm(model.get_layer("head").kernel.numpy(), axis=0)
    assert (norms <= 0.1 + 1e-6).all()
    assert norms.max() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_shapes_and_placement(cell, bidirectional):
    model = kregs.recurrent(
        30, 2, units=(4, 3), cell=cell, bidirectional=bidirectional, recurrent_dropout=0.25,
        regularization=EVERYTHING.replace(normalization="layer"), seed=0,
    )  # fmt: skip
    assert [layer.name for layer in model.layers] == [
        "embedding", "spatial_dropout",
        f"{cell}_1", "normalization_1", "activity_1", "dropout_1",
        f"{cell}_2", "normalization_2", "activity_2", "dropout_2", "head",
    ]  # fmt: skip
    width = 2 if bidirectional else 1
    assert model.get_layer(f"{cell}_1").output.shape == (None, None, 4 * width)
    assert model.get_layer(f"{cell}_2").output.shape == (None, 3 * width)
    layer = model.get_layer(f"{cell}_1")
    for one in (layer.forward_layer, layer.backward_layer) if bidirectional else (layer,):
        assert one.recurrent_dropout == 0.25
        assert one.kernel_regularizer.get_config() == {"l1": 1e-3, "l2": 1e-2}
        assert one.recurrent_regularizer.get_config() == {"l1": 1e-3, "l2": 1e-2}
        assert one.bias_regularizer.get_config() == {"l1": 0.0, "l2": 1e-2}
        assert one.recurrent_constraint.get_config() == {"max_value": 3.0, "axis": 0}
    assert model(RNG.integers(1, 30, size=(3, 5))).shape == (3, 2)


def test_the_two_directions_start_differently_under_a_seed():
    layer = kregs.recurrent(30, 2, units=(4,), bidirectional=True, seed=0).get_layer("lstm_1")
    forward, backward = layer.forward_layer.cell, layer.backward_layer.cell
    assert not np.allclose(forward.kernel, backward.kernel)
    assert not np.allclose(forward.recurrent_kernel, backward.recurrent_kernel)
    again = kregs.recurrent(30, 2, units=(4,), bidirectional=True, seed=0).get_layer("lstm_1")
    np.testing.assert_array_equal(backward.kernel, again.backward_layer.cell.kernel)


@pytest.mark.parametrize("mask_zero", [True, False])
def test_padding_is_passed_over_if_masked(mask_zero):
    model = kregs.recurrent(30, 2, units=(4,), mask_zero=mask_zero, seed=0)
    short = RNG.integers(1, 30, size=(3, 4))
    padded = np.pad(short, ((0, 0), (0, 3)))
    same = np.allclose(model(short), model(padded), rtol=1e-5, atol=1e-6)
    assert same == mask_zero


def test_embeddings_are_penalized_on_request():
    for build in (kregs.text_cnn, kregs.recurrent):
        model = build(30, 2, sequence_length=6, penalize_embeddings=True, regularization=EVERYTHING)
        assert model.get_layer("embedding").embeddings_regularizer is not None


def test_penalty_of_a_recurrent_model_in_closed_form():
    model = kregs.recurrent(30, 2, units=(4,), regularization=Regularization(l2=0.1, bias_l1=0.2))
    expected = 0.0
    for variable in model.trainable_variables:
        value = variable.numpy().astype("float64")
        if "kernel" in variable.name:  # the recurrent kernel too
            expected += 0.1 * (value**2).sum()
        if "bias" in variable.name:
            expected += 0.2 * np.abs(value).sum()
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (kregs.text_cnn, {"kernel_sizes": (3, 7)}, "at most sequence_length=6"),
        (kregs.text_cnn, {"kernel_sizes": (3, 3)}, "`kernel_sizes` must be different"),
        (kregs.text_cnn, {"kernel_sizes": ()}, "`kernel_sizes` must hold"),
        (kregs.text_cnn, {"filters": 0}, "`filters` must be"),
        (kregs.text_cnn, {"vocabulary": 0}, "`vocabulary` must be"),
        (kregs.text_cnn, {"embedding_units": 0}, "`embedding_units` must be"),
        (kregs.text_cnn, {"outputs": 1}, "`head_activation` must not be 'softmax'"),
        (kregs.text_cnn, {"regularization": Regularization(drop_path=0.1)}, "drop_path"),
        (kregs.recurrent, {"cell": "ltsm"}, "Did you mean 'lstm'"),
        (kregs.recurrent, {"units": ()}, "`units` must hold"),
        (kregs.recurrent, {"recurrent_dropout": 1.0}, "`recurrent_dropout` must be"),
        (
            kregs.recurrent,
            {"regularization": Regularization(normalization="batch")},
            r"must be 'layer' or None for recurrent\(\)",
        ),
    ],
)
def test_wrong_arguments(build, options, message):
    arguments = {"vocabulary": 30, "outputs": 2, "sequence_length": 6} | options
    with pytest.raises(ValueError, match=message):
        build(arguments.pop("vocabulary"), arguments.pop("outputs"), **arguments)
