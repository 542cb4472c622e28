"""Copies keep the whole state of every stock layer, and of layers and functions made in `build`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import kregs
from kregs import Regularization
from kregs.builders.layer_copies import copy_model

L = keras.layers
RNG = np.random.default_rng(3)
NUMBERS = RNG.normal(5.0, 3.0, size=(40, 3)).astype("float32")
WORDS = np.array([["red"], ["blue"], ["green"], ["red"], ["other"]])
TEXTS = np.array([["a cat sat"], ["the dog sat"], ["a dog ran far"], ["cat"]])
INTEGERS = np.array([[7], [7], [-3], [12], [99]])


def behind(layer, x, *, dtype="float32"):
    """A model of one layer and a network behind it."""
    inputs = keras.Input(x.shape[1:], dtype=dtype)
    hidden = L.Flatten()(layer(inputs))
    hidden = keras.ops.cast(hidden, "float32")
    return keras.Model(inputs, L.Dense(2, name="head")(L.Dense(4, "tanh", name="hidden")(hidden)))


def adapted(layer, data):
    layer.adapt(data)
    return layer


def normalization():
    return behind(adapted(L.Normalization(), NUMBERS), NUMBERS), NUMBERS


def normalization_of_given_numbers():
    return behind(L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]), NUMBERS), NUMBERS


def inverted_normalization():
    return behind(adapted(L.Normalization(invert=True), NUMBERS), NUMBERS), NUMBERS


def normalization_in_a_sequential():
    layer = adapted(L.Normalization(), NUMBERS)
    return keras.Sequential([keras.Input((3,)), layer, L.Dense(2, "relu"), L.Dense(1)]), NUMBERS


def discretization():
    return behind(adapted(L.Discretization(num_bins=4), NUMBERS), NUMBERS), NUMBERS


def hashing():
    layer = L.Hashing(7, salt=[3, 4], output_mode="one_hot")
    return behind(layer, WORDS, dtype="string"), WORDS


def string_lookup():
    return behind(adapted(L.StringLookup(), WORDS), WORDS, dtype="string"), WORDS


def string_lookup_one_hot():
    layer = adapted(L.StringLookup(output_mode="one_hot", num_oov_indices=2), WORDS[:4])
    return behind(layer, WORDS, dtype="string"), WORDS


def string_lookup_tf_idf():
    layer = adapted(L.StringLookup(output_mode="tf_idf"), WORDS[:4])
    return behind(layer, WORDS, dtype="string"), WORDS


def string_lookup_of_given_words():
    layer = L.StringLookup(vocabulary=["blue", "red"])
    return behind(layer, WORDS, dtype="string"), WORDS


def integer_lookup():
    layer = adapted(L.IntegerLookup(output_mode="multi_hot"), INTEGERS[:4])
    return behind(layer, INTEGERS, dtype="int64"), INTEGERS


def text_vectorization():
    layer = adapted(L.TextVectorization(output_sequence_length=5), TEXTS[:3])
    return behind(layer, TEXTS, dtype="string"), TEXTS


def text_vectorization_tf_idf():
    layer = adapted(L.TextVectorization(output_mode="tf_idf", ngrams=2), TEXTS[:3])
    return behind(layer, TEXTS, dtype="string"), TEXTS


def text_vectorization_of_a_function():
    length = 5

    def lower_and_cut(text):
        return tf.strings.substr(tf.strings.lower(text), 0, length)

    layer = L.TextVectorization(
        standardize=lower_and_cut,
        split=lambda text: tf.strings.split(text, "a"),
        output_sequence_length=3,
    )
    return behind(adapted(layer, TEXTS), TEXTS, dtype="string"), TEXTS


def category_encoding():
    layer = L.CategoryEncoding(num_tokens=100, output_mode="multi_hot")
    x = np.abs(INTEGERS)
    return behind(layer, x, dtype="int64"), x


def batch_normalization():
    model = behind(L.BatchNormalization(momentum=0.5), NUMBERS)
    model.compile("sgd", "mse")
    model.run_eagerly = True
    model.fit(NUMBERS, np.zeros((len(NUMBERS), 2)), epochs=2, verbose=0)
    return model, NUMBERS


def spectral_normalization():
    model = behind(L.SpectralNormalization(L.Dense(5)), NUMBERS)
    model(NUMBERS, training=True)  # updates the vector that the norm is estimated by
    return model, NUMBERS


class Doubling(L.Layer):
    """Keeps a statistic that is no weight, and writes it as Keras asks layers to."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.offset = 0.0

    def call(self, x):
        return self.factor * x + self.offset

    def compute_output_shape(self, shape):
        return shape

    def save_own_variables(self, store):
        store["offset"] = np.float32(self.offset)

    def load_own_variables(self, store):
        self.offset = float(store["offset"])

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def custom_state():
    layer = Doubling(3.0)
    layer.offset = 0.75
    return behind(layer, NUMBERS), NUMBERS


def custom_state_within_a_wrapper():
    layer = Doubling(3.0)
    layer.offset = 0.75
    x = NUMBERS[:, :, None]
    return behind(L.TimeDistributed(layer), x), x


def made_in_build():
    """A class and functions that nobody could import."""

    class Scaled(L.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

        def call(self, x):
            return x * self.scale

    def bent(x):
        return keras.ops.maximum(x, 0.1 * x)

    shift = 0.5
    inputs = keras.Input((3,))
    x = L.Lambda(lambda x: x - shift + np.float32(NUMBERS.mean()))(inputs)
    x = Scaled(name="scaled")(x)
    x = L.Dense(4, activation=bent)(x)
    steps = L.TimeDistributed(L.Dense(4, activation=lambda x: x / (shift + abs(x))))
    x = L.Flatten()(steps(L.Reshape((2, 2))(x)))
    return keras.Model(inputs, L.Dense(2)(x)), NUMBERS


MODELS = [
    normalization,
    normalization_of_given_numbers,
    inverted_normalization,
    normalization_in_a_sequential,
    discretization,
    hashing,
    string_lookup,
    string_lookup_one_hot,
    string_lookup_tf_idf,
    string_lookup_of_given_words,
    integer_lookup,
    text_vectorization,
    text_vectorization_tf_idf,
    text_vectorization_of_a_function,
    category_encoding,
    batch_normalization,
    spectral_normalization,
    custom_state,
    custom_state_within_a_wrapper,
    made_in_build,
]


@pytest.fixture(autouse=True, scope="module")
def forget():
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_copies_predict_what_the_original_predicts(make):
    model, x = make()
    for weight in model.trainable_weights:
        weight.assign(weight + 0.125)
    x = tf.constant(x)
    expected = np.asarray(model(x, training=False))
    assert np.ptp(expected) > 0
    r = Regularization(l2=1e-3, dropout=0.5)
    treated = kregs.regularize(model, r)
    assert treated.losses
    np.testing.assert_allclose(treated(x, training=False), expected, rtol=1e-6, atol=1e-6)
    for method, copy in {
        "copy": copy_model(model, name="other"),
        "mean": kregs.ensemble([model]),
        "twice": kregs.ensemble([model, model]),
    }.items():
        np.testing.assert_allclose(
            copy(x, training=False), expected, rtol=1e-6, atol=1e-6, err_msg=method
        )
    assert copy_model(model, name="other").name == "other"


def test_a_regularized_model_keeps_its_vocabulary_in_a_file(tmp_path):
    model, x = text_vectorization()
    treated = kregs.regularize(model, Regularization(l2=1e-3))
    treated.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = tf.constant(x)
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6)


def test_copies_go_on_with_the_noise_of_the_original():
    model = keras.Sequential([keras.Input((50,)), L.GaussianNoise(1.0, seed=4), L.Dropout(0.5)])
    x = np.ones((1, 50), "float32")
    model(x, training=True)  # the seeds have moved on
    copy = copy_model(model)
    np.testing.assert_array_equal(copy(x, training=True), model(x, training=True))


def test_a_copy_is_apart_from_the_original():
    model, x = normalization()
    before = np.asarray(model(x))
    copy = copy_model(model)
    copy.get_layer("hidden").kernel.assign_add(np.ones((3, 4)))
    copy.layers[1].adapt(2 * NUMBERS)
    np.testing.assert_array_equal(model(x), before)
    assert not np.allclose(copy(x), before)


def test_equal_calls_of_one_layer_are_told_apart():
    first, second = (keras.Input((3,), name=name) for name in "ab")
    shared = L.Dense(4, "tanh", name="shared")
    once = shared(first)
    merged = L.Concatenate()([shared(first), shared(second)])
    outputs = {"one": L.Dense(2)(merged), "two": L.Dense(1)(once)}
    model = keras.Model({"a": first, "b": second}, outputs)
    x = {"a": NUMBERS, "b": NUMBERS[::-1].copy()}
    expected = model(x)
    treated = kregs.regularize(model, Regularization(l2=1e-3, dropout=0.5))
    for copy in (copy_model(model), treated, kregs.shrink(model).model):
        for name, value in copy(x, training=False).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_joins_an_ensemble():
    class Two(keras.Model):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.scale, self.out = L.Normalization(), L.Dense(units)

        def call(self, x):
            return self.out(self.scale(x))

        def get_config(self):
            return {"units": self.units, "name": self.name}

    model = Two(2)
    model.scale.adapt(NUMBERS)
    expected = np.asarray(model(NUMBERS))
    copy = copy_model(model, name="b")
    np.testing.assert_allclose(copy(NUMBERS), expected, rtol=1e-6)


def test_a_layer_that_its_config_does_not_make_is_named():
    class Forgetful(L.Layer):
        def __init__(self, units=2, **kwargs):
            super().__init__(**kwargs)
            self.dense = L.Dense(units)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {"name": self.name}

    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(1)(Forgetful(5, name="lost")(inputs)))
    with pytest.raises(ValueError, match=r"'lost' cannot be copied: from its `get_config\(\)`"):
        copy_model(model)


def test_a_layer_without_a_config_is_named():
    import functools

    leaky = functools.partial(keras.ops.leaky_relu, negative_slope=0.3)
    layers = [keras.layers.Dense(3), keras.layers.Dense(2, activation=leaky, name="leaky")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    with pytest.raises(TypeError, match=r"`model`.*'leaky' of type Dense.*partial"):
        kregs.regularize(model, kregs.Regularization(l2=0.1))
