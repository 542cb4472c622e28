"""In what models differ when they cannot be stacked."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population import NotStackable, Population


def member(body):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, body(inputs))
    model.compile("sgd", "mse")
    return model


def shared(x):
    layer = layers.Dense(6)
    return layer(layer(x))


def apart(x):
    return layers.Dense(6)(layers.Dense(6)(x))


def test_shared_weights_are_a_difference_by_themselves():
    with pytest.raises(NotStackable, match=r"'dense.*' shares its weights with another"):
        Population.from_models([member(shared), member(apart)])
    assert len(Population.from_models([member(shared), member(shared)])) == 2


class Named(keras.Model):
    """A model of inputs and outputs, of a class of one's own."""

    def describe(self):
        return f"{self.count_params()} weights"


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class OwnWeight(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = self.add_weight(shape=(), initializer="ones")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(1)

    def call(self, x):
        return self.head(x)


def of_class(kind):
    inputs = keras.Input((6,))
    model = kind(inputs, layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_a_functional_model_of_a_class_of_ones_own_is_stacked():
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
    models = [of_class(Named), of_class(keras.Model)]
    models[1].set_weights(models[0].get_weights())
    population = Population.from_models([models[0]])
    history = population.fit(x, x[:, 0], batch_size=5, epochs=2, shuffle=False)
    expected = models[1].fit(x, x[:, 0], batch_size=5, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history[0]["loss"], expected["loss"], rtol=1e-5)
    assert population[0].describe() == "7 weights"


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), "float32"))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: of_class(OwnStep), "OwnStep, which has a `train_step` of its own"),
        (lambda: of_class(OwnWeight), "OwnWeight, which has weights that none of its layers has"),
        (subclassed, "Subclassed; only Sequential and Functional .* A layer with the same `call`"),
    ],
)
def test_what_a_class_of_ones_own_computes_otherwise_is_said(build, reason):
    with pytest.raises(NotStackable, match=reason):
        Population.from_models([build()])
