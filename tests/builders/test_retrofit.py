"""`regularize`: the same function, restrained; the original untouched."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

L = keras.layers
RNG = np.random.default_rng(0)
ALL = Regularization(
    l1=1e-3, l2=1e-2, bias_l1=2e-2, bias_l2=1e-3, max_norm=5.0,
    activity_l2=0.1, dropout=0.4, spatial_dropout=0.2,
)  # fmt: skip


def dense_functional():
    inputs = keras.Input((6,))
    x = L.Dense(8, use_bias=False, name="first")(inputs)
    x = L.BatchNormalization(name="normalization")(x)
    x = L.Activation("relu", name="first_activation")(x)
    x = L.Dense(8, "gelu", name="second", kernel_regularizer="l1")(x)
    x = L.Dropout(0.9, name="old_dropout")(x)
    x = L.Dense(3, name="head")(x)
    return keras.Model(inputs, L.Softmax(name="softmax")(x))


def convolutional_sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Rescaling(1 / 255, name="rescaling"),
            L.Conv2D(4, 3, name="conv"),
            L.ReLU(name="relu"),
            L.MaxPooling2D(name="pooling"),
            L.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            L.SeparableConv2D(4, 1, activation="relu", name="separable"),
            L.GlobalAveragePooling2D(name="average"),
            L.Dense(2, "softmax", name="head"),
        ]
    )


def shared_layers():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = L.Dense(5, "relu", name="shared")
    merged = L.Concatenate()([shared(a), shared(b)])
    return keras.Model([a, b], L.Dense(1, name="head")(merged))


def nested():
    inside = keras.Sequential([keras.Input((6,)), L.Dense(5, "relu", name="inner")], name="encoder")
    inputs = keras.Input((6,))
    deep = keras.Sequential(
        [keras.Input((5,)), L.Dense(3, "softmax", name="inner_head")], name="top"
    )
    return keras.Model(inputs, deep(inside(inputs)))


def recurrent():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            L.Embedding(20, 4, mask_zero=True, name="embedding"),
            L.Bidirectional(L.LSTM(3, return_sequences=True), name="both"),
            L.TimeDistributed(L.Dense(4, "relu"), name="steps"),
            L.GRU(3, name="gru"),
            L.Dense(2, "softmax", name="head"),
        ]
    )


MODELS = {
    "dense_functional": (dense_functional, lambda n: RNG.normal(size=(n, 6))),
    "convolutional": (
        convolutional_sequential,
        lambda n: RNG.uniform(0, 255, size=(n, 8, 8, 3)),
    ),
    "shared": (shared_layers, lambda n: [RNG.normal(size=(n, 4)), RNG.normal(size=(n, 4))]),
    "nested": (nested, lambda n: RNG.normal(size=(n, 6))),
    "recurrent": (recurrent, lambda n: RNG.integers(0, 20, size=(n, 5))),
    "mobilenet": (
        lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5),
        lambda n: RNG.uniform(-1, 1, size=(n, 32, 32, 3)),
    ),
}


def all_layers(model):
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def closed_form_penalty(model, r):
    """L1 and L2 of every kernel and bias once, computed from the variables' names."""
    total = 0.0
    for variable in {id(v): v for v in model.trainable_variables}.values():
        value = variable.numpy().astype("float64")
        if "kernel" in variable.name:
            total += r.l1 * np.abs(value).sum() + r.l2 * (value**2).sum()
        elif variable.name == "bias":
            total += r.bias_l1 * np.abs(value).sum() + r.bias_l2 * (value**2).sum()
    return total


def predict(model, x):
    """Return predictions without tracing a graph for them."""
    parts = x if isinstance(x, list) else [x]
    parts = [part.astype(tensor.dtype) for part, tensor in zip(parts, model.inputs, strict=True)]
    return np.asarray(model(parts if isinstance(x, list) else parts[0], training=False))


@pytest.mark.parametrize("name", MODELS)
def test_same_predictions_other_penalties(name):
    build, make_x = MODELS[name]
    model, x = build(), make_x(4)
    for variable in model.trainable_variables:  # biases too are not zero after training
        variable.assign(variable + 0.1)
    before, config = predict(model, x), model.get_config()
    weights = model.get_weights()
    treated = kregs.regularize(model, ALL, seed=0)

    assert type(treated) is type(model)
    assert treated.name == model.name
    assert not treated.compiled
    np.testing.assert_allclose(predict(treated, x), before, rtol=1e-5, atol=1e-6)
    plain = kregs.regularize(treated, ALL.replace(activity_l2=0.0))
    assert float(sum(plain.losses)) == pytest.approx(closed_form_penalty(plain, ALL), rel=1e-4)
    # the original: same structure, weights, predictions, and still no penalty but its own
    assert model.get_config() == config
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(predict(model, x), before)


@pytest.mark.parametrize("name", ["dense_functional", "convolutional", "nested", "recurrent"])
def test_trains_saves_and_loads(name, tmp_path):
    build, make_x = MODELS[name]
    treated = kregs.regularize(build(), ALL, seed=0)
    x, y = make_x(16), RNG.integers(0, 2, 16)
    kregs.compile_model(treated, "sparse_categorical_crossentropy")
    treated.run_eagerly = True  # it is stock Keras: graphs of such layers are trained elsewhere
    history = treated.fit(x, y, verbose=0).history
    assert history["loss"][0] > history["data_loss"][0] > 0
    treated.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(loaded, x), predict(treated, x), rtol=1e-5)


def names_of(model):
    return [layer.name for layer in all_layers(model) if not isinstance(layer, L.InputLayer)]


def test_where_layers_are_put():
    assert names_of(kregs.regularize(dense_functional(), ALL)) == [
        "first", "normalization", "first_activation",
        "first_activation_activity", "first_activation_dropout",
        "second", "second_activity", "old_dropout", "head", "softmax",
    ]  # fmt: skip
    assert names_of(kregs.regularize(convolutional_sequential(), ALL)) == [
        "rescaling", "conv", "relu", "relu_activity", "relu_spatial_dropout", "pooling",
        "depthwise", "depthwise_activity", "depthwise_spatial_dropout",
        "separable", "separable_activity", "separable_spatial_dropout",
        "average", "head_dropout", "head",
    ]  # fmt: skip


def test_rates_of_dropout_layers_are_replaced():
    treated = kregs.regularize(dense_functional(), ALL)
    rates = {layer.name: layer.rate for layer in treated.layers if isinstance(layer, L.Dropout)}
    assert rates == {"first_activation_dropout": 0.4, "old_dropout": 0.4}
    again = kregs.regularize(treated, ALL.replace(dropout=0.1, activity_l2=0.0))
    rates = {layer.name: layer.rate for layer in again.layers if isinstance(layer, L.Dropout)}
    assert rates == {"first_activation_dropout": 0.1, "old_dropout": 0.1}
    assert names_of(again) == names_of(treated)


def test_nothing_takes_everything_away():
    treated = kregs.regularize(kregs.regularize(dense_functional(), ALL), Regularization())
    treated(np.ones((2, 6)))
    assert float(sum(treated.losses)) == 0.0
    assert all(layer.rate == 0.0 for layer in treated.layers if isinstance(layer, L.Dropout))
    assert all(getattr(layer, "kernel_constraint", None) is None for layer in treated.layers)


def test_activity_penalty_in_closed_form():
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, "relu", name="hidden"), L.Dense(2, name="head")]
    )
    treated = kregs.regularize(model, Regularization(activity_l1=0.1, activity_l2=0.2))
    x = RNG.normal(size=(7, 6)).astype("float32")
    treated(x)
    hidden = np.maximum(x @ model.layers[0].kernel.numpy(), 0)
    expected = (0.1 * np.abs(hidden).sum() + 0.2 * (hidden**2).sum()) / 7
    assert float(sum(treated.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["dense_functional", "convolutional", "recurrent"])
def test_max_norm_bounds_every_unit(name):
    build, make_x = MODELS[name]
    model = kregs.regularize(build(), Regularization(max_norm=0.05))
    kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=0.1)
    model.run_eagerly = True
    model.fit(make_x(16), RNG.integers(0, 2, 16), verbose=0)
    kernels = [v for v in model.trainable_variables if "kernel" in v.name]
    assert len(kernels) >= 3
    for variable in kernels:
        value = variable.numpy()
        depthwise = variable.name == "depthwise_kernel" or "depthwise" in variable.path
        depthwise = depthwise and value.shape[-1] == 1
        into_one = tuple(range(value.ndim - (2 if depthwise else 1)))
        norms = np.sqrt((value**2).sum(axis=into_one))
        assert norms.max() == pytest.approx(0.05, abs=1e-4), variable.path


@pytest.mark.parametrize("rank", [1, 2])
def test_max_norm_of_transposed_convolutions(rank):
    layer = (L.Conv1DTranspose if rank == 1 else L.Conv2DTranspose)(5, 3, name="up")
    model = keras.Sequential([keras.Input((8,) * rank + (3,)), layer, L.Flatten(), L.Dense(1)])
    treated = kregs.regularize(model, Regularization(max_norm=0.05))
    new = treated.get_layer("up")
    bounded = new.kernel_constraint(new.kernel).numpy()  # (space, filters, inputs)
    norms = np.sqrt((bounded**2).sum(axis=(*range(rank), rank + 1)))
    np.testing.assert_allclose(norms, np.full(5, 0.05), rtol=1e-3)


def test_only_the_chosen_layers():
    by_name = kregs.regularize(dense_functional(), ALL, layers=["second"])
    assert by_name.get_layer("first").kernel_regularizer is None
    assert by_name.get_layer("second").kernel_regularizer.get_config() == {"l1": 1e-3, "l2": 1e-2}
    assert by_name.get_layer("old_dropout").rate == 0.4  # belongs to the layer it follows
    assert "first_activation_dropout" not in names_of(by_name)
    by_type = kregs.regularize(
        dense_functional(), ALL, layers=lambda layer: layer.name in ("first", "head")
    )
    assert by_type.get_layer("second").kernel_regularizer.get_config()["l1"] == pytest.approx(0.01)
    assert "first_activation_dropout" in names_of(by_type)
    inner = kregs.regularize(nested(), ALL, layers=["inner"])
    assert inner.get_layer("encoder").get_layer("inner").kernel_regularizer is not None
    assert inner.get_layer("top").get_layer("inner_head").kernel_regularizer is None


def test_nested_heads_are_found():
    names = names_of(kregs.regularize(nested(), ALL))
    assert "inner_dropout" in names
    assert not [name for name in names if name.startswith("inner_head_activity")]


def test_layers_stay_frozen_and_other_constraints_stay():
    inputs = keras.Input((4,))
    x = L.Dense(3, "relu", name="kept", kernel_constraint="non_neg")(inputs)
    model = keras.Model(inputs, L.Dense(1, name="head")(x))
    model.get_layer("kept").trainable = False
    treated = kregs.regularize(model, Regularization(l2=0.1))
    assert not treated.get_layer("kept").trainable
    assert isinstance(treated.get_layer("kept").kernel_constraint, keras.constraints.NonNeg)
    with pytest.raises(ValueError, match=r"'kept': it has NonNeg. Leave it out"):
        kregs.regularize(model, Regularization(max_norm=1.0))
    assert kregs.regularize(model, Regularization(max_norm=1.0), layers=["head"]) is not None


def test_a_compiled_model_with_its_own_loss_is_copied_uncompiled():
    model = dense_functional()
    model.compile(loss=lambda y_true, y_pred: y_pred - y_true, run_eagerly=True)
    model.fit(np.ones((4, 6)), np.ones((4, 3)), verbose=0)
    treated = kregs.regularize(model, ALL)
    assert not treated.compiled
    x = RNG.normal(size=(3, 6))
    np.testing.assert_allclose(predict(treated, x), predict(model, x), rtol=1e-5)
    model.fit(np.ones((4, 6)), np.ones((4, 3)), verbose=0)  # still trains


def test_seed_makes_the_dropout_repeatable():
    model = dense_functional()
    one, two, other = (kregs.regularize(model, ALL, seed=s) for s in (1, 1, 2))
    drops = [m.get_layer("first_activation_dropout").seed for m in (one, two, other)]
    assert drops[0] == drops[1] != drops[2]


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "regularization", "layers", "error", "message"),
    [
        (
            "dense",
            ALL.replace(normalization="batch"),
            None,
            ValueError,
            "normalization` must be None",
        ),
        ("dense", Regularization(drop_path=0.1), None, ValueError, "drop_path` has no meaning"),
        ("dense", Regularization(input_dropout=0.1), None, ValueError, "has no meaning"),
        ("dense", {"l2": 0.1}, None, TypeError, "`regularization` must be"),
        ("dense", None, None, TypeError, "`regularization` must be"),
        ("dense", ALL, ["frist"], ValueError, "Did you mean 'first'"),
        ("dense", ALL, "first", TypeError, "`layers` must be names"),
        ("dense", ALL, lambda layer: False, ValueError, "none is selected"),
        ("dense", ALL, [], ValueError, "none is selected"),
        ("subclassed", ALL, None, ValueError, "subclassed"),
        ("unbuilt", ALL, None, ValueError, "must be built"),
        ("layer", ALL, None, TypeError, r"`model` must be a keras\.Model"),
    ],
)
def test_wrong_arguments(model, regularization, layers, error, message):
    made = {
        "dense": dense_functional,
        "subclassed": Subclassed,
        "unbuilt": lambda: keras.Sequential([L.Dense(2)]),
        "layer": lambda: L.Dense(2),
    }[model]()
    with pytest.raises(error, match=message):
        kregs.regularize(made, regularization, layers=layers)
