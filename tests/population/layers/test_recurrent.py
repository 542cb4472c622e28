"""Recurrent layers: the noise of members is Keras's and their own; what is refused says why."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.stats import ks_2samp

from kregs.population import Context, NotStackable, Population, Stacked
from kregs.population.registry import form_of
from kregs.population.threefry import Noise

ROWS = 1500
RATES = [(0.4, 0.0), (0.0, 0.4), (0.5, 0.3)]


def small(cell, rate, recurrent_rate, **options):
    start = keras.initializers.RandomNormal(stddev=0.7, seed=1)
    return cell(
        2, dropout=rate, recurrent_dropout=recurrent_rate, kernel_initializer=start,
        recurrent_initializer=start, **options,
    )  # fmt: skip


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_dropout_agrees_with_keras_in_distribution(cell):
    """Equal rows differ by their draws alone; Kolmogorov and Smirnov compare each output."""
    x = tf.constant(
        np.tile(np.random.default_rng(0).normal(size=(1, 4, 2)), (ROWS, 1, 1)), "float32"
    )
    keras.utils.set_random_seed(0)
    models = [small(cell, *rates) for rates in RATES]
    theirs = [layer(x, training=True).numpy() for layer in models]
    layer, members = models[0], len(RATES)
    weights = {id(v): tf.Variable(tf.stack([v.value] * members)) for v in layer.weights}
    inner, recurrent = tf.unstack(tf.constant(RATES), axis=1)
    numbers = {"dropout": inner, "recurrent_dropout": recurrent}
    form = form_of(layer)(layer, members, weights, numbers, 1)
    noise = Noise(tf.range(members), tf.zeros([members], tf.int32), batch=ROWS, compiled=False)
    stacked = Stacked(tf.repeat(x[None], members, axis=0), members)
    ours = form.call(stacked, context=Context(True, noise)).member_first().numpy()
    mix = np.array([[1, 0, 1], [0, 1, -1]], "float32")
    for drawn, expected in zip(ours, theirs, strict=True):
        assert len(np.unique(drawn[:, 0])) > 3
        # the difference of outputs shows what units share
        for a, b in zip((drawn @ mix).T, (expected @ mix).T, strict=True):
            assert ks_2samp(np.round(a, 4), np.round(b, 4)).pvalue > 1e-4


def classifier(rate, recurrent_rate):
    model = keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(7, 2, mask_zero=True, embeddings_initializer="glorot_uniform"),
            layers.Bidirectional(
                small(layers.GRU, rate, recurrent_rate),
                backward_layer=small(layers.SimpleRNN, rate, recurrent_rate, go_backwards=True),
            ),
            layers.Dense(1),
        ]
    )
    model.set_weights([np.full(w.shape, 0.1 * (i + 1)) for i, w in enumerate(model.weights)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


@pytest.mark.parametrize("accelerate", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_independent_of_the_others(accelerate):
    """Also where the others make the gates drop apart."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (32, 3)), rng.normal(size=(32, 1))

    def trained(models):
        population = Population.from_models(models)
        population.fit(x, y, epochs=2, batch_size=16, accelerate=accelerate)
        return [model.get_weights() for model in population.unstack()]

    (alone,) = trained([classifier(0.3, 0.0)])
    others = [classifier(0.1 * k, 0.1 * k) for k in range(7)]
    ends = trained([*others[:3], classifier(0.3, 0.0), *others[3:]])
    plain, together = ends[0], ends[3]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    # the first of the others drops nothing
    assert any(abs(a - b).max() > 1e-3 for a, b in zip(alone, plain, strict=True))


REFUSED = {
    "stateful": (lambda: layers.LSTM(2, stateful=True), "keeps its state between batches"),
    "inside": (lambda: layers.Bidirectional(layers.LSTM(2, stateful=True)), "keeps its state"),
    "mask to the loss": (
        lambda: keras.Sequential([layers.Masking(), layers.LSTM(2, return_sequences=True)]),
        "a mask reaches the output",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stacked_is_a_clear_error(name):
    make, message = REFUSED[name]
    inputs = keras.Input((4, 3), batch_size=2)
    model = keras.Model(inputs, make()(inputs))
    model.compile("sgd", "mse")
    with pytest.raises(NotStackable, match=message):
        Population.from_models([model])
