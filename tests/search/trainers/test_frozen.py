"""A frozen part that models begin with is computed once, and trials end where `fit` ends."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population.frozen import frozen_part
from kregs.search import PopulationTuner

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6, 6, 2)).astype("float32"), RNG.integers(0, 3, 40)


def backbone(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    model.trainable = False
    return model


def build(hp, base=None):
    inputs = keras.Input((6, 6, 2))
    x = (base or backbone())(layers.Rescaling(0.5)(inputs))
    l2 = keras.regularizers.L2(hp.Float("l2", 1e-3, 1e-1, sampling="log"))
    x = layers.Dense(5, "tanh", kernel_regularizer=l2)(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.05, 0.2)), loss, metrics=["accuracy"])
    return model


class Values(dict):
    def Float(self, name, low, high, **_):
        return self.get(name, low)


def test_trials_end_where_fit_ends_and_the_part_is_computed_once(tmp_path, monkeypatch):
    computed, predict = [], keras.Model.predict

    def counted(self, x, **options):
        computed.append(len(x))
        return predict(self, x, **options)

    def search(engine):
        tuner = PopulationTuner(
            build, "val_loss", 3, seed=1, engine=engine, directory=tmp_path / engine
        )
        data = {"validation_data": (X[30:], Y[30:]), "epochs": 2, "batch_size": 8, "verbose": 0}
        tuner.search(X[:30], Y[:30], **data)
        return tuner

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict", counted)
        stacked = search("population")
    assert computed == [30, 10]
    alone = search("sequential")
    for number in ("0", "1", "2"):
        ours, theirs = (t.oracle.trials[number].score for t in (stacked, alone))
        assert ours == pytest.approx(theirs, rel=1e-4)
    best, reference = stacked.get_best_models()[0], alone.get_best_models()[0]
    for one, other in zip(best.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert best.evaluate(X[30:], Y[30:], verbose=0)[0] == pytest.approx(
        stacked.oracle.get_best_trials()[0].score, rel=1e-5
    )


def test_parts_of_other_weights_or_other_layers_are_told_apart():
    one, same, other = (frozen_part(build(Values(), backbone(seed))).digest for seed in (1, 1, 2))
    assert one == same != other


def sequential(*frozen):
    model = keras.Sequential([keras.Input((3,)), *frozen, layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


class Own(layers.Layer):
    def call(self, x):
        return x + keras.random.normal((1, 3))


def still(layer):
    layer.trainable = False
    return layer


WHOLE = {
    "nothing frozen": lambda: sequential(layers.Dense(3)),
    "no weights": lambda: sequential(layers.Rescaling(2.0)),
    "noise": lambda: sequential(still(keras.Sequential([layers.Dense(3), layers.Dropout(0.5)]))),
    "after what trains": lambda: sequential(layers.Dense(3), still(layers.Dense(3))),
    "penalized activities": lambda: sequential(still(layers.Dense(3, activity_regularizer="l2"))),
    "one's own layer": lambda: sequential(still(keras.Sequential([layers.Dense(3), Own()]))),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_no_frozen_part(name):
    assert frozen_part(WHOLE[name]()) is None


def test_what_is_frozen_is_split_off():
    parts = frozen_part(sequential(still(layers.Dense(4)), layers.ReLU()))
    assert parts.head.input_shape == (None, 4)
    x = RNG.normal(size=(5, 3)).astype("float32")
    assert len(parts.trunk.weights) == len(parts.head.weights) == 2
    assert parts.head(parts.trunk(x)).shape == (5, 2)
