"""`regularize`: the same function, restrained; the original untouched."""

from __future__ import annotations

import random

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


def rates_of(model):
    return {layer.name: layer.rate for layer in all_layers(model) if hasattr(layer, "rate")}


DROP = Regularization(dropout=0.4, activity_l1=0.1, spatial_dropout=0.3)


@pytest.mark.parametrize(
    "end",
    [
        [L.Activation("softplus", name="end")],
        [L.ReLU(name="end")],
        [L.BatchNormalization(name="scale"), L.Activation("tanh", name="end")],
        [L.Activation("relu", name="bend"), L.Rescaling(100.0, name="end")],
        [L.Reshape((1, 1), name="end")],
    ],
    ids=lambda layers: type(layers[0]).__name__,
)
def test_nothing_comes_after_the_output_whatever_its_activation(end):
    layers = [keras.Input((6,)), L.Dense(5, "relu", name="hidden"), L.Dense(1, name="head"), *end]
    treated = kregs.regularize(keras.Sequential(layers), DROP)
    assert names_of(treated) == [
        "hidden", "hidden_activity", "hidden_dropout", "head", *[layer.name for layer in end],
    ]  # fmt: skip
    inputs = keras.Input((6,))
    x = inputs
    for layer in layers[1:]:
        x = type(layer).from_config(layer.get_config())(x)
    functional = kregs.regularize(keras.Model(inputs, [x, keras.ops.exp(x)]), DROP)
    assert names_of(functional)[:4] == ["hidden", "hidden_activity", "hidden_dropout", "head"]
    assert not [name for name in names_of(functional)[4:] if "drop" in name or "activity" in name]


def test_a_convolution_that_ends_the_model_is_an_output():
    layers = [L.Conv2D(4, 3, activation="relu", name="first"), L.Conv2D(1, 3, name="last")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, L.ReLU(name="end")])
    assert names_of(kregs.regularize(model, DROP)) == [
        "first", "first_activity", "first_spatial_dropout", "last", "end",
    ]  # fmt: skip


def test_a_shared_layer_is_treated_call_by_call():
    """One layer is hidden in its first call, and the output in the second."""
    inputs = keras.Input((5,), name="in")
    shared, act = L.Dense(5, name="shared"), L.Activation("relu", name="act")
    hidden = act(shared(inputs))
    model = keras.Model(inputs, act(shared(hidden)))
    treated = kregs.regularize(model, DROP.replace(l2=0.5))
    assert names_of(treated) == ["shared", "act", "act_activity", "act_dropout"]
    # the output is an activation: with dropout after it a part of it would be 0
    kernel, bias = (RNG.uniform(0.1, 1.0, size=w.shape) for w in treated.get_weights())
    treated.set_weights([kernel, bias])
    x = np.ones((400, 5), "float32")
    assert float(np.min(treated(x, training=True))) > 0
    hidden = np.maximum(x @ kernel + bias, 0)
    assert float(sum(treated.losses)) == pytest.approx(
        0.1 * hidden.sum() / 400 + 0.5 * (kernel**2).sum(), rel=1e-4
    )
    np.testing.assert_allclose(treated(x), np.maximum(hidden @ kernel + bias, 0), rtol=1e-4)


def test_a_head_called_twice_has_nothing_after_either_call():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    body, head = L.Dense(6, "relu", name="body"), L.Dense(1, "relu", name="head")
    model = keras.Model([a, b], [head(body(a)), head(body(b))])
    treated = kregs.regularize(model, DROP)
    assert names_of(treated) == ["body", "body_activity", "body_dropout", "head"]
    for output in treated.outputs:
        assert output._keras_history.operation.name == "head"


def test_layers_called_by_keyword_are_treated_too():
    inputs = keras.Input((5,), name="in")
    hidden = L.BatchNormalization(name="scale")(inputs=inputs)
    model = keras.Model(inputs, L.Dense(2, name="head")(inputs=hidden))
    treated = kregs.regularize(model, DROP)
    assert names_of(treated) == ["scale", "head_dropout", "head"]
    x = RNG.normal(size=(4, 5)).astype("float32")
    np.testing.assert_allclose(treated(x), model(x), rtol=1e-6)


def test_a_shared_model_is_an_output_where_any_call_is():
    inside = keras.Sequential([keras.Input((4,)), L.Dense(4, "relu", name="inner")], name="inside")
    inputs = keras.Input((4,))
    treated = kregs.regularize(keras.Model(inputs, inside(inside(inputs))), DROP)
    assert "inner_activity" not in names_of(treated)
    x = RNG.normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(treated(x), inside(inside(x)), rtol=1e-5)


@pytest.mark.parametrize("kind", [L.AlphaDropout, L.GaussianDropout, L.Dropout])
@pytest.mark.parametrize(
    "between", [(), (L.BatchNormalization,), (L.Flatten, L.LayerNormalization)]
)
def test_dropout_is_never_doubled(kind, between):
    layers = [L.Dense(8, "selu", name="hidden"), *[make() for make in between], kind(0.1)]
    model = keras.Sequential([keras.Input((6,)), *layers, L.Dense(2, name="head")])
    names = [layer.name for layer in model.layers]
    treated = kregs.regularize(model, Regularization(dropout=0.4))
    assert names_of(treated) == names
    assert [rate for name, rate in rates_of(treated).items()] == [0.4]


def test_spatial_dropout_is_never_doubled():
    built = kregs.convnet(
        (16, 16, 1),
        3,
        filters=(4, 4),
        block_size=3,
        regularization=Regularization(spatial_dropout=0.1),
    )
    pooled = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            L.Conv2D(4, 3, activation="relu"),
            L.MaxPooling2D(),
            L.SpatialDropout2D(0.1),
            L.Conv2D(4, 3),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    for model in (built, pooled):
        treated = kregs.regularize(model, Regularization(spatial_dropout=0.3))
        assert names_of(treated) == names_of(model)
        assert set(rates_of(treated).values()) == {0.3}


def test_dropout_is_not_doubled_across_models_inside():
    encoder = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, "relu", name="inner"), L.Dropout(0.1, name="old")],
        name="encoder",
    )
    inputs = keras.Input((6,))
    top = keras.Sequential([keras.Input((5,)), L.Dense(3, name="out")], name="top")
    treated = kregs.regularize(
        keras.Model(inputs, top(encoder(inputs))), Regularization(dropout=0.4)
    )
    assert rates_of(treated) == {"old": 0.4}


def test_dropout_of_paths_stays():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(5, "relu", name="hidden"),
            L.Dropout(0.1, noise_shape=(None, 1), name="path"),
            L.Dense(2, name="head"),
        ]
    )
    assert rates_of(kregs.regularize(model, Regularization(dropout=0.4)))["path"] == 0.1


class Block(L.Layer):
    """Makes its layers itself, as users' blocks do."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense, self.drop = L.Dense(units, "relu", name="dense"), L.Dropout(0.1, name="drop")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.drop(self.dense(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Holder(L.Wrapper):
    """Holds the layer that it is given, and its config too."""

    def call(self, x):
        return self.layer(x)


def composite():
    inputs = keras.Input((6, 4), name="in")
    x = Block(4, name="block")(inputs)
    x = Holder(L.Dense(4, "relu", name="held"), name="holder")(x)
    x = L.TimeDistributed(
        keras.Sequential([keras.Input((4,)), L.Dense(4, name="step"), L.Dropout(0.1, name="rate")]),
        name="steps",
    )(x)
    x = L.RNN([L.LSTMCell(4, name="cell1"), L.GRUCell(3, dropout=0.2, name="cell2")], name="rnn",
              return_sequences=True)(x)  # fmt: skip
    x = L.MultiHeadAttention(2, 3, dropout=0.1, name="attention")(x, x)
    x = L.LayerNormalization(name="norm")(x)
    x = L.Bidirectional(L.GRU(3, name="gru"), name="both")(x)
    x = L.GaussianNoise(0.1, name="noise")(x)
    return keras.Model(inputs, L.Dense(2, name="head")(x))


R = Regularization(l2=0.01, bias_l1=0.02, dropout=0.4)


@pytest.fixture(scope="module")
def treated_composite():
    model = composite()
    with pytest.warns(UserWarning, match=r"left as they were: block/dense, block/drop\. They are"):
        return model, kregs.regularize(model, R)


def test_layers_within_layers_are_restrained(treated_composite):
    model, treated = treated_composite
    x = RNG.normal(size=(3, 6, 4)).astype("float32")
    np.testing.assert_allclose(treated(x), model(x), rtol=1e-5, atol=1e-6)
    penalized = [
        v for v in treated.trainable_variables if "kernel" in v.name and "block" not in v.path
    ]
    biases = [v for v in treated.trainable_variables if v.name == "bias" and "block" not in v.path]
    assert len(penalized) == 2 + 2 * 2 + 4 + 2 * 2 + 1
    expected = 0.01 * sum(float((v.numpy() ** 2).sum()) for v in penalized)
    expected += 0.02 * sum(float(np.abs(v.numpy()).sum()) for v in biases)
    assert float(sum(treated.losses)) == pytest.approx(expected, rel=1e-4)
    assert treated.get_layer("steps").layer.get_layer("rate").rate == 0.4
    assert treated.get_layer("block").drop.rate == 0.1


def test_the_summary_tells_of_every_layer(treated_composite):
    model, _ = treated_composite
    names = {layer.name for layer in model.layers[1:]}
    frame = kregs.regularization_summary(model, R).set_index("layer")
    assert {name.split("/")[0] for name in frame.index} == names
    assert ((frame["done"] != "") | (frame["left"] != "")).all()
    expected = {
        "block/dense": ("Dense", "", "made inside Block, whose get_config() does not hold it"),
        "block/drop": ("Dropout", "rate 0.1", "made inside Block"),
        "holder/held": ("Dense", "kernel l2=0.01, bias l1=0.02", ""),
        "rnn/cell2": (
            "GRUCell",
            "kernel l2=0.01, recurrent l2=0.01",
            "dropout=0.2 stays",
        ),
        "steps/rate": ("Dropout", "rate 0.1 -> 0.4", ""),
        "attention": ("MultiHeadAttention", "", ""),
        "attention/query": ("EinsumDense", "kernel l2=0.01, bias l1=0.02", ""),
        "norm": ("LayerNormalization", "", "a normalization has no penalty"),
        "both/forward_gru": ("GRU", "kernel l2=0.01, recurrent l2=0.01, bias l1=0.02", ""),
        "noise": ("GaussianNoise", "", "its noise stays"),
        "head": ("Dense", "dropout 0.4 before it", "ends the model: nothing comes after it"),
    }
    for name, (kind, done, left) in expected.items():
        assert frame.loc[name, "type"] == kind
        assert done in frame.loc[name, "done"], name
        assert left in frame.loc[name, "left"], name


def test_the_summary_is_true():
    """What it says of penalties and rates is what the layers have."""
    model = dense_functional()
    treated = kregs.regularize(model, ALL, layers=["second"])
    frame = kregs.regularization_summary(model, ALL, layers=["second"]).set_index("layer")
    assert frame.loc["second", "done"] == (
        "kernel l1=0.001 l2=0.01, bias l1=0.02 l2=0.001, max_norm=5, then activity l2=0.1"
    )
    assert frame.loc["old_dropout", "done"] == "rate 0.9 -> 0.4"
    for name in ("first", "normalization", "head"):
        assert frame.loc[name, "left"] == "not among `layers`"
        assert frame.loc[name, "done"] == ""
    assert treated.get_layer("second_activity").l2 == pytest.approx(0.1)
    gone = kregs.regularization_summary(model, Regularization()).set_index("layer")
    assert gone.loc["second", "done"] == "kernel penalty taken away"
    assert gone.loc["old_dropout", "done"] == "rate 0.9 -> 0"


def test_the_summary_is_printed_when_asked_for(capsys):
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(4, "relu", name="hidden[0]"), L.Dense(1, name="[bold]")],
        name="of[mine]",
    )
    kregs.regularize(model, R)
    assert capsys.readouterr().out == ""
    kregs.regularize(model, R, summary=True)
    printed = capsys.readouterr().out
    for text in ('Regularization of "of[mine]"', "hidden[0]", "[bold]", "then dropout 0.4"):
        assert text in printed
    with pytest.raises(TypeError, match="`summary` must be True or False"):
        kregs.regularize(model, R, summary="yes")


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


def test_a_summary_draws_nothing_from_the_random_state():
    model = kregs.mlp((4,), 3, units=(8,))
    random.seed(3)
    before = random.getstate()
    kregs.regularization_summary(model, kregs.Regularization(dropout=0.5))
    assert random.getstate() == before
