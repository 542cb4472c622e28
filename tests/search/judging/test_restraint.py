"""What restrains a built model, and which of two is restrained more."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs.search.judging.model_restraints import kernel_summary, model_restraints
from kregs.search.judging.restraint import (
    check_restraint,
    check_restraint_is_searched,
    compare_restraints,
    declared_order,
)


def mlp(units=(4, 4), weight_decay=None, label_smoothing=0.0, loss=None, **fields):
    regularization = kregs.Regularization(**fields)
    model = kregs.mlp((3,), 2, units=units, regularization=regularization)
    return kregs.compile_model(
        model,
        loss or keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        weight_decay=weight_decay,
    )


MORE = [
    ({"l2": 0.01}, {"l2": 0.02}),
    ({"bias_l1": 0.01}, {"bias_l1": 0.02}),
    ({"activity_l2": 0.0}, {"activity_l2": 0.1}),
    ({"max_norm": 3.0}, {"max_norm": 2.0}),
    ({"max_norm": None}, {"max_norm": 9.0}),
    ({"dropout": 0.0}, {"dropout": 0.1}),
    ({"input_dropout": 0.1}, {"input_dropout": 0.2}),
    ({"gaussian_noise": 0.0}, {"gaussian_noise": 0.3}),
    ({"weight_decay": 0.001}, {"weight_decay": 0.01}),
    ({"label_smoothing": 0.0}, {"label_smoothing": 0.1}),
    ({"units": (8, 4)}, {"units": (4, 4)}),
    ({"units": (4, 4, 4)}, {"units": (4, 4)}),
    ({"units": (8,), "l2": 0.1, "dropout": 0.3}, {"units": (4,), "l2": 0.1, "dropout": 0.3}),
]


@pytest.fixture(scope="module")
def restraints():
    cache = {}

    def of(**changes):
        key = repr(changes)
        if key not in cache:
            cache[key] = model_restraints(mlp(**changes))
        return cache[key]

    return of


@pytest.mark.parametrize(("less", "more"), MORE, ids=str)
def test_more_of_one_number_restrains_more(restraints, less, more):
    assert compare_restraints(restraints(**more), restraints(**less)) == 1
    assert compare_restraints(restraints(**less), restraints(**more)) == -1
    assert compare_restraints(restraints(**less), restraints(**less)) == 0


def test_places_are_those_of_the_structure(restraints):
    """Dropout at the input does not stand for dropout after a layer."""
    assert compare_restraints(restraints(input_dropout=0.2), restraints(dropout=0.1)) is None
    assert compare_restraints(restraints(l2=0.1), restraints(dropout=0.1)) is None
    both = restraints(l2=0.1, dropout=0.1)
    assert compare_restraints(both, restraints(dropout=0.1)) == 1
    # a larger network with the larger penalty is neither
    assert (
        compare_restraints(restraints(units=(8,), l2=0.2), restraints(units=(4,), l2=0.1)) is None
    )
    assert compare_restraints(both, None) is None


def test_names_say_nothing():
    """Poolings and dilations end like regularizers; a penalty may be called anything."""

    def build(pool2, dilation_rate, strong):
        layers = [
            keras.Input((12, 1)),
            keras.layers.Conv1D(2, 2, dilation_rate=dilation_rate),
            keras.layers.MaxPooling1D(pool2),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L1L2(l2=strong)),
        ]
        model = keras.Sequential(layers)
        return kregs.compile_model(model, "mse")

    first = model_restraints(build(3, 2, 0.1))
    assert first["numbers"] == {"l2": {"weight 2": 0.1}}
    assert compare_restraints(first, model_restraints(build(2, 1, 0.1))) == 0
    assert compare_restraints(first, model_restraints(build(2, 1, 0.01))) == 1


class Own(keras.Model):
    """A model that hides its layers, with one within another."""

    def __init__(self, rate, l1):
        super().__init__()
        self.inner = keras.Sequential(
            [keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L1(l1))]
        )
        self.block = keras.layers.TimeDistributed(keras.layers.Dense(2))
        self.drop = keras.layers.SpatialDropout1D(rate)
        self.recurrent = keras.layers.GRU(2, dropout=rate / 2)

    def call(self, x, training=None):
        return self.recurrent(self.drop(self.block(self.inner(x)), training=training))


def test_a_model_of_any_kind_is_read():
    def build(rate, l1):
        model = Own(rate, l1)
        model.compile("adam", "mse")
        model(np.zeros((1, 5, 4), "float32"))
        return model

    read = model_restraints(build(0.4, 0.1))
    assert read["structure"] is None
    assert list(read["numbers"]["l1"].values()) == pytest.approx([0.1])
    assert sorted(read["numbers"]["dropout"].values()) == pytest.approx([0.2, 0.4])
    assert read["weights"] == 4 * 3 + 3 * 2 + (2 + 2) * 6
    assert compare_restraints(read, model_restraints(build(0.2, 0.1))) == 1
    assert compare_restraints(read, model_restraints(build(0.2, 0.3))) is None


def test_kernels_are_measured():
    model = mlp(units=(2,))
    weights = [np.zeros(v.shape, "float32") for v in model.weights]
    weights[0][0, 0], weights[0][1, 1], weights[1][:] = 3.0, -4.0, 7.0  # biases do not count
    assert kernel_summary(model, weights) == {"norm": 5.0, "nonzero": 2 / 10}
    empty = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    assert kernel_summary(empty, [v.numpy() for v in empty.weights]) is None


def test_a_declared_order():
    values = {"norm": "none", "bound": "2.0", "on": True}
    assert declared_order(values, ["on", "-bound", "-norm", "l2"]) == (1.0, -2.0, -np.inf, 0.0)
    assert declared_order({"-x": 2.0}, ["-x"]) == (2.0,)  # a name that begins with the sign


@pytest.mark.parametrize(
    ("restraint", "error", "words"),
    [
        ("l2", TypeError, "must be a list of hyperparameters' names"),
        ([], TypeError, "at least one name"),
        (["l2", 3], TypeError, "at least one name"),
    ],
)
def test_bad_names(restraint, error, words):
    with pytest.raises(error, match=words):
        check_restraint(restraint)


def test_names_are_searched():
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    hp.Float("l2", 0.0, 1.0)
    hp.Choice("bound", ["none", "2.0"])
    hp.Choice("kind", ["batch", "none"])
    space = hp.get_config()["space"]
    check_restraint_is_searched(["l2", "-bound"], space)
    check_restraint_is_searched(None, space)
    with pytest.raises(ValueError, match=r"l2, bound, kind\. Received: '-dropout'"):
        check_restraint_is_searched(["-dropout"], space)
    with pytest.raises(ValueError, match=r"Did you mean 'bound'"):
        check_restraint_is_searched(["bounds"], space)
    with pytest.raises(ValueError, match=r"Received: 'kind', which is one of \['batch', 'none'\]"):
        check_restraint_is_searched(["kind"], space)
