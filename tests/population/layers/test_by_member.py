"""Layers without a stacked form, called once a member: each member ends where `fit` ends."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kregs.population import Context, NotStackable, Population
from kregs.population.layout import Layout
from kregs.population.signature import read_member
from kregs.population.stacked_model import StackedModel

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(26, 4, 4)), RNG.normal(size=(26, 2))  # the last of 10 a step is short


class Block(layers.Layer):
    """Layers in a list, a weight and an added loss of its own, moving statistics, dropout."""

    def __init__(self, rate=0.0, activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(3, activation, kernel_regularizer="l2"), layers.Dense(3)]
        self.parts.append(layers.BatchNormalization())
        self.drop = layers.Dropout(rate)

    def build(self, shape):
        for part in self.parts:
            part.build(shape)
            shape = part.compute_output_shape(shape)
        self.scale = self.add_weight(shape=(3,), initializer="ones")

    def call(self, x):
        for part in self.parts:
            x = part(x)
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return self.drop(x) * self.scale


class Centred(layers.Layer):
    def call(self, x):  # the batch as a whole
        return x - ops.mean(x, axis=0)


class Phased(layers.Layer):
    """Another computation in training, told by an argument with Keras's own examples' default."""

    def call(self, x, training=False):
        return 1.5 * x if training else x


class PhasedInside(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Phased()

    def call(self, x, training=None):
        return self.inner(x, training=training) + self.inner(x)


def attention(n):
    inputs = keras.Input((4, 4))
    attended = layers.MultiHeadAttention(2, 3, kernel_regularizer=keras.regularizers.L2(n))(
        inputs, inputs, use_causal_mask=True
    )
    return inputs, layers.LayerNormalization()(ops.tanh(attended) + inputs)


def own_block(n):
    inputs = keras.Input((4, 4))
    return inputs, Block(activity_regularizer=keras.regularizers.L2(n))(inputs)


def centred(n):
    inputs = keras.Input((4, 4))
    x = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(n))(inputs)
    return inputs, Centred()(x)


def transposed(n):
    inputs = keras.Input((4, 4))
    x = layers.Reshape((4, 2, 2))(inputs)
    return inputs, layers.Conv2DTranspose(2, 2, kernel_regularizer=keras.regularizers.L2(n))(x)


def phased(n):
    inputs = keras.Input((4, 4))
    x = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(n))(inputs)
    # what is passed in a Functional, `fit` and `evaluate` override
    return inputs, Phased()(Phased()(PhasedInside()(x)), training=True)


BODIES = {
    "phased": phased,
    "attention": attention,
    "own block": own_block,
    "batch": centred,
    "transposed": transposed,
}


def build(body, n, rate=0.02):
    inputs, x = body(n)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


@pytest.mark.parametrize("name", BODIES)
def test_members_end_where_keras_ends(double, name):
    models = [build(BODIES[name], n) for n in (0.03, 0.0)]
    starts = [model.get_weights() for model in models]
    fit = {"batch_size": 10, "epochs": 2, "shuffle": False}
    population = Population.from_models(models)
    histories = population.fit(X, Y, validation_data=(X[:7], Y[:7]), **fit)
    ends = [model.get_weights() for model in population.unstack()]
    for n, start, end, history in zip((0.03, 0.0), starts, ends, histories, strict=True):
        alone = build(BODIES[name], n)
        alone.set_weights(start)
        expected = alone.fit(X, Y, validation_data=(X[:7], Y[:7]), verbose=0, **fit)
        for ours, theirs in zip(end, alone.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
        for metric, values in expected.history.items():
            np.testing.assert_allclose(history[metric], values, rtol=1e-6)
        if n == 0.03 and name != "attention":
            assert any(abs(a - b).max() > 1e-3 for a, b in zip(end, ends[1], strict=True))


def test_a_layer_is_shown_the_rows_that_a_member_has(double):
    models = [build(centred, n) for n in (0.3, 0.0)]
    stacked = StackedModel(Layout([read_member(model) for model in models]), 2)
    for position, variable in enumerate(stacked.weights):
        values = [read_member(model).weights[position].numpy() for model in models]
        variable.assign(np.stack(values))
    rows = tf.constant([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    x = np.stack([X[:4], X[4:8]])
    (predictions,) = stacked.forward(tf.constant(x), Context(False, None, rows))
    np.testing.assert_allclose(predictions[0, :3], models[0](x[0, :3]), rtol=1e-9)
    np.testing.assert_allclose(predictions[1, :2], models[1](x[1, :2]), rtol=1e-9)


def test_noise_is_of_the_members_seed():
    def dropping(n):
        inputs = keras.Input((4, 4))
        return inputs, Block(rate=0.5)(inputs)

    keras.utils.set_random_seed(3)
    model = build(dropping, 0.0)
    start = model.get_weights()

    def end_of(seeds, k):
        models = [build(dropping, 0.0) for _ in seeds]
        for each in models:
            each.set_weights(start)
        population = Population.from_models(models, seeds=seeds)
        population.fit(X, Y, batch_size=26, epochs=1, shuffle=False)
        return population.unstack()[k].get_weights()[0]

    first, second = end_of([7, 4], 1), end_of([4], 0)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)
    assert abs(end_of([7, 4], 0) - second).max() > 1e-5


class Noisy(layers.Layer):
    def call(self, x, training=False):  # from Keras's global generator
        return x + keras.random.normal(ops.shape(x), dtype=x.dtype) if training else x


def test_noise_of_the_global_generator_is_of_the_members_seed(double):
    def noisy(n):
        inputs = keras.Input((4, 4))
        return inputs, Noisy()(Noisy()(inputs))

    models = [build(noisy, 0.0) for _ in range(4)]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    alone = Population.from_models([models.pop()], seeds=[4])
    population = Population.from_models(models, seeds=[7, 4, 7])
    population.fit(X, Y, batch_size=26, epochs=2, shuffle=False)
    first, second, third = (model.get_weights()[0] for model in population.unstack())
    np.testing.assert_array_equal(first, third)
    assert abs(first - second).max() > 1e-5
    np.testing.assert_allclose(population.predict(X)[0], population[0].predict(X, verbose=0))
    alone.fit(X, Y, batch_size=26, epochs=2, shuffle=False)
    np.testing.assert_allclose(alone[0].get_weights()[0], second, rtol=1e-9)


def test_what_layers_inside_compute_is_structure():
    def member(**settings):
        return read_member(build(lambda n: own(**settings), 0.0)).signature

    def own(**settings):
        inputs = keras.Input((4, 4))
        return inputs, Block(**settings)(inputs)

    assert member(rate=0.3) == member(rate=0.3)
    assert member(rate=0.3) != member(rate=0.4)
    assert member(activation="relu") != member(activation="tanh")


def test_a_layer_that_changes_its_trained_weights_is_not_stacked(double):
    """As SpectralNormalization, which divides its kernel in each call of the training."""
    inputs = keras.Input((4, 4))
    normalized = layers.SpectralNormalization(layers.Dense(3))(inputs)
    population = Population.from_models([build(lambda n: (inputs, normalized), 0.0)])
    with pytest.raises(NotStackable, match="changes its own trained weights"):
        population.fit(X, Y, batch_size=26)


class Counting(layers.Layer):
    def build(self, shape):
        self.seen = keras.Variable(0.0, trainable=False)

    def call(self, x):
        GLOBAL[0].assign_add(1.0)
        return x


GLOBAL = []


def test_what_changes_other_variables_is_an_error():
    GLOBAL[:] = [keras.Variable(0.0, trainable=False)]
    inputs = keras.Input((4, 4))
    population = Population.from_models([build(lambda n: (inputs, Counting()(inputs)), 0.0)])
    with pytest.raises(NotStackable, match="none of its weights"):
        population.fit(X, Y, batch_size=26)
