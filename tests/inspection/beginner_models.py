"""Fifteen models as beginners write them, each with faults that were planted, and which these are.

Each function returns a model and the arguments of the audit; `PLANTED` holds the (code, layer) of
every finding that there must be, and there must be no other.
"""

from __future__ import annotations

import keras
import numpy as np

L = keras.layers
R = keras.regularizers
C = keras.callbacks


def digits_dropout_last():
    """Dropout was put after the softmax."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            L.Dense(64, activation="relu", kernel_initializer="he_normal", name="hidden"),
            L.Dense(10, activation="softmax"),
            L.Dropout(0.2, name="last"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, {}


def keep_probability():
    """0.8 was meant as the share that is kept."""
    model = keras.Sequential([keras.Input((300,))])
    model.add(L.Dense(64, activation="relu", name="hidden"))
    model.add(L.Dropout(0.8, name="dropout"))
    model.add(L.Dense(1))
    model.compile("rmsprop", "mse")
    return model, {}


def conv_dropout_batch_norm():
    """A convnet with everything in each block, in the wrong order."""
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu", kernel_initializer="he_normal")(inputs)
    x = L.Dropout(0.25, name="dropout")(x)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(16, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x)), {"optimizer": "sgd"}


def l2_and_adamw():
    """Weight decay twice."""
    model = keras.Sequential(
        [
            keras.Input((20,)),
            L.Dense(
                32,
                activation="relu",
                kernel_initializer="he_uniform",
                kernel_regularizer=R.L2(1e-4),
                name="hidden",
            ),
            L.Dense(1, name="output"),
        ]
    )
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.01), "mse")
    return model, {}


def sparse_by_l1():
    """L1 is to select features, early stopping watches the loss that contains it."""
    model = keras.Sequential(
        [keras.Input((30,)), L.Dense(1, kernel_regularizer=R.L1(0.01), name="linear")]
    )
    model.compile("adam", "mse")
    return model, {"callbacks": [C.EarlyStopping(monitor="val_loss", patience=5)]}


def heavy_l2():
    """λ was chosen by feeling."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 20)).astype("float32")
    y = rng.integers(0, 3, 100)
    model = keras.Sequential([keras.Input((20,))])
    for number in (1, 2):
        model.add(
            L.Dense(
                128,
                activation="relu",
                kernel_initializer="he_normal",
                kernel_regularizer="l2",
                name=f"hidden{number}",
            )
        )
    model.add(L.Dense(3, activation="softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, {"x": x, "y": y, "batch_size": 20}


def one_initializer_for_all():
    """`init` was made once, at the top of the script."""
    init = keras.initializers.GlorotUniform(seed=42)
    inputs = keras.Input((16,))
    left = L.Dense(16, activation="tanh", kernel_initializer=init, name="left")(inputs)
    right = L.Dense(16, activation="tanh", kernel_initializer=init, name="right")(inputs)
    joined = L.Concatenate()([left, right])
    return keras.Model(inputs, L.Dense(1, kernel_initializer=init)(joined)), {}


def zeros():
    """Weights were to start at zero, as in a linear regression."""
    model = keras.Sequential(
        [
            keras.Input((10,)),
            L.Dense(16, activation="relu", kernel_initializer="zeros", name="hidden"),
            L.Dense(1, kernel_initializer="zeros"),
        ]
    )
    model.compile("sgd", "mse")
    return model, {}


def deep_sigmoid():
    """More layers were to help."""
    model = keras.Sequential([keras.Input((12,), name="in")])
    for number in range(6):
        model.add(L.Dense(12, activation="sigmoid", name=f"hidden{number}"))
    model.add(L.Dense(1, activation="sigmoid"))
    model.compile("sgd", "binary_crossentropy")
    return model, {}


def selu_as_relu():
    """SELU replaced ReLU, and nothing else was changed."""
    model = keras.Sequential([keras.Input((40,))])
    model.add(L.Dense(40, activation="selu", kernel_initializer="he_normal", name="hidden"))
    model.add(L.Dropout(0.5, name="dropout"))
    model.add(L.Dense(1))
    model.compile("sgd", "mse")
    return model, {}


def frozen_base():
    """Transfer: `trainable = False` was forgotten, `training=False` was not."""
    base = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.Conv2D(8, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
        ],
        name="base",
    )
    inputs = keras.Input((16, 16, 3))
    x = base(inputs, training=False)
    x = L.Dropout(0.2)(x)
    return keras.Model(inputs, L.Dense(1, activation="sigmoid")(x)), {"optimizer": "sgd"}


def tiny_batches():
    """The images were too large for more than 2 in a batch."""
    inputs = keras.Input((32, 32, 1))
    x = L.Conv2D(4, 3, use_bias=True, name="conv")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Activation("relu")(x)
    x = L.Flatten()(x)
    model = keras.Model(inputs, L.Dense(2, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model, {"batch_size": 2}


def mixed_precision():
    """A sparse autoencoder, computed in float16."""
    inputs = keras.Input((32,))
    code = L.Dense(
        8,
        activation="relu",
        kernel_initializer="he_normal",
        activity_regularizer=R.L1(1e-4),
        dtype="mixed_float16",
        name="code",
    )(inputs)
    decoded = L.Dense(32, activity_regularizer=R.L1(1e-4), dtype="float32", name="decoded")(code)
    return keras.Model(inputs, decoded), {"optimizer": "adam"}


def copied_constraints():
    """Max-norm of a dense layer, on a convolution; and a penalty by a name that means 0."""
    model = keras.Sequential([keras.Input((12, 12, 3))])
    norm = keras.constraints.MaxNorm(3)
    model.add(
        L.Conv2D(8, 3, activation="relu", kernel_initializer="he_normal", kernel_constraint=norm,
                 name="conv")
    )  # fmt: skip
    model.add(L.Flatten())
    model.add(L.Dense(10, activation="softmax", kernel_regularizer="l1l2", name="output"))
    model.compile("adam", "categorical_crossentropy")
    return model, {"callbacks": [C.ModelCheckpoint("m.keras", "accuracy", save_best_only=True)]}


class Classifier(keras.Model):
    """Written as in other frameworks: layers in `__init__`, their order in `call`."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [
                keras.Input((16,)),
                L.Dense(16, activation="relu", kernel_initializer="he_normal"),
                L.Dropout(0.9, name="dropout"),
                L.BatchNormalization(),
            ],
            name="encoder",
        )
        self.head = L.Dense(1, kernel_regularizer=R.L1(0.1), name="head")

    def call(self, inputs, training=None):
        return self.head(self.encoder(inputs, training=training))


def subclassed():
    """A rate that was guessed, before batch normalization, in a subclassed model."""
    model = Classifier()
    model(np.zeros((1, 16), "float32"))
    model.compile("sgd", "mse")
    return model, {}


HIDDEN = ("hidden1", "hidden2")
PLANTED = {
    digits_dropout_last: {("KR007", "last")},
    keep_probability: {("KR006", "dropout")},
    conv_dropout_batch_norm: {("KR004", "dropout"), ("KR005", "dropout")},
    l2_and_adamw: {("KR020", "hidden"), ("KR022", "hidden"), ("KR022", "output")},
    sparse_by_l1: {("KR023", "linear"), ("KR024", ""), ("KR025", "")},
    heavy_l2: {("KR016", "")},
    one_initializer_for_all: {("KR002", "left"), ("KR002", "right")},
    zeros: {("KR003", "hidden")},
    deep_sigmoid: {("KR013", f"hidden{number}") for number in range(6)},
    selu_as_relu: {("KR001", "hidden"), ("KR009", "dropout")},
    frozen_base: {("KR008", "base")},
    tiny_batches: {("KR010", "conv"), ("KR012", "norm")},
    mixed_precision: {("KR014", "decoded"), ("KR015", "code")},
    copied_constraints: {("KR017", "output"), ("KR018", "conv"), ("KR026", "")},
    subclassed: {("KR004", "encoder/dropout"), ("KR006", "encoder/dropout"), ("KR023", "head")},
}
