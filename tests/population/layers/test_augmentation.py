"""Augmentation layers inside of a model: Keras's distribution, each member's own draws."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.stats import ks_2samp

from kregs.population import Context, Population, Stacked
from kregs.population.registry import form_of
from kregs.population.threefry import Noise

ROWS = 1500
PIXELS = [(0, 0, 0), (4, 2, 1), (2, 5, 2)]
LAYERS = {
    "flip": lambda: layers.RandomFlip("horizontal"),
    "rotation": lambda: layers.RandomRotation(0.2),
    "translation": lambda: layers.RandomTranslation((-0.1, 0.3), 0.2),
    "zoom": lambda: layers.RandomZoom(0.3, 0.1),
    "zoom_both": lambda: layers.RandomZoom(0.3),
    "contrast": lambda: layers.RandomContrast(0.5, value_range=(0, 1)),
    "brightness": lambda: layers.RandomBrightness((-0.3, 0.1), value_range=(0, 1)),
    "hue": lambda: layers.RandomHue(0.3, value_range=(0, 1)),
    "saturation": lambda: layers.RandomSaturation(0.7, value_range=(0, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_distribution_is_that_of_keras(name):
    """Equal images differ by their draws alone; Kolmogorov and Smirnov compare some pixels."""
    keras.utils.set_random_seed(0)
    layer = LAYERS[name]()
    image = np.random.default_rng(0).random((1, 5, 6, 3)).astype("float32")
    x = tf.repeat(tf.constant(image), ROWS, axis=0)
    form = form_of(layer)(layer, 2, {}, {}, 1)
    seeds, steps = tf.constant([0, 1]), tf.constant([4, 4])

    @tf.function
    def augmented():
        noise = Noise(seeds, steps, batch=ROWS, compiled=False)
        stacked = Stacked(tf.repeat(x[None], 2, axis=0), 2)
        return form.call(stacked, context=Context(True, noise)).member_first()

    ours, theirs = augmented().numpy(), layer(x, training=True).numpy()
    assert (ours[0] != ours[1]).any()
    for drawn in ours:
        distinct = [len(np.unique(np.round(a, 3), axis=0)) for a in (drawn, theirs)]
        assert abs(np.log(distinct[0] / distinct[1])) < 0.1
        for pixel in PIXELS:
            a, b = (np.round(images[:, *pixel], 4) for images in (drawn, theirs))
            assert ks_2samp(a, b).pvalue > 1e-4


def classifier():
    body = [layers.RandomFlip(), layers.RandomRotation(0.3, seed=3), layers.Flatten()]
    head = layers.Dense(2, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((4, 4, 1)), *body, head])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_members_draw_by_their_seed_alone():
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 4, 4, 1)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")

    def trained(seeds):
        population = Population.from_models([classifier() for _ in seeds], seeds=seeds)
        population.fit(x, y, epochs=2, batch_size=8, shuffle=False)
        return population.unstack()

    (alone,) = trained([5])
    together = trained([1, 2, 5, 3, 5, 4, 6])
    kernels = [model.get_weights()[0] for model in together]
    np.testing.assert_allclose(kernels[2], alone.get_weights()[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kernels[2], kernels[4])
    assert abs(kernels[2] - kernels[0]).max() > 1e-3
    prediction = Population.from_models([alone]).predict(x)[0]
    np.testing.assert_allclose(prediction, alone.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
