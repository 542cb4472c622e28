"""Callbacks replayed without validation rows: each model's copies act on that model alone."""

from __future__ import annotations

import copy
import warnings

import keras
import numpy as np
import pytest

from kregs.catalog.final_models import ModelGroup, train_and_score
from kregs.search.replay import replayed

RATES = [0.5, 0.25, 0.125]
X = np.linspace(-1.0, 1.0, 24, dtype="float32").reshape(12, 2)
Y = X.sum(axis=1)


class RateByValidation(keras.callbacks.Callback):
    """A user's own: divides the learning rate by 10 while `val_loss` falls."""

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] > 0:
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate / 10


class NotedRates(keras.callbacks.Callback):
    """Notes the learning rate of each epoch, in lists that its copies share."""

    def __init__(self, by_training):
        super().__init__()
        self.by_training = by_training

    def __deepcopy__(self, memo):
        return type(self)(self.by_training)

    def on_train_begin(self, logs=None):
        self.by_training.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.by_training[-1].append(float(self.model.optimizer.learning_rate))


def regressor(rate=0.1):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def test_every_model_s_copy_gives_way_to_the_recorded_rates():
    seen = []
    callbacks = [*replayed([RateByValidation()], RATES), NotedRates(seen)]
    group = ModelGroup(models=[regressor() for _ in "abc"], seeds=[1, 2, 3], epochs=3,
                       callbacks=callbacks)  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_and_score({"tuned": group}, (X, Y), None, log=[].append, batch_size=12)
    # the model's own in the first epoch, before the callback has asked
    assert seen == [[pytest.approx(rate) for rate in [0.1, 0.25, 0.125]]] * 3
    said = [w for w in caught if "RateByValidation watches 'val_loss'" in str(w.message)]
    assert len(said) == 3  # once a model


def test_a_population_gives_way_to_the_recorded_rates():
    said = []
    models = [regressor() for _ in "ab"]
    group = ModelGroup(models=models, seeds=[1, 2], epochs=3,
                       callbacks=replayed([RateByValidation()], RATES))  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_and_score({"tuned": group}, (X, Y), None, log=said.append, batch_size=12)
    assert said == []
    assert sum("RateByValidation watches 'val_loss'" in str(w.message) for w in caught) == 2
    assert [float(model.optimizer.learning_rate) for model in models] == [0.125, 0.125]


def test_what_one_copy_has_left_out_the_next_one_still_has():
    callbacks = replayed([RateByValidation()], RATES)
    first, second = copy.deepcopy(callbacks), copy.deepcopy(callbacks)
    with pytest.warns(UserWarning, match="RateByValidation"):
        first[0].on_epoch_end(0, {"loss": 1.0})
    assert first[-1].active
    assert not second[-1].active
    assert not callbacks[-1].active
    with pytest.warns(UserWarning, match="RateByValidation"):
        second[0].on_epoch_end(0, {"loss": 1.0})


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1),
    ],
)
def test_what_asks_for_no_validation_metric_trains_stacked(callback):
    said = []
    callbacks = replayed([keras.callbacks.EarlyStopping(), callback], RATES)
    assert [type(c) for c in callbacks] == [type(callback)]
    assert callbacks[0] is not callback
    models = [regressor() for _ in "ab"]
    group = ModelGroup(models=models, seeds=[1, 2], epochs=3, callbacks=callbacks)
    train_and_score({"tuned": group}, (X, Y), None, log=said.append, batch_size=12)
    assert said == []


def test_recorded_rates_take_the_place_of_one_that_watches_validation():
    for callbacks in (None, [keras.callbacks.ReduceLROnPlateau()]):
        seen = []
        model = regressor()
        model.fit(X, Y, epochs=4, batch_size=12, verbose=0,
                  callbacks=[*replayed(callbacks, RATES), NotedRates(seen)])  # fmt: skip
        assert seen == [pytest.approx([*RATES, RATES[-1]])]
    assert replayed([keras.callbacks.ReduceLROnPlateau()], []) == []  # none was recorded
