"""The audit as a whole: beginners' models, our builders and recipes, the result, the repair."""

from __future__ import annotations

import dataclasses
import json
import runpy
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization, catalog
from kregs.inspection.audit import RULES

L = keras.layers
C = keras.callbacks
PLANTED = runpy.run_path(str(Path(__file__).with_name("beginner_models.py")))["PLANTED"]
RNG = np.random.default_rng(0)


def places(audit):
    return {(f.code, layer) for f in audit.findings for layer in (f.layers or [""])}


@pytest.mark.parametrize("make", PLANTED, ids=lambda make: make.__name__)
def test_the_planted_faults_are_found_and_nothing_else(make):
    model, arguments = make()
    audit = kregs.audit(model, **arguments)
    assert places(audit) == PLANTED[make]
    assert json.loads(json.dumps(audit.to_dict()))["passed"] is audit.passed
    assert len(audit.to_frame()) == len(audit.findings)


def test_there_are_fifteen_and_all_grave_rules_occur():
    assert len(PLANTED) == 15
    planted = {code for faults in PLANTED.values() for code, _ in faults}
    grave = {rule.code for rule in RULES if rule.severities != ("info",)}
    assert grave <= planted


BUILDERS = {
    "mlp": partial(kregs.mlp, (16,), 3, units=(16, 16, 16, 16, 16, 16)),
    "mlp_gelu": partial(kregs.mlp, (16,), 3, units=(16, 16, 16), activation="gelu"),
    "convnet": partial(kregs.convnet, (8, 8, 1), 3, filters=(4, 4), dense_units=(8,)),
    "resnet": partial(kregs.resnet, (8, 8, 1), 3, filters=(4, 8), blocks_per_stage=1),
    "resnet_pre": partial(
        kregs.resnet, (8, 8, 1), 3, filters=(4, 8), blocks_per_stage=1, pre_activation=True
    ),
    "text_cnn": partial(kregs.text_cnn, 20, 2, sequence_length=7, embedding_units=4, filters=4),
    "recurrent": partial(
        kregs.recurrent, 20, 2, sequence_length=7, embedding_units=4, units=(4,), bidirectional=True
    ),
    "linear": partial(kregs.linear, (8,), 3),
    "autoencoder": partial(kregs.autoencoder, (8,), units=(6, 2), tied=True),
    "table_mlp": partial(
        kregs.table_mlp, 8, 3, categories=(3,), units=(8, 8), embedding="piecewise", scaling=True,
        skip_connections=True,
    ),
    "table_mlp_ensemble": partial(
        kregs.table_mlp, 8, 3, units=(8, 8), embedding="periodic", ensemble=2, head_activation=None,
    ),
}  # fmt: skip
VALUES = {
    "none": Regularization(),
    "penalties": Regularization(
        l1=1e-4, l2=1e-3, bias_l1=1e-5, bias_l2=1e-4, max_norm=3.0, activity_l1=1e-5
    ),
    "noise": Regularization(
        dropout=0.5, input_dropout=0.2, spatial_dropout=0.3, gaussian_noise=0.1, drop_path=0.3
    ),
    "all": Regularization(l2=1e-3, dropout=0.5, spatial_dropout=0.3, normalization="batch"),
}


def value_for(name, value):
    """Without the fields that the builder has no meaning for."""
    fields = value.get_config()
    while True:
        try:
            return BUILDERS[name](regularization=Regularization(**fields))
        except ValueError as error:
            field = str(error).split("`regularization.")[1].split("`")[0]
            fields[field] = Regularization().get_config()[field]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_grave_in_what_builders_make(name, value):
    model = value_for(name, VALUES[value])
    kregs.compile_model(model, "mse", optimizer="adamw" if value != "penalties" else "adam")
    audit = kregs.audit(
        model if value != "all" else kregs.compile_model(model, "mse"),
        callbacks=kregs.default_callbacks(),
        batch_size=32,
    )
    assert audit.passed, str(audit)
    assert audit.unseen == ()
    assert "KR022" not in audit.to_frame()["code"].tolist()  # compile_model leaves biases out


@pytest.mark.parametrize("name", [entry.name for entry in catalog.recipes()])
def test_nothing_grave_in_recipes(name):
    recipe = catalog.load(name)
    audit = kregs.audit(recipe.make_model(seed=0), batch_size=getattr(recipe, "BATCH_SIZE", None))
    assert audit.passed, str(audit)


def test_ignored_rules_are_left_out():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2), L.Dropout(0.9, name="d")])
    assert places(kregs.audit(model)) == {("KR006", "d"), ("KR007", "d")}
    assert places(kregs.audit(model, ignore=["KR007"])) == {("KR006", "d")}


def test_trained_weights_are_not_blamed_for_their_initializer():
    model = keras.Sequential([keras.Input((16,)), L.Dense(16, "relu"), L.Dense(1)])
    assert "KR001" in {f.code for f in kregs.audit(model).findings}
    model.layers[0].kernel.assign(model.layers[0].kernel * 3)
    assert "KR001" not in {f.code for f in kregs.audit(model).findings}


def test_equal_and_zeroed_kernels_that_were_set_are_left_alone():
    """KR002, KR003: weights that no initializer drew are not drawn anew."""
    a, b, zeroed = (L.Dense(4, "tanh", name=name) for name in ("a", "b", "zeroed"))
    inputs = keras.Input((6,))
    sides = L.Concatenate()([a(inputs), b(inputs)])
    model = keras.Model(inputs, L.Dense(1)(zeroed(sides)))
    a.kernel.assign(a.kernel + 0.01)
    b.set_weights(a.get_weights())
    zeroed.kernel.assign(zeroed.kernel * 0)
    audit = kregs.audit(model)
    assert places(audit) == set()
    x = RNG.normal(size=(3, 6)).astype("float32")
    np.testing.assert_array_equal(audit.repair().model(x), model(x))


def test_an_ensemble_of_a_trained_model_twice_has_nothing():
    members = [kregs.mlp((6,), 3, units=(8,), seed=seed) for seed in (0, 1)]
    for name in ("dense_1", "head"):
        kernel = members[0].get_layer(name).kernel
        kernel.assign(kernel * 1.001)
    audit = kregs.audit(kregs.ensemble([members[0], *members]))
    assert "KR002" not in {finding.code for finding in audit.findings}


def test_what_cannot_be_seen_is_said():
    class Own(L.Layer):
        def __init__(self):
            super().__init__(name="own")
            self.dense = L.Dense(2, kernel_regularizer="l1", name="inner")

        def call(self, inputs):
            return self.dense(inputs)

    inputs = keras.Input((3,))
    audit = kregs.audit(keras.Model(inputs, Own()(inputs)))
    assert places(audit) == {("KR023", "own/inner")}
    assert "own is a Own" in audit.unseen[0]
    assert "no optimizer" in audit.unseen[1]
    model, arguments = next(f for f in PLANTED if f.__name__ == "subclassed")()
    (words,) = kregs.audit(model, **arguments).unseen
    assert "order" in words
    with pytest.raises(ValueError, match="subclassed"):
        kregs.audit(model).repair()


def test_an_unbuilt_sequential_is_built_as_a_copy():
    model = keras.Sequential([L.Dense(4), L.Dropout(0.3, name="d"), L.BatchNormalization()])
    with pytest.raises(ValueError, match="put a keras"):
        kregs.audit(model)
    assert ("KR004", "d") in places(kregs.audit(model, x=RNG.normal(size=(5, 3))))
    assert not model.built


def test_overview_tells_layer_by_layer():
    inputs = keras.Input((5, 3))
    x = L.Bidirectional(L.GRU(2, dropout=0.2, recurrent_regularizer="l2", name="g"), name="b")(
        inputs
    )
    x = L.BatchNormalization(name="n")(L.Dense(4, kernel_constraint="max_norm", name="d")(x))
    model = keras.Model(inputs, L.Dense(1, activity_regularizer="l1", name="o")(x))
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    table = kregs.audit(model, optimizer=optimizer).overview().set_index("layer")
    assert table.loc["b/forward_g", "penalized"] == "recurrent l2=0.01"
    assert table.loc["b/forward_g", "dropped"] == "dropout 0.2"
    assert table.loc["b/forward_g", "decayed"] == "kernel, recurrent_kernel"
    assert table.loc["d", ["decayed", "normalized", "bounded"]].tolist() == [
        "kernel", "by n", "kernel MaxNorm 2",
    ]  # fmt: skip
    assert table.loc["n", ["decayed", "normalized"]].tolist() == ["", "normalizes"]
    assert table.loc["o", "penalized"] == "activity l1=0.01"
    assert table["parameters"].sum() == sum(np.prod(w.shape) for w in model.trainable_weights)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"ignore": ["KR01"]}, ValueError, "Did you mean 'KR0"),
        ({"ignore": "KR001"}, TypeError, "ignore"),
        ({"optimizer": 3}, TypeError, "`optimizer`"),
        ({"callbacks": [3]}, TypeError, "`callbacks`"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"y": np.zeros(3)}, ValueError, "`x`"),
        ({"x": np.zeros((3, 4)), "y": np.zeros(2)}, ValueError, "x has 3, y has 2"),
        ({"x": 3}, TypeError, "`x` must hold arrays"),
        ({"x": np.zeros((3, 5))}, ValueError, "`x`.*of the model's input"),
        ({"x": np.array([["a"] * 4])}, TypeError, "`x`.*dtype"),
        ({"x": np.full((3, 4), np.nan)}, ValueError, "`x` must be finite"),
        ({"x": np.zeros((3, 4)), "y": np.array(["a"] * 3)}, TypeError, "`y`.*text"),
        ({"x": np.zeros((3, 4)), "y": np.zeros((3, 2)), "loss": "mse"}, ValueError, "`y`.*shape"),
        ({"loss": "nonsense"}, ValueError, "`loss`"),
        ({"loss": 5}, TypeError, "`loss`"),
    ],
)
def test_bad_input(arguments, error, words):
    model = keras.Sequential([keras.Input((4,)), L.Dense(1)])
    with pytest.raises(error, match=words):
        kregs.audit(model, **arguments)
    with pytest.raises(TypeError, match="`model`"):
        kregs.audit("model.keras")


@pytest.mark.parametrize("penalty", [None, "l2"])
def test_a_layer_that_is_an_output_too_is_not_taken_for_normalized(penalty):
    """KR010, KR011: what one sees without the normalization keeps its bias and its size."""
    inputs = keras.Input((6,))
    h = L.Dense(4, bias_initializer="ones", kernel_regularizer=penalty, name="h")(inputs)
    normalized = L.ReLU()(L.BatchNormalization()(h))
    model = keras.Model(inputs, [h, L.Dense(2)(normalized)])
    audit = kregs.audit(model)
    assert places(audit) == set()
    x = RNG.normal(size=(3, 6)).astype("float32")
    np.testing.assert_array_equal(audit.repair().model(x)[0], model(x)[0])


def test_one_input_in_a_list():
    x = RNG.normal(size=(5, 3))
    audit = kregs.audit(keras.Sequential([L.Dense(1, name="d")]), x=[x])
    assert audit.overview()["layer"].tolist() == ["d"]


def test_the_penalty_is_compared_at_the_start_only_and_with_a_loss_above_0():
    """KR016."""
    x = RNG.normal(size=(64, 8)).astype("float32")
    y = x[:, :1]
    layer = L.Dense(8, "relu", kernel_initializer="he_normal", kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((8,)), layer, L.Dense(1)])
    data = {"x": x, "y": y, "ignore": ["KR021"]}
    model.compile("adam", lambda y_true, y_pred: keras.ops.mean(y_pred * 0) + 1e-6)
    assert places(kregs.audit(model, **data)) == {("KR016", "")}
    assert places(kregs.audit(model, **data, loss="cosine_similarity")) == set()
    model.optimizer.iterations.assign(3)
    assert places(kregs.audit(model, **data)) == set()
    model.optimizer.iterations.assign(0)
    for dense in model.layers:
        dense.kernel.assign(dense.kernel * 2)
    assert places(kregs.audit(model, **data)) == set()


def test_a_stateful_model_with_a_fixed_batch_is_left_as_it_was():
    inputs = keras.Input(batch_shape=(8, 5, 6))
    penalty = keras.regularizers.L2(1.0)
    lstm = L.LSTM(4, stateful=True, kernel_regularizer=penalty, name="lstm")
    model = keras.Model(inputs, L.Dense(1)(lstm(inputs)))
    model.compile("sgd", "mse")
    x, y = RNG.normal(size=(40, 5, 6)), np.zeros((40, 1))
    assert ("KR016", "") in places(kregs.audit(model, x=x, y=y))
    assert not any(np.any(state) for state in lstm.states)
    assert ("KR016", "") not in places(kregs.audit(model, x=x[:5], y=y[:5]))  # no whole batch


# ---- repair --------------------------------------------------------------------------------


def repaired(make):
    model, arguments = make()
    audit = kregs.audit(model, **arguments)
    repair = audit.repair(seed=0)
    again = kregs.audit(
        repair.model, **{"optimizer": getattr(model, "optimizer", None), **arguments}
    )
    return model, audit, repair, again


NOT_ANEW = [
    make for make in PLANTED
    if make.__name__ not in ("subclassed", "zeros", "selu_as_relu", "one_initializer_for_all")
]  # fmt: skip


@pytest.mark.parametrize("make", NOT_ANEW, ids=lambda make: make.__name__)
def test_repair_keeps_the_predictions_and_mends_what_it_says(make):
    model, audit, repair, again = repaired(make)
    x = RNG.normal(size=(4, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(repair.model(x), model(x), atol=1e-5)
    done = {(f.code, layer) for f in repair.done for layer in f.layers}
    left = {(f.code, layer) for f in repair.left for layer in (f.layers or [""])}
    assert done | left == places(audit)
    assert not done & left
    # of an uncompiled copy the loss at the start is not known
    assert places(again) == {place for place in left if place[0] != "KR016"}


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("zeros", {"KR003"}),
        ("one_initializer_for_all", {"KR002"}),
        ("selu_as_relu", {"KR001", "KR009"}),
        ("digits_dropout_last", {"KR007"}),
        ("conv_dropout_batch_norm", {"KR004", "KR005"}),
        ("tiny_batches", {"KR010"}),
        ("mixed_precision", {"KR014", "KR015"}),
        ("copied_constraints", {"KR017", "KR018"}),
        ("l2_and_adamw", set()),
    ],
)
def test_repair_mends_each_of_these(name, done):
    make = next(make for make in PLANTED if make.__name__ == name)
    _, _, repair, again = repaired(make)
    assert {f.code for f in repair.done} == done
    assert not done & {f.code for f in again.findings}
    assert f"{len(repair.done)} repaired" in str(repair)


def test_repair_puts_dropout_behind_the_normalization_and_the_bias_into_it():
    inputs = keras.Input((6,))
    x = L.Dense(5, name="a")(inputs)
    x = L.BatchNormalization(name="n1")(x)
    x = L.Dropout(0.3, name="d")(L.ReLU()(x))
    x = L.BatchNormalization(name="n2")(L.Activation("tanh")(x))
    inner = keras.Model(inputs, x, name="inner")
    outer = keras.Input((6,))
    model = keras.Model(outer, L.Dense(1, name="head")(inner(outer)))
    for weight in model.weights:
        if "seed" not in weight.name:
            weight.assign(RNG.uniform(0.5, 1.5, size=weight.shape))
    repair = kregs.audit(model).repair()
    assert {f.code for f in repair.done} == {"KR004", "KR010"}
    layers = repair.model.get_layer("inner").layers
    assert [layer.name for layer in layers].index("d") > [x.name for x in layers].index("n2")
    assert not repair.model.get_layer("inner").get_layer("a").use_bias
    x = RNG.normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(repair.model(x), model(x), atol=1e-6)


def test_repair_leaves_a_dropout_that_it_cannot_move():
    inputs = keras.Input((6,))
    x = L.Dropout(0.3, name="d")(L.Dense(5, name="a")(inputs))
    x = L.Add()([L.BatchNormalization()(x), x])  # what is dropped goes two ways
    repair = kregs.audit(keras.Model(inputs, L.Dense(1)(x))).repair()
    assert [f.code for f in repair.left] == ["KR004"]
    assert repair.done == ()


@pytest.mark.parametrize("between", [[L.GlobalAveragePooling2D], [L.MaxPooling2D, L.Flatten]])
def test_a_dropout_that_moves_behind_other_shapes(between):
    conv = L.Conv2D(4, 3, activation="relu", kernel_initializer="he_normal")
    layers = [conv, L.Dropout(0.3, name="d"), *(kind() for kind in between)]
    stack = [keras.Input((8, 8, 3)), *layers, L.BatchNormalization(), L.Dense(3)]
    model = keras.Sequential(stack)
    repair = kregs.audit(model).repair()
    assert {f.code for f in repair.done} == {"KR004", "KR005"}
    assert repair.left == ()
    assert type(repair.model.layers[-2]) is L.Dropout
    x = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(repair.model(x), model(x), atol=1e-6)


def test_repair_takes_a_shared_dropout_out_only_where_it_is_wrong():
    inputs = keras.Input((6,))
    dropout = L.Dropout(0.3, name="d")
    h = dropout(L.Dense(5, "relu", kernel_initializer="he_normal", name="a")(inputs))
    repair = kregs.audit(keras.Model(inputs, dropout(L.Dense(3, name="b")(h)))).repair()
    assert {f.code for f in repair.done} == {"KR007"}
    names = [layer.name for layer in repair.model.layers]
    assert names.index("a") < names.index("d") < names.index("b")


def test_repair_tells_what_the_copy_still_has():
    inputs = keras.Input((6,))
    dropout = L.Dropout(0.0, name="zero")  # on an input that goes two ways, where it stays
    h = dropout(L.Dense(6, "relu", kernel_initializer="he_normal")(inputs))
    h = L.Add()([h, dropout(inputs), inputs])
    repair = kregs.audit(keras.Model(inputs, L.Dense(3)(h))).repair()
    assert repair.done == ()
    assert places(kregs.audit(repair.model)) == {("KR006", "zero")}
    assert [f.code for f in repair.left] == ["KR006"]

    convolutions = [L.Conv2D(4, 3, kernel_initializer="he_normal", use_bias=False) for _ in "ab"]
    layers = [convolutions[0], L.ReLU(), L.Dropout(0.3, name="d"), L.BatchNormalization()]
    layers += [convolutions[1], L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(3)]
    repair = kregs.audit(keras.Sequential([keras.Input((8, 8, 3)), *layers])).repair()
    assert {(f.code, f.severity) for f in repair.done} == {
        ("KR004", "warning"),
        ("KR005", "warning"),
    }
    assert {(f.code, f.severity) for f in repair.left} == {("KR004", "info")}


# ---- what the rules claim, in numbers --------------------------------------------------------


def test_fit_overrides_training_false_and_predict_training_true():
    """KR008, against Keras itself."""
    inputs = keras.Input((4,))
    base = keras.Sequential([keras.Input((4,)), L.BatchNormalization(name="n")])
    model = keras.Model(inputs, base(inputs, training=False))
    before = base.get_layer("n").moving_mean.numpy()
    x = np.ones((8, 4), "float32") * 5
    model(x, training=True)
    assert np.abs(base.get_layer("n").moving_mean.numpy() - before).min() > 0.01
    always = keras.Model(inputs, L.Dropout(0.5, name="d")(inputs, training=True))
    assert np.ptp(np.asarray(always(x, training=False))) == 0
    assert places(kregs.audit(always)) == {("KR008", "d")}


def test_l2_and_bias_under_batch_norm_do_not_change_the_function():
    """KR010 and KR011: kernel and bias times any number, the same output of a training batch."""
    dense, norm = L.Dense(4, use_bias=True), L.BatchNormalization(epsilon=1e-9)
    x = RNG.normal(size=(32, 6)).astype("float32")
    first = norm(dense(x), training=True)
    dense.kernel.assign(dense.kernel * 0.1)
    dense.bias.assign([1.0, -2.0, 3.0, 0.5])
    np.testing.assert_allclose(norm(dense(x), training=True), first, atol=1e-3)


def test_dropout_shifts_the_variance_that_batch_norm_learns():
    """KR004: Li et al.'s ratio of variances: E[x²]/(1-p) - E[x]² in training, over Var[x]."""
    x = np.abs(RNG.normal(1.0, 1.0, size=(20000, 1))).astype("float32")
    rate = 0.5
    norm = L.BatchNormalization(momentum=0.0)
    norm(L.Dropout(rate, seed=0)(x, training=True), training=True)
    expected = (x**2).mean() / (1 - rate) - x.mean() ** 2
    assert float(norm.moving_variance[0]) == pytest.approx(expected, rel=0.05)
    assert expected > 2 * x.var()


def test_signal_through_glorot_and_he():
    """KR001: the drift that is told is the drift that there is."""
    layers = [L.Dense(256, "relu", kernel_initializer="glorot_normal") for _ in range(8)]
    model = keras.Sequential([keras.Input((256,)), *layers, L.Dense(1)])
    (finding,) = kregs.audit(model).findings
    told = float(finding.what.split("multiplied by ")[1].split(" ")[0])
    x = RNG.normal(size=(200, 256)).astype("float32")
    features = keras.Model(model.inputs[0], model.layers[-2].output)(x)
    assert float(np.square(features).mean()) == pytest.approx(told, rel=0.5)
    assert told < 0.01


def test_activity_penalty_overflows_in_float16():
    """KR015."""
    options = {"activity_regularizer": "l2", "kernel_initializer": "ones"}
    x = np.ones((64, 64), "float32")
    half, full = L.Dense(64, dtype="mixed_float16", **options), L.Dense(64, **options)
    half(x), full(x)
    assert np.isinf(float(half.losses[0]))
    assert np.isfinite(float(full.losses[0]))


def test_rates_and_severities_are_dataclasses_a_person_can_read():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2), L.Dropout(0.9, name="d")], name="m")
    audit = kregs.audit(model)
    assert repr(audit) == "<Audit of 'm': 1 error, 1 warning, 0 info>"
    assert str(audit).startswith('Audit of "m": 1 error, 1 warning\n\nKR007 error: d: Dropout acts')
    assert "not seen: no optimizer" in str(audit)
    with pytest.raises(dataclasses.FrozenInstanceError):
        audit.findings[0].code = "KR000"
