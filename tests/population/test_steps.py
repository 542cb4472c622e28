"""`steps_per_epoch`, `validation_steps` and the like: the same rows an epoch as Keras `fit` has."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kregs import Population
from kregs.population import NotStackable
from kregs.population.rows import Stream
from kregs.population.steps import EpochSteps

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 5)).astype("float32")
Y = RNG.normal(size=70).astype("float32")
HELD = RNG.normal(size=(30, 5)).astype("float32"), RNG.normal(size=30).astype("float32")
PENALTIES = (0.0, 0.1)


def build(l2, per_execution=1):
    regularizer = keras.regularizers.L2(l2)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, kernel_regularizer=regularizer)])
    rate = keras.optimizers.schedules.CosineDecay(0.1, 12)  # of each step another
    optimizer = keras.optimizers.SGD(rate, momentum=0.5)
    model.compile(optimizer, "mse", metrics=["mae"], steps_per_execution=per_execution)
    return model


def batches(x=X, y=Y, size=16):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


class Pieces(keras.utils.PyDataset):
    """Batches of 16 rows: five, the last of 6; or without end."""

    def __init__(self, *, endless=False):
        super().__init__()
        self.endless = endless
        self.told = []

    @property
    def num_batches(self):
        return None if self.endless else 5

    def __getitem__(self, index):
        part = slice(16 * (index % 5), 16 * (index % 5 + 1))
        return X[part], Y[part]

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


# what is trained on, and arguments of `fit` beside it
CASES = {
    "arrays": (lambda: (X, Y), {"batch_size": 16, "steps_per_epoch": 2}),
    "as many as there are": (lambda: (X, Y), {"batch_size": 14, "steps_per_epoch": 5}),
    "more than there are": (lambda: (X, Y), {"batch_size": 16, "steps_per_epoch": 7}),
    "no batch size": (lambda: (X, Y), {"steps_per_epoch": 3}),
    "held-out steps": (lambda: (X, Y), {"validation_steps": 2, "validation_batch_size": 8}),
    "held-out steps, no batch size": (lambda: (X, Y), {"validation_steps": 4}),
    "more held-out steps than there are": (
        lambda: (X, Y),
        {"validation_steps": 9, "batch_size": 8},
    ),
    "dataset": (lambda: (batches(), None), {"steps_per_epoch": 2}),
    "repeated": (lambda: (batches().repeat(), None), {"steps_per_epoch": 3}),
    "repeated, of unknown length": (
        lambda: (batches().filter(lambda x, y: True).repeat(), None),
        {"steps_per_epoch": 3},
    ),
    "held-out dataset": (
        lambda: (X, Y),
        {"validation_data": batches(*HELD, size=4).repeat(), "validation_steps": 3},
    ),
    "py_dataset": (lambda: (Pieces(), None), {"steps_per_epoch": 2}),
    "endless py_dataset": (lambda: (Pieces(endless=True), None), {"steps_per_epoch": 4}),
    "executions": (lambda: (X, Y), {"steps_per_epoch": 3, "batch_size": 16, "executions": 2}),
    "first epoch": (lambda: (X, Y), {"steps_per_epoch": 2, "batch_size": 16, "initial_epoch": 2}),
    "validation frequency": (lambda: (X, Y), {"validation_freq": 2}),
    "validated epochs": (lambda: (X, Y), {"validation_freq": [1, 4]}),
    "validation split": (lambda: (X, Y), {"validation_data": None, "validation_split": 0.3}),
    "weighted validation split": (
        lambda: (X, Y),
        {"validation_data": None, "validation_split": 0.3, "sample_weight": np.abs(Y)},
    ),
}  # fmt: skip


# the promise is seen on every commit by these
_ON_EVERY_COMMIT = (
    "arrays", "no batch size", "held-out steps", "repeated", "py_dataset", "executions",
    "validation frequency",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=getattr(pytest.mark, tier))
        for name in CASES
        for tier in ["slow" if name in _ON_EVERY_COMMIT else "nightly"]
    ],
)
def test_epochs_are_those_of_keras(name):
    make, given = CASES[name]
    fit = {"epochs": 5, "shuffle": False, "validation_data": HELD, **given}
    per_execution = fit.pop("executions", 1)
    models = [build(l2, per_execution) for l2 in PENALTIES]
    starts = [model.get_weights() for model in models]
    population = Population.from_models(models)
    histories = population.fit(*make(), **fit)
    own = build(PENALTIES[1], per_execution)
    if per_execution == 1:  # else Keras has other steps
        own.run_eagerly = True
    own.set_weights(starts[1])
    expected = own.fit(*make(), verbose=0, **fit).history
    assert set(histories[1]) == set(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(histories[1][metric], values, rtol=2e-5, err_msg=metric)
    for one, other in zip(population[1].get_weights(), own.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("in_pass", "per_epoch"), [(5, None), (5, 2), (4, 2), (3, 7), (None, 3)])
def test_steps_of_epochs(in_pass, per_epoch):
    steps = EpochSteps(in_pass, per_epoch)
    taken = 0
    for epoch in range(7):
        assert steps.before(epoch) == taken
        if in_pass is not None:
            assert steps.first(epoch) == taken % in_pass
        taken += steps.count(epoch)


def test_shuffled_epochs_of_a_pass_are_all_its_rows():
    models = [build(0.0) for _ in range(2)]
    for model in models:  # each epoch logs the mean of its targets
        model.compile(keras.optimizers.SGD(0.0), lambda y, prediction: y + 0 * prediction)
    population = Population.from_models(models, seeds=[0, 1])
    fit = {"batch_size": 16, "steps_per_epoch": 2, "epochs": 6}
    one, other = (np.array(history["loss"]) for history in population.fit(X, Y, **fit))
    rows = [32, 32, 6]
    for means in (one[:3], one[3:], other[:3]):
        assert means @ rows == pytest.approx(Y.sum(), rel=1e-4)
    for means in (one[3:], other[:3]):  # of another pass, of another seed
        assert abs(means - one[:3]).min() > 1e-3


@pytest.mark.slow
def test_hooks_of_a_dataset_are_called_by_epoch():
    data = Pieces()
    Population.from_models([build(0.0)]).fit(data, steps_per_epoch=2, epochs=4)
    assert data.told == ["begin", "end"] * 4


@pytest.mark.slow
def test_a_member_begins_where_the_dataset_does():
    models = [build(l2) for l2 in (0.0, 0.0, 0.0)]
    start = models[0].get_weights()
    for model in models:
        model.set_weights(start)
    population = Population.from_models(models)
    histories = population.fit(
        batches().repeat(), steps_per_epoch=3, epochs=[1, 3, 3], max_members=2, shuffle=False
    )
    # the third waits for the second, and then reads from the first batch
    assert histories[2] == histories[1]
    assert histories[0]["loss"] == histories[1]["loss"][:1]


def test_a_dataset_that_runs_out_is_said():
    data = batches().filter(lambda x, y: True)
    with pytest.raises(NotStackable, match=r"ended after 1 of the 2 steps .* `.repeat\(\)` it"):
        Population.from_models([build(0.0)]).fit(data, steps_per_epoch=2, epochs=9)
    with pytest.raises(ValueError, match="must end, or the steps"):
        Stream(batches().repeat())


@pytest.mark.slow
def test_order_goes_on_over_calls_that_count_on():
    whole, parts = (Population.from_models([build(0.1)], seeds=3) for _ in range(2))
    parts.models[0].set_weights(whole.models[0].get_weights())
    at_once = whole.fit(X, Y, epochs=4, validation_data=HELD)[0]
    parts.fit(X, Y, epochs=1, validation_data=HELD)
    rest = parts.fit(X, Y, epochs=4, initial_epoch=1, validation_data=HELD)[0]
    np.testing.assert_allclose(rest["val_loss"], at_once["val_loss"][1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("fit", "error", "message"),
    [
        ({"steps_per_epoch": 0}, ValueError, "`steps_per_epoch`"),
        ({"validation_steps": 1.5}, TypeError, "`validation_steps`"),
        ({"initial_epoch": 2, "epochs": 2}, ValueError, "`initial_epoch` must be below"),
        ({"validation_split": 1.0}, ValueError, "`validation_split`"),
        ({"validation_split": 0.99}, ValueError, "`validation_split` must leave rows"),
        ({"validation_freq": 0}, ValueError, "`validation_freq`"),
        ({"validation_freq": "2"}, TypeError, "`validation_freq`"),
        ({"verbose": 3}, ValueError, "`verbose`"),
    ],
)
def test_bad_arguments(fit, error, message):
    with pytest.raises(error, match=message):
        Population.from_models([build(0.0)]).fit(X, Y, **fit)


@pytest.mark.parametrize("verbose", [0, 1, "auto", 2])
def test_what_is_printed(verbose, capsys):
    models = [build(l2) for l2 in PENALTIES]
    population = Population.from_models(models)
    histories = population.fit(X, Y, epochs=3, verbose=verbose, validation_data=HELD)
    printed = capsys.readouterr().out
    if verbose == 0:
        assert printed == ""
    elif verbose == 2:
        lines = printed.splitlines()
        assert len(lines) == 6
        assert lines[0].startswith("member 0 - epoch 1/3 - loss: ")
        assert f"val_loss: {histories[1]['val_loss'][2]:.4f}" in lines[-1]
    else:
        mean = np.mean([history["loss"][-1] for history in histories])
        assert "6/6" in printed
        assert f"loss: {mean:.4f}" in printed


# ---- evaluate and predict ------------------------------------------------------------------


def rows_only():
    return tf.data.Dataset.from_tensor_slices(X).batch(16)


EVALUATED = {
    "dataset": (lambda: (batches(),), {}),
    "py_dataset": (lambda: (Pieces(),), {}),
    "repeated": (lambda: (batches().repeat(),), {"steps": 3}),
    "steps of arrays": (lambda: (X, Y), {"steps": 2, "batch_size": 16}),
    "steps, no batch size": (lambda: (X, Y), {"steps": 3}),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluate_and_predict_as_keras(name):
    make, given = EVALUATED[name]
    models = [build(l2) for l2 in PENALTIES]
    for model in models:
        model.run_eagerly = True
    population = Population.from_models(models)
    values = population.evaluate(*make(), **given)
    predictions = population.predict(make()[0], **given)
    for k, model in enumerate(models):
        expected = model.evaluate(*make(), **given, verbose=0, return_dict=True)
        for metric, value in expected.items():
            assert values[metric][k] == pytest.approx(value, rel=1e-5)
        expected = model.predict(make()[0], **given, verbose=0)
        np.testing.assert_allclose(predictions[k], expected, rtol=1e-5, atol=1e-6)


def test_predict_takes_a_dataset_without_targets():
    models = [build(l2) for l2 in PENALTIES]
    predictions = Population.from_models(models).predict(rows_only())
    np.testing.assert_allclose(predictions[1], models[1].predict(X, verbose=0), rtol=1e-5)


@pytest.mark.slow
def test_a_metric_of_all_rows_over_a_dataset():
    def classifier():
        model = keras.Sequential([keras.Input((5,)), layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
        return model

    models = [classifier(), classifier()]
    labels = (Y > 0).astype("float32")
    values = Population.from_models(models).evaluate(batches(X, labels))
    expected = [model.evaluate(X, labels, verbose=0, return_dict=True)["auc"] for model in models]
    np.testing.assert_allclose(values["auc"], expected, rtol=1e-5)


def test_saving_into_no_folder_names_it(tmp_path):
    population = Population.from_models([build(0.0)])
    with pytest.raises(FileNotFoundError, match=r"no .*missing"):
        population.save(tmp_path / "missing" / "population.zip")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_callbacks_are_told_the_steps():
    told = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append(dict(self.params))

    Population.from_models([build(0.0)]).fit(
        X, Y, batch_size=16, steps_per_epoch=2, epochs=3, verbose=2, callbacks=[[Note()]]
    )
    assert told == [{"verbose": 2, "epochs": 3, "steps": 2}]
