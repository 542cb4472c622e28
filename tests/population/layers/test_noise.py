"""Stacked dropout and noise: Keras's distribution."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kregs.layers import DropBlock2D
from kregs.population import Population

NOISE = {
    "dropout": (layers.Dropout, 0.4, (6,)),
    "spatial": (layers.SpatialDropout2D, 0.4, (4, 4, 3)),
    "gaussian_dropout": (layers.GaussianDropout, 0.3, (6,)),
    "gaussian_noise": (layers.GaussianNoise, 0.5, (6,)),
    "drop_block": (lambda rate: DropBlock2D(rate, block_size=2), 0.3, (4, 4, 3)),
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("accelerate", [False, True])
def test_noise_layers_agree_with_keras_in_distribution(name, accelerate):
    """With a learning rate of 0 the mean loss over an epoch depends on the noise alone."""
    layer_class, number, shape = NOISE[name]
    if accelerate and len(shape) > 1:
        pytest.skip("packed layouts are not compiled with XLA on a CPU")
    x = np.random.default_rng(1).normal(size=(256, *shape)).astype("float32")
    y = np.zeros((256, 1), "float32")

    def make():
        body = [layer_class(number), layers.Flatten(), layers.Dense(1, kernel_initializer="ones")]
        conv = [layers.Conv2D(3, 1, kernel_initializer="ones")] if len(shape) > 1 else []
        model = keras.Sequential([keras.Input(shape), *conv, *body])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        return model

    epochs = 40
    population = Population.from_models([make() for _ in range(4)], seeds=[1, 2, 3, 4])
    histories = population.fit(x, y, epochs=epochs, batch_size=64, accelerate=accelerate)
    ours = np.array([h["loss"] for h in histories])
    keras.utils.set_random_seed(0)
    # the same rows over and over in one call, each with draws of its own
    outputs = make()(np.tile(x, (2 * epochs, *[1] * len(shape))), training=True)
    theirs = (outputs.numpy().reshape(2 * epochs, -1) ** 2).mean(1)
    error = np.sqrt(ours.var() / ours.size + theirs.var() / theirs.size)
    assert abs(ours.mean() - theirs.mean()) < 5 * error
    assert 0.5 < ours.std() / theirs.std() < 2
