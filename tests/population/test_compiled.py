"""A saved population has what a `.keras` file does not hold: label smoothing, what is decayed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs.population import Population
from kregs.population.objective import label_smoothings_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("float32")
Y = RNG.integers(0, 2, 24)
SPARSE = "sparse_categorical_crossentropy"


def build(smoothing, **options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    settings = {"optimizer": "adamw", "weight_decay": 0.5, "learning_rate": 0.1} | options
    return kregs.compile_model(model, SPARSE, label_smoothing=smoothing, **settings)


@pytest.mark.slow
def test_label_smoothing_and_weight_decay_are_those_of_before(tmp_path):
    population = Population.from_models([build(0.3), build(0.0)])
    population.fit(X, Y)
    population.save(tmp_path / "population.zip")
    loaded = Population.load(tmp_path / "population.zip")
    smoothings = [label_smoothings_of(model) for model in loaded.models]
    assert smoothings == [(0.3,), (0.0,)]
    for model in loaded.models:
        decayed = [model.optimizer._use_weight_decay(v) for v in model.trainable_variables]
        assert decayed == [True, False]
    expected, histories = population.fit(X, Y), loaded.fit(X, Y)
    for k in range(2):
        np.testing.assert_allclose(histories[k]["loss"], expected[k]["loss"], rtol=1e-6)
        for one, other in zip(population[k].get_weights(), loaded[k].get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_a_proximal_step_is_in_no_file(tmp_path):
    optimizer = kregs.proximal(keras.optimizers.SGD(0.1), l1=0.01)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    population = Population.from_models([model])
    with pytest.raises(ValueError, match=r"made by kregs\.proximal, whose proximal step no file"):
        population.save(tmp_path / "population.zip")
    assert not list(tmp_path.iterdir())
