"""Early stopping: replayed against Keras's own, and strict about its monitor."""

from __future__ import annotations

import contextlib
import copy
import warnings

import keras
import numpy as np
import pytest

import kregs

L = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)), RNG.normal(size=(40, 1))


def model_of():
    head = L.Dense(1, kernel_regularizer="l2", kernel_initializer="ones")
    return kregs.compile_model(
        keras.Sequential([keras.Input((4,)), head]), "mse", optimizer="sgd", learning_rate=0.3
    )


class Recorder(keras.callbacks.Callback):
    """A stand-in model for replaying logs: it notes whose weights are restored."""

    def __init__(self):
        super().__init__()
        self.epoch, self.restored, self.stop_training = -1, None, False

    def get_weights(self):
        return self.epoch

    def set_weights(self, weights):
        self.restored = weights


def replay(callback, values, monitor):
    stage = Recorder()
    callback.set_model(stage)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        stage.epoch = epoch
        callback.on_epoch_end(epoch, {monitor: value})
        if stage.stop_training:
            break
    callback.on_train_end()
    return stage.epoch, stage.restored, callback.best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0},
        {"patience": 3},
        {"patience": 2, "min_delta": 0.2},
        {"patience": 2, "start_from_epoch": 4},
        {"patience": 4, "baseline": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("monitor", ["val_data_loss", "val_accuracy"])
def test_replay_of_keras(seed, options, monitor):
    values = np.random.default_rng(seed).uniform(size=20)
    values[3] = np.nan
    stock = keras.callbacks.EarlyStopping(
        monitor,
        mode="min" if monitor == "val_data_loss" else "max",
        restore_best_weights=True,
        **options,
    )
    ours = kregs.early_stopping(monitor, **options)
    assert replay(ours, values, monitor) == replay(stock, values, monitor)


def test_stops_and_restores_in_fit():
    model = model_of()
    callbacks = kregs.default_callbacks(patience=3)
    history = model.fit(
        X, Y, validation_data=(X + 1, Y), epochs=100, callbacks=callbacks, verbose=0
    ).history["val_data_loss"]
    assert len(history) < 100
    logs = model.evaluate(X + 1, Y, verbose=0, return_dict=True)
    assert logs["data_loss"] == pytest.approx(min(history), rel=1e-5)


@pytest.mark.parametrize(
    ("monitor", "validation", "hint"),
    [
        ("val_data_los", True, "Did you mean 'val_data_loss'"),
        ("val_accuracy", True, r"one of the logged metrics: data_loss, loss, val_data_loss"),
        ("data_los", False, "Did you mean 'data_loss'"),
    ],
)
def test_missing_monitor_is_an_error_after_the_first_epoch(monitor, validation, hint, eager):
    data = {"validation_data": (X, Y)} if validation else {}
    epochs = []
    counter = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch)
    )
    stopping = kregs.early_stopping(monitor, mode="min", start_from_epoch=5)
    with pytest.raises(ValueError, match=hint):
        model_of().fit(X, Y, epochs=3, callbacks=[counter, stopping], verbose=0, **data)
    assert epochs == [0]


@pytest.mark.parametrize("epochs", [1, 3])
def test_without_validation_the_end_is_an_error(epochs, eager):
    stopping = kregs.early_stopping()
    waits = pytest.warns(UserWarning, match="waits for 'val_data_loss'")
    ends = pytest.raises(ValueError, match="pass validation data to `fit`")
    with waits if epochs > 1 else contextlib.nullcontext(), ends:
        model_of().fit(X, Y, epochs=epochs, callbacks=[stopping], verbose=0)
    # a training that something else ended is no such case
    nan = kregs.compile_model(model_of(), "mse", optimizer="sgd", learning_rate=1e30)
    ending = [keras.callbacks.TerminateOnNaN(), kregs.early_stopping()]
    data = {"validation_data": (X, Y), "validation_freq": 50}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nan.fit(X, Y, epochs=20, callbacks=ending, verbose=0, **data)


@pytest.mark.parametrize("options", [{"patience": 1}, {"patience": 2, "start_from_epoch": 3}])
def test_epochs_without_validation_are_passed_over_as_by_keras(options, eager):
    data = {"validation_data": (X + 1, Y), "validation_freq": 2, "epochs": 40, "verbose": 0}
    stock = keras.callbacks.EarlyStopping(
        "val_data_loss", mode="min", restore_best_weights=True, **options
    )
    histories, weights = [], []
    for stopping in (kregs.early_stopping(**options), stock):
        keras.utils.set_random_seed(0)
        model = model_of()
        with warnings.catch_warnings():
            if stopping is stock:
                warnings.simplefilter("ignore")  # it warns in every other epoch
            histories.append(model.fit(X, Y, callbacks=[stopping], **data).history)
        weights.append(model.get_weights())
    assert histories[0] == histories[1]
    assert 4 <= len(histories[0]["loss"]) < 40
    for ours, keras_own in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, keras_own)
    with pytest.raises(ValueError, match="Did you mean 'val_data_loss'"):
        model_of().fit(X, Y, callbacks=[kregs.early_stopping("val_data_los", mode="min")], **data)


def test_a_population_passes_over_epochs_without_validation():
    models = [model_of(), model_of()]
    data = {"validation_data": (X + 1, Y), "validation_freq": 2, "epochs": 40}
    expected = model_of()
    expected.set_weights(models[0].get_weights())
    history = expected.fit(
        X, Y, batch_size=40, callbacks=[kregs.early_stopping(patience=1)], verbose=0, **data
    ).history
    population = kregs.Population.from_models(models)
    population.fit(X, Y, batch_size=40, early_stopping=kregs.early_stopping(patience=1), **data)
    np.testing.assert_allclose(
        population.history[0]["val_data_loss"], history["val_data_loss"], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_loss", "min"),
        ("loss", "min"),
        ("val_mse", "min"),
        ("val_mean_absolute_error", "min"),
        ("val_sparse_categorical_crossentropy", "min"),
        ("val_false_positives", "min"),
        ("val_accuracy", "max"),
        ("val_acc", "max"),
        ("val_auc", "max"),
        ("val_sparse_top_k_categorical_accuracy", "max"),
        ("val_f1_score", "max"),
        ("val_r2_score", "max"),
    ],
)
def test_mode_is_inferred(monitor, mode):
    assert kregs.early_stopping(monitor).mode == mode


@pytest.mark.parametrize("monitor", ["val_gain", "val_loss_accuracy", "lr"])
def test_mode_must_be_given_where_it_is_not_clear(monitor):
    with pytest.raises(ValueError, match=r"`mode` must be 'min' or 'max': it cannot be inferred"):
        kregs.early_stopping(monitor)
    assert kregs.early_stopping(monitor, mode="max").mode == "max"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"patience": -1}, ValueError),
        ({"patience": 1.5}, TypeError),
        ({"min_delta": -0.1}, ValueError),
        ({"mode": "auto"}, ValueError),
        ({"monitor": None}, TypeError),
        ({"start_from_epoch": -1}, ValueError),
    ],
    ids=str,
)
def test_wrong_arguments(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
        kregs.early_stopping(**options)


def test_default_callbacks_write_their_logs_and_copy(tmp_path):
    callbacks = kregs.default_callbacks(
        patience=1, csv=tmp_path / "log.csv", tensorboard=tmp_path / "tb"
    )
    model_of().fit(
        X, Y, validation_data=(X, Y), epochs=2, callbacks=copy.deepcopy(callbacks), verbose=0
    )
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert "val_data_loss" in header
    assert list((tmp_path / "tb").rglob("events*"))
    assert callbacks[1].best is None or callbacks[1].model is None  # the copy was used


def test_nan_stops_the_training(eager):
    model = kregs.compile_model(model_of(), "mse", optimizer="sgd", learning_rate=1e30)
    history = model.fit(
        X, Y, validation_data=(X, Y), epochs=20, callbacks=kregs.default_callbacks(), verbose=0
    ).history
    assert len(history["loss"]) < 5


@pytest.mark.nightly
def test_in_a_keras_tuner_search(tmp_path, eager):
    import keras_tuner

    def build(hp):
        hp.Float("l2", 1e-4, 1e-1, sampling="log")
        return model_of()

    tuner = keras_tuner.RandomSearch(
        build,
        objective=keras_tuner.Objective("val_data_loss", "min"),
        max_trials=2,
        directory=tmp_path,
        project_name="search",
    )
    # keras-tuner deep-copies the callbacks for every trial
    callbacks = kregs.default_callbacks(patience=1)
    tuner.search(X, Y, validation_data=(X, Y), epochs=3, callbacks=callbacks, verbose=0)
    scores = [trial.score for trial in tuner.oracle.get_best_trials(2)]
    assert len(scores) == 2
    assert np.isfinite(scores).all()


def test_a_part_of_an_array_metric_can_be_monitored():
    callback = kregs.early_stopping("val_f1_1", patience=0, mode="max", restore_best_weights=False)
    callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    callback.on_train_begin()
    for epoch, value in enumerate([0.2, 0.5, 0.4]):
        callback.on_epoch_end(epoch, {"val_f1": np.array([0.9 - value, value])})
    assert callback.stopped_epoch == 2
