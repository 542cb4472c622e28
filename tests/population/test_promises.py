"""Independent, isolated, paired, faithful: what a population promises beyond being exact."""

import collections
import copy
import functools

import keras
import numpy as np
import pytest
from keras import layers, regularizers

from kregs.population import NotStackable, Population, StackedLayer, register
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.rows import Feed, as_rows, as_validation
from kregs.population.signature import read_member
from kregs.population.training import Training

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 6)).astype("float32")
Y = RNG.integers(0, 3, 96)


def build(l2=0.0, rate=0.3, learning_rate=1e-2, initializer_seed=0, body=None):
    seeded = keras.initializers.GlorotUniform(seed=initializer_seed)
    hidden = layers.Dense(
        8, "relu", kernel_initializer=seeded, kernel_regularizer=regularizers.L2(l2)
    )
    again = keras.initializers.GlorotUniform(seed=initializer_seed + 1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            hidden,
            layers.BatchNormalization(),
            layers.Dropout(rate),
            layers.Dense(3, "softmax", kernel_initializer=again),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def begin_anew(model, weights):
    """Give a model weights, and an optimizer that has seen nothing."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(keras.ops.zeros_like(variable))


def weights_after(models, position, *, seeds=0, **fit):
    population = Population.from_models(models, seeds=seeds)
    population.fit(X, Y, epochs=3, batch_size=16, **fit)
    return population.unstack()[position].get_weights(), population


@functools.lru_cache
def alone_and_others():
    """In float64: a model, 63 others, and the weights that each begins with."""
    rng = np.random.default_rng(1)
    models = [build(1e-3, 0.25)]
    for k in range(63):
        l2, rate = 10 ** -rng.uniform(1, 5), rng.uniform(0, 0.6)
        models.append(build(l2, rate, initializer_seed=k + 10))
    return models, [model.get_weights() for model in models]


@functools.lru_cache
def trained_among(others, position, accelerate):
    """The weights that the model ends with at a position among so many others."""
    models, starts = alone_and_others()
    for model, weights in zip(models, starts, strict=True):
        begin_anew(model, weights)
    chosen = models[1 : others + 1]
    chosen.insert(position, models[0])
    fit = {"accelerate": accelerate, "validation_data": (X[:20], Y[:20])}
    return weights_after(chosen, position, **fit)[0]


@pytest.mark.parametrize(
    ("accelerate", "others", "position"), [(True, 7, 3), (False, 7, 3), (False, 63, 50)]
)
def test_independent_of_the_others(double, accelerate, others, position):
    alone = trained_among(0, 0, accelerate)
    together = trained_among(others, position, accelerate)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def run(training, models, *, epochs=3, callbacks=()):
    """Train models as jobs of their own, each with its own copy of the callbacks."""
    jobs = [
        Job(
            member=read_member(model),
            weights=None,
            seed=0,
            callbacks=copy.deepcopy(list(callbacks)),
            epochs=epochs,
        )
        for model in models
    ]
    for _ in training.run(collections.deque(jobs)):
        pass
    return jobs


@pytest.mark.parametrize("accelerate", [False, True])
def test_a_member_that_diverges_harms_nobody(accelerate):
    others = [build(l2, rate) for l2, rate in ((1e-3, 0.2), (1e-2, 0.4), (0.0, 0.0))]
    sane, mad = build(1e-4), build(1e-4, learning_rate=1e30)
    layout = Layout([read_member(model) for model in (*others, sane, mad)])
    training = Training(layout, 4, Feed(as_rows(X, Y), None, 16), accelerate=accelerate)
    expected = run(training, [*others, sane])
    beside_mad = run(training, [*others, mad])
    assert [job.failure for job in (*expected, *beside_mad[:3])] == [None] * 7
    assert "loss is" in beside_mad[3].failure
    for one, other in zip(expected[:3], beside_mad[:3], strict=True):
        assert np.isfinite(other.history["loss"]).all()
        for a, b in zip(one.best_weights, other.best_weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_failure_of_a_member_is_told():
    _, population = weights_after([build(), build(learning_rate=1e30)], 0, accelerate=False)
    assert population.failures[0] is None
    assert "loss is" in population.failures[1]


def test_members_with_one_seed_are_paired():
    (_, same), (_, other) = (
        weights_after([build(), build(), build()], 0, seeds=seeds, accelerate=False)
        for seeds in (5, [5, 6, 5])
    )
    assert same.history[0] == same.history[1]
    assert other.history[0] == other.history[2] == same.history[0]
    assert other.history[0]["loss"] != other.history[1]["loss"]


def test_slots_are_given_on_without_a_trace(double):
    """With fewer slots than members, all end as with a slot each."""
    rates = np.linspace(0, 0.6, 7)

    def models():
        return [build(rate=rate) for rate in rates]

    stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=0.05)
    many = Population.from_models(models())
    many.fit(X, Y, epochs=8, early_stopping=stopping, accelerate=False)
    few = Population.from_models(models())
    few.fit(X, Y, epochs=8, early_stopping=stopping, max_members=2, accelerate=False)
    assert [len(h["loss"]) for h in many.history] == [len(h["loss"]) for h in few.history]
    for a, b in zip(many.unstack(), few.unstack(), strict=True):
        for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


STOPPING = [
    {"monitor": "val_loss", "patience": 2},
    {"monitor": "val_loss", "patience": 1, "min_delta": 0.01, "restore_best_weights": True},
    {"monitor": "val_accuracy", "mode": "max", "patience": 3, "restore_best_weights": True},
    {"monitor": "val_loss", "patience": 1, "start_from_epoch": 4, "restore_best_weights": True},
    {"monitor": "val_loss", "patience": 2, "baseline": 0.5},
]


RATES = (1e-3, 3e-2, 0.3)
BY_EPOCH = {"epochs": 12, "batch_size": 16, "shuffle": False}


class Recorder(keras.callbacks.Callback):
    """Keeps the logs and the weights of each epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((dict(logs), self.model.get_weights()))


def keras_model(start):
    """A model that Keras's `fit` trains, traced once, from these weights with any rate."""
    model = build(rate=0.0)
    model.set_weights(start)
    model.optimizer.build(model.trainable_variables)
    state = [v.numpy() for v in model.optimizer.variables]

    def fit(rate, **arguments):
        model.set_weights(start)
        for variable, value in zip(model.optimizer.variables, state, strict=True):
            variable.assign(value)
        model.optimizer.learning_rate = rate
        return model.fit(X, Y, verbose=0, **arguments).history

    return model, fit


def stopped(model, callback, epochs):
    """How many epochs, and which weights, `fit` with the callback would have ended with."""
    model.stop_training = False
    callback.set_model(model)
    callback.on_train_begin()
    for count, (logs, weights) in enumerate(epochs, 1):
        model.set_weights(weights)
        callback.on_epoch_end(count - 1, logs)
        if model.stop_training:
            break
    callback.on_train_end()
    return count, model.get_weights()


def test_early_stopping_is_keras(double):
    """Keras's own callback, replayed over each history, stops there and restores those weights."""
    models = [build(rate=0.0, learning_rate=rate) for rate in RATES]
    validated = {"validation_data": (X[:30], Y[:30]), **BY_EPOCH}
    reference, fit = keras_model(models[0].get_weights())
    recorders = [Recorder() for _ in RATES]
    for rate, recorder in zip(RATES, recorders, strict=True):
        fit(rate, callbacks=[recorder], **validated)
    members = [read_member(model) for model in models]
    feed = Feed(as_rows(X, Y), as_validation((X[:30], Y[:30])), 16, shuffle=False)
    training = Training(Layout(members), 8, feed, accelerate=False)
    counts = set()
    for arguments in STOPPING:
        callback = keras.callbacks.EarlyStopping(**arguments)
        jobs = run(training, models, epochs=12, callbacks=[callback])
        for job, recorder in zip(jobs, recorders, strict=True):
            count, weights = stopped(reference, copy.deepcopy(callback), recorder.epochs)
            counts.add(count)
            assert len(job.history["loss"]) == count, arguments
            for one, other in zip(job.best_weights, weights, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9, err_msg=str(arguments))
    assert len(counts) > 3


def test_early_stopping_of_a_population(double):
    """Each member has its own copy; `fit` itself, with the callback, tells where it ends."""
    models = [build(rate=0.0, learning_rate=rate) for rate in RATES]
    reference, fit = keras_model(models[0].get_weights())
    validated = {"validation_data": (X[:30], Y[:30]), **BY_EPOCH}
    stopping = keras.callbacks.EarlyStopping(**STOPPING[1])
    population = Population.from_models(models)
    population.fit(X, Y, early_stopping=stopping, accelerate=True, **validated)
    for model, rate, history in zip(population.unstack(), RATES, population.history, strict=True):
        of_keras = fit(rate, callbacks=[copy.deepcopy(stopping)], **validated)
        assert len(of_keras["loss"]) == len(history["loss"])
        for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_learning_rate_callbacks_are_each_members_own(double):
    rates = (1e-3, 0.5)
    models = [build(rate=0.0, learning_rate=rate) for rate in rates]
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=0.02),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]
    _, fit = keras_model(models[0].get_weights())
    arguments = {**BY_EPOCH, "epochs": 6}
    population = Population.from_models(models)
    population.fit(X, Y, callbacks=callbacks, accelerate=False, **arguments)
    for rate, history in zip(rates, population.history, strict=True):
        of_keras = fit(rate, callbacks=copy.deepcopy(callbacks), **arguments)
        np.testing.assert_allclose(history["loss"], of_keras["loss"], rtol=1e-6)


def dense(units=4, **kwargs):
    return [keras.Input((4,)), layers.Dense(units, **kwargs), layers.Dense(2)]


def compiled(body, optimizer="sgd", loss="mse"):
    model = keras.Sequential(body)
    model.compile(optimizer, loss)
    return model


class Scaling(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale


@register(Scaling)
class StackedScaling(StackedLayer):
    def call(self, x, *, context):
        return self.output(x.member_first() * self.weight("scale")[:, None])


DIFFERENCES = {
    "units": (lambda: [compiled(dense(4)), compiled(dense(5))], r"units.*4 and 5"),
    "activation": (
        lambda: [compiled(dense(activation="relu")), compiled(dense(activation="tanh"))],
        r"activation.*'relu' and 'tanh'",
    ),
    "optimizer": (lambda: [compiled(dense()), compiled(dense(), "adam")], r"optimizer.*class"),
    "loss": (lambda: [compiled(dense()), compiled(dense(), loss="mae")], r"'mse' and 'mae'"),
    "regularizer": (
        lambda: [
            compiled(dense(kernel_regularizer=regularizers.OrthogonalRegularizer(n)))
            for n in (0.1, 0.2)
        ],
        r"regularizer of weight 0",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_cannot_be_stacked_is_a_clear_error(name):
    models, message = DIFFERENCES[name]
    with pytest.raises(NotStackable, match=message):
        Population.from_models(models())


def test_a_registered_layer_is_stacked(double):
    models = [compiled([keras.Input((6,)), Scaling(), layers.Dense(2)]) for _ in range(2)]
    copies = [keras.models.clone_model(m) for m in models]
    for copied, model in zip(copies, models, strict=True):
        copied.set_weights(model.get_weights())
        copied.compile("sgd", "mse")
    population = Population.from_models(models)
    y = X[:, :2]
    population.fit(X, y, shuffle=False)
    copies[1].fit(X, y, shuffle=False, verbose=0)
    for one, other in zip(
        population.unstack()[1].get_weights(), copies[1].get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


BAD_CALLS = {
    "no models": (lambda: Population.from_models([]), ValueError, "at least one"),
    "not compiled": (
        lambda: Population.from_models([keras.Sequential(dense())]),
        ValueError,
        "must be compiled",
    ),
    "no model": (lambda: Population.from_models([3]), TypeError, "keras models"),
    "seeds": (
        lambda: Population.from_models([build()], seeds=[1, 2]),
        ValueError,
        "one a model",
    ),
    "lengths": (
        lambda: Population.from_models([build()]).fit(X, Y[:-1]),
        ValueError,
        "same number of rows",
    ),
    "empty": (
        lambda: Population.from_models([build()]).fit(X[:0], Y[:0]),
        ValueError,
        "must not be empty",
    ),
    "epochs": (lambda: Population.from_models([build()]).fit(X, Y, epochs=0), ValueError, "epochs"),
    "callback": (
        lambda: Population.from_models([build()]).fit(
            X, Y, callbacks=[keras.callbacks.ModelCheckpoint("x.keras", save_freq=3)]
        ),
        NotStackable,
        "ModelCheckpoint has on_train_batch_end",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(name):
    call, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        call()


def test_members_train_for_epochs_of_their_own():
    def build(rate):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(rate), "mse")
        return model

    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    population = Population.from_models([build(rate) for rate in (0.1, 0.01, 0.05)], seeds=3)
    histories = population.fit(x, x.sum(1), epochs=[3, 1, 2], batch_size=10)
    assert [len(history["loss"]) for history in histories] == [3, 1, 2]
    alone = Population.from_models([build(0.05)], seeds=3)
    for one, other in zip(alone.models[0].weights, population.models[2].weights, strict=True):
        one.assign(other)
    (history,) = alone.fit(x, x.sum(1), epochs=2, batch_size=10)
    np.testing.assert_allclose(history["loss"], histories[2]["loss"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"`epochs` must be one integer or one a member \(3\)"):
        population.fit(x, x.sum(1), epochs=[1, 2])
    with pytest.raises(ValueError, match="epochs"):
        population.fit(x, x.sum(1), epochs=[1, 2, 0])
