"""FlatCosineDropout: its rate in each step, its counter, and its stacked form."""

import keras
import numpy as np
import pytest
from keras import layers

from kregs.layers import FlatCosineDropout
from kregs.population import Population

ONES = np.ones((40, 500), "float32")


def expected_rate(rate, step, steps, flat):
    t = step / steps
    falling = np.clip((t - flat) / (1 - flat), 0, 1) if flat < 1 else 0.0
    return rate * 0.5 * (1 + np.cos(np.pi * falling))


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_rate_of_each_step(flat):
    layer = FlatCosineDropout(0.6, steps=6, flat=flat, seed=1)
    np.testing.assert_array_equal(layer(ONES), ONES)  # not while predicting, which counts nothing
    for step in range(9):
        outputs = layer(ONES, training=True).numpy()
        rate = expected_rate(0.6, step, 6, flat)
        # 20,000 draws: 5 standard errors
        assert np.mean(outputs == 0) == pytest.approx(rate, abs=5 * 0.5 / np.sqrt(ONES.size))
        kept = outputs[outputs != 0]
        np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-5)
    assert int(layer.step) == 9


def network(rate, steps, flat=0.5, learning_rate=0.0):
    body = [FlatCosineDropout(rate, steps=steps, flat=flat), layers.Dense(1)]
    model = keras.Sequential([keras.Input((500,)), *body])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_counts_in_a_compiled_training_and_a_file(tmp_path, jit):
    model = network(0.5, 12)
    model.compile("sgd", "mse", jit_compile=jit)
    model.fit(ONES, ONES[:, :1], batch_size=16, epochs=2, verbose=0)
    assert int(model.layers[0].step) == 6
    model.predict(ONES, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.layers[0].step) == 6
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


SETTINGS = ((0.7, 4, 0.25), (0.3, 8, 0.5), (0.0, 4, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("accelerate", [False, True])
def test_members_have_rates_steps_and_flats_of_their_own(accelerate):
    """With weights of 1 and a learning rate of 0, a loss tells the variance of the noise."""
    x, epochs = np.ones((1024, 500), "float32"), 5

    def member(k):
        model = network(*SETTINGS[k])
        model.set_weights([*model.get_weights()[:1], np.full((500, 1), 1 / 500), np.zeros(1)])
        return model

    def losses(which):
        models = [member(k) for k in which]
        population = Population.from_models(models, seeds=[7 + k for k in which])
        fit = {"batch_size": 1024, "epochs": epochs, "accelerate": accelerate}
        histories = population.fit(x, x[:, :1], **fit)
        counts = [int(m.layers[0].step) for m in population.unstack()]
        return [history["loss"] for history in histories], counts

    together, counts = losses([0, 1, 2])
    assert counts == [epochs] * 3
    for k, (rate, steps, flat) in enumerate(SETTINGS):
        for step, loss in enumerate(together[k]):
            p = expected_rate(rate, step, steps, flat)
            # the mean of 500 draws of 0 and 1 / (1 - p) has this variance; its estimate from 1,024
            # rows a relative standard error of sqrt(2 / 1024)
            assert loss == pytest.approx(p / (1 - p) / 500, rel=5 * np.sqrt(2 / 1024), abs=1e-9)
    # what a member becomes does not depend on the others
    np.testing.assert_allclose(losses([1])[0][0], together[1], rtol=1e-5)


def test_wrong_arguments():
    for name, options in {
        "rate": {"rate": 1.0, "steps": 3}, "steps": {"rate": 0.5, "steps": 0},
        "flat": {"rate": 0.5, "steps": 3, "flat": 1.5},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            FlatCosineDropout(**options)
