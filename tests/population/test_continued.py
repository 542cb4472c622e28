"""A further `fit` goes on where Keras's would: weights, optimizer, steps, learning rate, order."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers

from kregs.population import Population

pytestmark = pytest.mark.nightly

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 2))
FIT = {"batch_size": 8, "shuffle": False}
SCHEDULE = optimizers.schedules.PiecewiseConstantDecay([7, 13], [0.125, 0.0625, 0.03125])
OPTIMIZERS = {
    "amsgrad": lambda n: optimizers.Adam(0.01 * n, amsgrad=True),
    "adamw": lambda n: optimizers.AdamW(0.01 * n, weight_decay=0.1 * n, clipnorm=0.5 / n),
    "nesterov": lambda n: optimizers.SGD(0.02, momentum=0.4 * n, nesterov=True),
    "schedule": lambda n: optimizers.SGD(SCHEDULE, momentum=0.3 * n),
    "centered": lambda n: optimizers.RMSprop(0.01, rho=0.45 * n, momentum=0.2 * n, centered=True),
    "plain rmsprop": lambda n: optimizers.RMSprop(0.01 * n),
    "lion": lambda n: optimizers.Lion(0.01, beta_1=0.45 * n),
}


def build(optimizer, *, rate=0.0):
    body = [layers.Dense(5, "tanh"), layers.BatchNormalization(), layers.Dropout(rate)]
    model = keras.Sequential([keras.Input((4,)), *body, layers.Dense(2)])
    model.compile(optimizer, "mse")
    return model


def twin(model, optimizer):
    copy = build(optimizer)
    copy.set_weights(model.get_weights())
    return copy


def check_close(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_call_goes_on_as_kerass(double, eager, name):
    """Keras trains before, the population twice, and Keras again, against Keras all the time."""
    make = OPTIMIZERS[name]
    numbers = (1.5, 2.0)
    models = [build(make(n)) for n in numbers]
    twins = [twin(model, make(n)) for model, n in zip(models, numbers, strict=True)]
    for model in (*models[:1], *twins[:1]):  # the first was trained before, the other was not
        model.fit(X, Y, epochs=2, verbose=0, **FIT)
    population = Population.from_models(models)
    for epochs in (2, 1):
        histories = population.fit(X, Y, epochs=epochs, accelerate=False, **FIT)
        for one, history in zip(twins, histories, strict=True):
            expected = one.fit(X, Y, epochs=epochs, verbose=0, **FIT).history
            np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-8)
    for model, one in zip(population.unstack(), twins, strict=True):
        check_close(model, one)
        assert int(model.optimizer.iterations) == int(one.optimizer.iterations)
        pairs = zip(model.optimizer.variables, one.optimizer.variables, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-7, atol=1e-9)
    # Keras goes on with the last, and the population with what came of it
    for one in (models[-1], *twins):
        one.fit(X, Y, verbose=0, **FIT)
    population.fit(X, Y, epochs=1, accelerate=False, **FIT)
    twins[-1].fit(X, Y, verbose=0, **FIT)
    for model, one in zip(population.unstack(), twins, strict=True):
        check_close(model, one)


def test_a_learning_rate_that_callbacks_set_stays(double, eager):
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=10.0)
    models = [build(optimizers.Adam(rate)) for rate in (0.05, 0.01)]
    twins = [twin(m, optimizers.Adam(r)) for m, r in zip(models, (0.05, 0.01), strict=True)]
    population = Population.from_models(models)
    for callbacks in ([plateau], []):
        population.fit(X, Y, epochs=3, callbacks=callbacks, accelerate=False, **FIT)
        for one in twins:
            one.fit(X, Y, epochs=3, callbacks=callbacks, verbose=0, **FIT)
    for model, one in zip(population.unstack(), twins, strict=True):
        check_close(model, one)
        assert float(model.optimizer.learning_rate) == float(one.optimizer.learning_rate) < 1e-3


def test_two_calls_do_what_one_does(double, eager):
    """The order of rows and the noise go on, too."""

    def trained(*calls):
        keras.utils.set_random_seed(3)
        models = [build(optimizers.Adam(rate), rate=0.3) for rate in (0.05, 0.01)]
        population = Population.from_models(models, seeds=[4, 5])
        for epochs in calls:
            population.fit(X, Y, epochs=epochs, batch_size=8, accelerate=False)
        return population.unstack()

    for one, other in zip(trained(2, 3), trained(5), strict=True):
        check_close(one, other)
    assert not np.allclose(trained(2)[1].get_weights()[0], trained(3)[1].get_weights()[0])


class Pieces(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, number):
        rows = slice(6 * number, 6 * number + 6)
        return X[rows], Y[rows]


def test_the_order_of_a_datasets_batches_goes_on(double, eager):
    def trained(*calls):
        keras.utils.set_random_seed(3)
        population = Population.from_models([build(optimizers.SGD(rate)) for rate in (0.1, 0.2)])
        for epochs in calls:
            population.fit(Pieces(), epochs=epochs, accelerate=False)
        return population.unstack()

    for one, other in zip(trained(1, 2), trained(3), strict=True):
        check_close(one, other)


def test_a_member_that_was_restored_goes_on_with_its_last_state(double, eager):
    """Keras restores weights, and leaves the optimizer as it is."""
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", mode="max", patience=2, restore_best_weights=True
    )
    fit = {"validation_data": (X[:9], Y[:9]), "epochs": 6, "callbacks": [stopping], **FIT}
    models = [build(optimizers.Adam(rate)) for rate in (0.05, 0.01)]
    twins = [twin(m, optimizers.Adam(r)) for m, r in zip(models, (0.05, 0.01), strict=True)]
    population = Population.from_models(models)
    for _ in range(2):
        population.fit(X, Y, accelerate=False, **fit)
        for one in twins:
            one.fit(X, Y, verbose=0, **fit)
    assert max(len(history["loss"]) for history in population.history) < 6
    for model, one in zip(population.unstack(), twins, strict=True):
        check_close(model, one)


def test_predictions_after_a_call_are_those_of_the_models():
    population = Population.from_models([build(optimizers.SGD(rate)) for rate in (0.1, 0.2)])
    population.fit(X, Y, batch_size=8)
    before = population.predict(X)
    models = population.unstack()
    np.testing.assert_allclose(population.predict(X), before, rtol=1e-6)
    models[1].set_weights([np.zeros_like(weight) for weight in models[1].get_weights()])
    assert not population.predict(X)[1].any()
    np.testing.assert_allclose(population.predict(X)[0], before[0], rtol=1e-6)
    assert isinstance(models[0](X), tf.Tensor)


def test_a_saved_population_goes_on_where_it_ended(tmp_path):
    def build(rate):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(rate), "mse")
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)).astype("float32"), rng.normal(size=(20, 2)).astype("float32")
    population = Population.from_models([build(0.1), build(0.01)], seeds=[5, 6])
    population.fit(x, y, batch_size=8, epochs=2)
    file = tmp_path / "population.zip"
    population.save(file)
    loaded = Population.load(file)
    assert loaded.seeds == [5, 6]
    assert loaded.history == population.history
    population.fit(x, y, batch_size=8)
    loaded.fit(x, y, batch_size=8)  # the order of rows goes on, too
    for k in (0, 1):
        for one, other in zip(population[k].get_weights(), loaded[k].get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_no_saved_population(tmp_path):
    file = tmp_path / "other.zip"
    file.write_text("none")
    with pytest.raises(ValueError, match=r"a file that Population\.save wrote"):
        Population.load(file)
    with pytest.raises(FileNotFoundError):
        Population.load(tmp_path / "absent.zip")
