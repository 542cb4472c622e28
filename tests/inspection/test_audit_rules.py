"""Every rule of the audit: a model that has the fault, and a near miss that has not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs.inspection.audit import RULES

L = keras.layers
R = keras.regularizers
O = keras.optimizers  # noqa: E741
C = keras.callbacks


def stack(*layers, shape=(8,)):
    """A Sequential of these layers behind an input."""
    return keras.Sequential([keras.Input(shape), *layers], name="m")


def images(*layers, shape=(8, 8, 3)):
    return stack(*layers, shape=shape)


def hidden(units=8, **options):
    return L.Dense(units, activation="relu", kernel_initializer="he_normal", **options)


def compiled(model, optimizer):
    model.compile(optimizer, "mse")
    return model


def deep(initializer, activation, *, between=(), count=8):
    """A deep stack of narrow layers; `between` are classes of layers before each activation."""
    layers = []
    for _ in range(count):
        layers.append(L.Dense(16, kernel_initializer=initializer))
        layers += [kind() for kind in between]
        layers.append(L.Activation(activation))
    return stack(*layers, L.Dense(1), shape=(16,))


def shared_initializer():
    initializer = keras.initializers.HeNormal()  # not seeded, and the same all the same
    return stack(*(L.Dense(8, "relu", kernel_initializer=initializer) for _ in range(2)))


def same_seed(first, second):
    return stack(
        L.Dense(8, "relu", kernel_initializer=keras.initializers.HeNormal(seed=first)),
        L.Dense(8, "relu", kernel_initializer=keras.initializers.HeNormal(seed=second)),
        L.Dense(1),
    )


def zero_branch(*, is_summed):
    """A kernel of zeros in a chain, or at the end of a residual branch, where it is in order."""
    inputs = keras.Input((8,))
    x = hidden()(inputs)
    zeros = L.Dense(8, kernel_initializer="zeros", name="zeros")(x)
    x = L.Add()([x, zeros]) if is_summed else L.ReLU()(zeros)
    return keras.Model(inputs, L.Dense(1)(x))


def residual_dropout():
    """Dropout whose output is summed before the batch normalization."""
    inputs = keras.Input((8,))
    x = hidden()(inputs)
    return keras.Model(inputs, L.Dense(1)(L.BatchNormalization()(L.Add()([x, L.Dropout(0.3)(x)]))))


def small_base(*layers):
    return keras.Sequential([keras.Input((8,)), hidden(), *layers], name="base")


def on_base(base, *, trainable=True, **keywords):
    base.trainable = trainable
    inputs = keras.Input((8,))
    return keras.Model(inputs, L.Dense(1)(base(inputs, **keywords)))


def bias_twice(*, norms):
    """One dense layer called twice, of which one or both calls are batch-normalized."""
    dense = L.Dense(4, name="shared")
    first, second = keras.Input((8,)), keras.Input((8,))
    a = L.BatchNormalization()(dense(first))
    b = L.BatchNormalization()(dense(second)) if norms == 2 else dense(second)
    return keras.Model([first, second], L.Dense(1)(L.Concatenate()([a, b])))


def norm_axis(axis):
    return images(L.Conv2D(4, 3, data_format="channels_last"), L.BatchNormalization(axis=axis))


def mixed(layer_dtype):
    return stack(
        hidden(4, dtype="mixed_float16"),
        L.ActivityRegularization(l2=1e-3, dtype=layer_dtype, name="penalty"),
        L.Dense(1, dtype="float32"),
    )


def excluded():
    optimizer = O.AdamW(1e-3)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return compiled(stack(hidden(), L.BatchNormalization(), L.Dense(1)), optimizer)


def self_normalizing(initializer, dropout):
    return stack(
        L.Dense(64, "selu", kernel_initializer=initializer, name="a"),
        dropout,
        L.Dense(1),
        shape=(64,),
    )


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(33, 8)).astype("float32"), RNG.normal(size=(33, 1)).astype("float32")
DATA = {"x": X, "y": Y}


def l2(value):
    return stack(hidden(kernel_regularizer=R.L2(value)), L.Dense(1))


# code, severity, layers of the finding; the model with the fault; the near miss; as functions that
# return the model or (model, arguments of the audit)
CASES = {
    "glorot_relu_deep": (
        "KR001", "warning", 8,
        lambda: deep("glorot_uniform", "relu"), lambda: deep("he_uniform", "relu"),
    ),
    "glorot_relu_shallow": (
        "KR001", "info", 1,
        lambda: stack(L.Dense(16, "relu"), L.Dense(1), shape=(16,)),
        lambda: stack(L.Dense(16, "tanh"), L.Dense(1), shape=(16,)),
    ),
    "glorot_relu_normalized": (
        "KR001", "warning", 8,
        lambda: deep("glorot_uniform", "relu"),
        lambda: deep("glorot_uniform", "relu", between=[L.BatchNormalization]),
    ),
    "he_tanh": (
        "KR001", "warning", 5,
        lambda: deep("he_normal", "tanh", count=5), lambda: deep("glorot_normal", "tanh", count=5),
    ),
    "too_wide_normal": (
        "KR001", "warning", 1,
        lambda: stack(
            L.Dense(64, "relu", kernel_initializer=keras.initializers.RandomNormal(stddev=1.0)),
            L.Dense(1), shape=(64,)),
        # Keras's default deviation of 0.05 is right for 800 inputs
        lambda: stack(L.Dense(64, "relu", kernel_initializer="random_normal"), L.Dense(1),
                      shape=(800,)),
    ),
    "selu": (
        "KR001", "warning", ["a"],
        lambda: self_normalizing("he_normal", L.AlphaDropout(0.1)),
        lambda: self_normalizing("lecun_normal", L.AlphaDropout(0.1)),
    ),
    "one_initializer": ("KR002", "warning", 2, shared_initializer, lambda: same_seed(1, 2)),
    "one_seed": ("KR002", "warning", 2, lambda: same_seed(3, 3), lambda: same_seed(None, None)),
    "zeros": (
        "KR003", "error", ["zeros"],
        lambda: zero_branch(is_summed=False), lambda: zero_branch(is_summed=True),
    ),
    "zeros_output": (
        "KR003", "error", 1,
        lambda: stack(L.Dense(4, "relu", kernel_initializer="ones"), L.Dense(1)),
        lambda: stack(hidden(), L.Dense(4, kernel_initializer="zeros")),
    ),
    "variance_shift": (
        "KR004", "warning", ["d"],
        lambda: stack(hidden(), L.Dropout(0.3, name="d"), L.BatchNormalization(), L.Dense(1)),
        lambda: stack(hidden(), L.BatchNormalization(), L.Dropout(0.3, name="d"), L.Dense(1)),
    ),
    "variance_shift_layer_norm": (
        "KR004", "warning", ["d"],
        lambda: stack(hidden(), L.Dropout(0.3, name="d"), L.ReLU(), L.BatchNormalization()),
        lambda: stack(hidden(), L.Dropout(0.3, name="d"), L.ReLU(), L.LayerNormalization()),
    ),
    "variance_shift_weights": (
        "KR004", "info", ["d"],
        lambda: stack(hidden(), L.Dropout(0.3, name="d"), L.Dense(4), L.BatchNormalization()),
        residual_dropout,
    ),
    "pixels": (
        "KR005", "warning", ["d"],
        lambda: images(L.Conv2D(4, 3), L.Dropout(0.3, name="d"), L.Conv2D(4, 3), L.Flatten()),
        lambda: images(L.Conv2D(4, 3), L.SpatialDropout2D(0.3), L.Conv2D(4, 3), L.Flatten()),
    ),
    "pixels_flat": (
        "KR005", "warning", ["d"],
        lambda: images(L.Conv2D(4, 3), L.Dropout(0.3, name="d"), L.MaxPooling2D(), L.Flatten()),
        lambda: images(L.Conv2D(4, 3), L.MaxPooling2D(), L.Dropout(0.3, name="d"), L.Flatten()),
    ),
    "pixels_sequence": (
        "KR005", "warning", ["d"],
        lambda: stack(L.Conv1D(4, 3), L.Dropout(0.3, name="d"), L.LSTM(2), shape=(9, 3)),
        lambda: stack(L.Conv1D(4, 1), L.Dropout(0.3, name="d"), L.LSTM(2), shape=(9, 3)),
    ),
    "keep_probability": (
        "KR006", "warning", ["d"],
        lambda: stack(hidden(), L.Dropout(0.8, name="d"), L.Dense(1)),
        lambda: stack(hidden(), L.Dropout(0.7, name="d"), L.Dense(1)),
    ),
    "input_rate": (
        "KR006", "warning", ["d"],
        lambda: stack(L.Dropout(0.6, name="d"), hidden(), L.Dense(1)),
        lambda: stack(L.Dropout(0.5, name="d"), hidden(), L.Dense(1)),
    ),
    "zero_rate": (
        "KR006", "info", ["d"],
        lambda: stack(hidden(), L.Dropout(0.0, name="d"), L.Dense(1)),
        lambda: stack(hidden(), L.Dropout(0.01, noise_shape=(None, 1), name="d"), L.Dense(1)),
    ),
    "recurrent_rate": (
        "KR006", "warning", ["r/forward_lstm"],
        lambda: stack(L.Bidirectional(L.LSTM(2, dropout=0.8, name="lstm"),
                                      backward_layer=L.LSTM(2, go_backwards=True, name="back"),
                                      name="r"), shape=(5, 2)),
        lambda: stack(L.Bidirectional(L.LSTM(2, dropout=0.3), name="r"), shape=(5, 2)),
    ),
    "output_dropout": (
        "KR007", "error", ["d"],
        lambda: stack(hidden(), L.Dense(3), L.Dropout(0.3, name="d"), L.Softmax()),
        lambda: stack(hidden(), L.Dropout(0.3, name="d"), L.Dense(3), L.Softmax()),
    ),
    "output_dropout_features": (
        "KR007", "error", ["d"],
        lambda: stack(hidden(), L.Dense(3, "sigmoid"), L.Dropout(0.3, name="d")),
        lambda: stack(hidden(), L.Dropout(0.3, name="d")),  # the end of an encoder
    ),
    "training_false": (
        "KR008", "warning", ["base"],
        lambda: on_base(small_base(L.BatchNormalization()), training=False),
        lambda: on_base(small_base(L.BatchNormalization()), trainable=False, training=False),
    ),
    "training_false_dropout": (
        "KR008", "info", ["base"],
        lambda: on_base(small_base(L.Dropout(0.3)), trainable=False, training=False),
        lambda: on_base(small_base(L.Dropout(0.3)), trainable=False),
    ),
    "selu_dropout": (
        "KR009", "warning", ["d"],
        lambda: self_normalizing("lecun_normal", L.Dropout(0.1, name="d")),
        lambda: self_normalizing("lecun_normal", L.AlphaDropout(0.1, name="d")),
    ),
    "alpha_dropout": (
        "KR009", "warning", ["d"],
        lambda: stack(hidden(), L.AlphaDropout(0.1, name="d"), L.Dense(1)),
        lambda: stack(hidden(), L.Dropout(0.1, name="d"), L.Dense(1)),
    ),
    "bias": (
        "KR010", "info", ["shared"], lambda: bias_twice(norms=2), lambda: bias_twice(norms=1),
    ),
    "bias_axis": ("KR010", "info", 1, lambda: norm_axis(-1), lambda: norm_axis(1)),
    "bias_layer_norm": (
        "KR010", "info", ["a"],
        lambda: stack(L.Dense(4, name="a"), L.BatchNormalization(), L.ReLU()),
        lambda: stack(L.Dense(4, name="a"), L.LayerNormalization(), L.ReLU()),
    ),
    "l2_norm": (
        "KR011", "info", ["a"],
        lambda: stack(L.Dense(4, kernel_regularizer="l2", name="a"), L.BatchNormalization()),
        lambda: stack(L.Dense(4, "relu", kernel_regularizer="l2"), L.BatchNormalization()),
    ),
    "l2_layer_norm": (
        "KR011", "info", ["a"],
        lambda: stack(L.Dense(4, use_bias=False, kernel_regularizer="l2", name="a"),
                      L.LayerNormalization()),
        lambda: stack(L.Dense(4, kernel_regularizer="l2", name="a"), L.LayerNormalization()),
    ),
    "batch_of_4": (
        "KR012", "warning", ["n"],
        lambda: (stack(hidden(), L.BatchNormalization(name="n")), {"batch_size": 4}),
        lambda: (stack(hidden(), L.LayerNormalization(name="n")), {"batch_size": 4}),
    ),
    "batch_of_8": (
        "KR012", "info", ["n"],
        lambda: (stack(hidden(), L.BatchNormalization(name="n")), {"batch_size": 8}),
        lambda: (stack(hidden(), L.BatchNormalization(name="n")), {"batch_size": 16}),
    ),
    "last_batch": (
        "KR012", "warning", ["n"],
        lambda: (stack(hidden(), L.BatchNormalization(name="n")), {"x": X}),  # 33 = 32 + 1
        lambda: (stack(hidden(), L.BatchNormalization(name="n")), {"x": X[:32]}),
    ),
    "sigmoids": (
        "KR013", "warning", 3,
        lambda: deep("glorot_uniform", "sigmoid", count=3),
        lambda: deep("glorot_uniform", "sigmoid", count=3, between=[L.LayerNormalization]),
    ),
    "tanhs": (
        "KR013", "warning", 6,
        lambda: deep("glorot_uniform", "tanh", count=6),
        lambda: deep("glorot_uniform", "tanh", count=5),
    ),
    "output_activity": (
        "KR014", "warning", ["o"],
        lambda: stack(hidden(), L.Dense(3, activity_regularizer="l1", name="o"), L.Softmax()),
        lambda: stack(hidden(activity_regularizer="l1"), L.Dense(3, name="o"), L.Softmax()),
    ),
    "half_activity": (
        "KR015", "error", ["penalty"], lambda: mixed("mixed_float16"), lambda: mixed("float32"),
    ),
    "half_weights": (
        "KR015", "error", ["a"],
        lambda: stack(hidden(kernel_regularizer="l2", dtype="bfloat16", name="a"), L.Dense(1)),
        lambda: stack(hidden(kernel_regularizer="l2", dtype="mixed_bfloat16"), L.Dense(1)),
    ),
    "heavy": (
        "KR016", "warning", 0,
        lambda: (compiled(l2(1.0), "sgd"), DATA), lambda: (compiled(l2(1e-4), "sgd"), DATA),
    ),
    "heavy_loss": (
        "KR016", "warning", 0,
        lambda: (l2(1.0), {"loss": "mae", **DATA}), lambda: (l2(1e-4), {"loss": "mae", **DATA}),
    ),
    "l1l2": (
        "KR017", "info", ["a"],
        lambda: stack(hidden(kernel_regularizer="l1l2", name="a"), L.Dense(1)),
        lambda: stack(hidden(kernel_regularizer="l2", name="a"), L.Dense(1)),
    ),
    "max_norm": (
        "KR018", "warning", ["a"],
        lambda: images(L.Conv2D(4, 3, kernel_constraint="max_norm", name="a"), L.Flatten()),
        lambda: images(
            L.Conv2D(4, 3, kernel_constraint=keras.constraints.MaxNorm(2, axis=[-4, 1, 2]))),
    ),
    "max_norm_dense": (
        "KR018", "warning", ["a"],
        lambda: stack(
            L.Dense(4, kernel_constraint=keras.constraints.MaxNorm(2, axis=1), name="a")),
        lambda: stack(L.Dense(4, kernel_constraint=keras.constraints.MaxNorm(2), name="a")),
    ),
    "bias_penalty": (
        "KR019", "info", ["n"],
        lambda: stack(hidden(), L.BatchNormalization(gamma_regularizer="l2", name="n")),
        lambda: stack(hidden(kernel_regularizer="l2"), L.BatchNormalization(name="n")),
    ),
    "double_decay": (
        "KR020", "warning", 1,
        lambda: compiled(l2(1e-4), O.AdamW()), lambda: compiled(l2(1e-4), O.SGD()),
    ),
    "adam_l2": (
        "KR021", "info", 1,
        lambda: (l2(1e-4), {"optimizer": "adam"}), lambda: (l2(1e-4), {"optimizer": "sgd"}),
    ),
    "adam_l2_scaled": (
        "KR021", "info", 1,
        lambda: compiled(l2(1e-4), O.LossScaleOptimizer(O.Adam())),
        lambda: compiled(l2(0.0), O.LossScaleOptimizer(O.Adam())),
    ),
    "bias_decay": (
        "KR022", "info", 3,
        lambda: compiled(stack(hidden(), L.BatchNormalization(), L.Dense(1)), O.AdamW()), excluded,
    ),
    "l1": (
        "KR023", "info", ["a"],
        lambda: stack(hidden(kernel_regularizer=R.L1L2(l1=0.1), name="a"), L.Dense(1)),
        lambda: stack(hidden(kernel_regularizer=R.L1L2(l2=0.1), name="a"), L.Dense(1)),
    ),
    "val_loss": (
        "KR024", "warning", 0,
        lambda: (l2(0.1), {"callbacks": [C.EarlyStopping(restore_best_weights=True)]}),
        lambda: (l2(0.0), {"callbacks": [C.EarlyStopping(restore_best_weights=True)]}),
    ),
    "val_loss_checkpoint": (
        "KR024", "warning", 0,
        lambda: (l2(0.1), {"callbacks": [C.ModelCheckpoint("m.keras", save_best_only=True)]}),
        lambda: (l2(0.1), {"callbacks": [C.ModelCheckpoint("m.keras")]}),
    ),
    "last_weights": (
        "KR025", "warning", 0,
        lambda: (stack(L.Dense(1)), {"callbacks": [C.EarlyStopping()]}),
        lambda: (stack(L.Dense(1)), {"callbacks": [kregs.early_stopping()]}),
    ),
    "last_weights_saved": (
        "KR025", "warning", 0,
        lambda: (stack(L.Dense(1)), {"callbacks": [C.EarlyStopping(), C.TerminateOnNaN()]}),
        lambda: (stack(L.Dense(1)), {
            "callbacks": [C.EarlyStopping(), C.ModelCheckpoint("m.keras", save_best_only=True)]}),
    ),
    "training_loss": (
        "KR026", "warning", 0,
        lambda: (stack(L.Dense(1)), {"callbacks": [C.EarlyStopping("loss")]}),
        lambda: (stack(L.Dense(1)), {"callbacks": [C.EarlyStopping("val_loss")]}),
    ),
}  # fmt: skip


def found(made, code):
    model, arguments = made if isinstance(made, tuple) else (made, {})
    return [f for f in kregs.audit(model, **arguments).findings if f.code == code]


@pytest.mark.parametrize("name", CASES)
def test_rule_finds_the_fault_and_not_the_near_miss(name):
    code, severity, layers, faulty, near_miss = CASES[name]
    (finding,) = found(faulty(), code)
    assert finding.severity == severity
    if isinstance(layers, list):
        assert list(finding.layers) == layers
    else:
        assert len(finding.layers) == layers
    assert found(near_miss(), code) == []


def test_every_rule_has_a_case():
    assert {code for code, *_ in CASES.values()} == {rule.code for rule in RULES}
    codes = [rule.code for rule in RULES]
    assert codes == [f"KR{number:03d}" for number in range(1, len(codes) + 1)]
    seen = {(code, severity) for code, severity, *_ in CASES.values()}
    assert seen == {(rule.code, severity) for rule in RULES for severity in rule.severities}
    assert all(rule.why and rule.source and rule.fix for rule in RULES)
