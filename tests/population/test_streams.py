"""Datasets streamed through a population, against Keras `fit` on the same dataset."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kregs import Population
from kregs.population import NotStackable
from kregs.population.rows import Stream

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 5)).astype("float32")
Y = RNG.integers(0, 3, 70)
WEIGHT = RNG.uniform(0.1, 2, 70).astype("float32")


def build(l2, schedule=False):
    rate = keras.optimizers.schedules.CosineDecay(0.1, 20) if schedule else 0.05
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L2(l2)),
            layers.BatchNormalization(),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.5),
        "sparse_categorical_crossentropy",
        metrics=["sparse_categorical_crossentropy"],
    )
    return model


def batches(*arrays, size=16):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


class Pieces(keras.utils.PyDataset):
    """Batches of 16 rows, the last of 6."""

    @property
    def num_batches(self):
        return 5

    def __getitem__(self, index):
        part = slice(16 * index, 16 * (index + 1))
        return X[part], Y[part]


DATASETS = {
    "pairs": lambda: batches(X, Y),
    "weighted": lambda: batches(X, Y, WEIGHT),
    "unknown length": lambda: batches(X, Y).filter(lambda x, y: True),
    "py_dataset": Pieces,
}


FIT = {"epochs": 3, "shuffle": False}
L2 = (0.0, 0.1)


@functools.lru_cache
def ends_of_keras(name):
    """Of each member the weights that Keras began and ended with, and its history."""
    ends = []
    for l2 in L2:
        model = build(l2, schedule=True)
        model.optimizer.build(model.trainable_variables)  # else Keras traces the step twice
        start = model.get_weights()
        validation = batches(X[:30], Y[:30])
        history = model.fit(DATASETS[name](), validation_data=validation, verbose=0, **FIT).history
        ends.append((start, model.get_weights(), history))
    return ends


@pytest.mark.parametrize(
    ("name", "accelerate"),
    [("pairs", True), ("weighted", False), ("unknown length", False), ("py_dataset", True)],
)
def test_members_end_where_fit_ends(double, name, accelerate):
    # of a dataset of unknown length Keras counts one step too many an epoch
    keras_ends = ends_of_keras("pairs" if name == "unknown length" else name)
    models = [build(l2, schedule=True) for l2 in L2]
    for model, (start, _, _) in zip(models, keras_ends, strict=True):
        model.set_weights(start)
    population = Population.from_models(models)
    fit = {"validation_data": batches(X[:30], Y[:30]), **FIT}
    histories = population.fit(DATASETS[name](), accelerate=accelerate, **fit)
    for model, history, (_, weights, expected) in zip(
        population.unstack(), histories, keras_ends, strict=True
    ):
        assert set(history) == set(expected)
        for metric, values in expected.items():
            np.testing.assert_allclose(history[metric], values, rtol=1e-5, err_msg=metric)
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_chunks_of_any_size_give_the_same():
    ends = []
    for chunk_bytes in (1, 1000, 10**6):
        stream = Stream(batches(X, Y), chunk_bytes=chunk_bytes)
        assert (stream.batch_size, stream.epoch_steps.in_pass, stream.row_shape) == (16, 5, (5,))
        steps = [index.shape for _, index in stream.chunks(padded=True)]
        assert len(set(steps)) == 1
        read = [rows.x.numpy()[index[index >= 0]] for rows, index in stream.chunks()]
        ends.append((len(steps), np.concatenate(read)))
    assert [count for count, _ in ends] == [5, 3, 1]
    for _, rows in ends:
        np.testing.assert_array_equal(rows, X)


def test_metrics_that_are_no_means_are_computed_over_the_stream():
    def build_binary():
        model = keras.Sequential([keras.Input((5,)), layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
        return model

    y = (X[:, :1] > 0).astype("float32")
    population = Population.from_models([build_binary()])
    (history,) = population.fit(batches(X, y), validation_data=batches(X[:30], y[:30]), epochs=2)
    (trained,) = population.unstack()
    expected = trained.evaluate(X[:30], y[:30], return_dict=True, verbose=0)
    assert history["val_auc"][-1] == pytest.approx(expected["auc"], abs=1e-6)


def test_class_weights_weigh_rows():
    heavy, plain = build(0.0), build(0.0)
    plain.set_weights(heavy.get_weights())
    weights = {0: 2.0, 1: 0.5, 2: 1.0}
    population = Population.from_models([heavy])
    (history,) = population.fit(batches(X, Y), class_weight=weights, accelerate=False)
    plain.optimizer.build(plain.trainable_variables)
    expected = plain.fit(batches(X, Y), class_weight=weights, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_a_py_dataset_is_shuffled_batch_by_batch():
    stream = Stream(Pieces(), batch_order=np.random.default_rng(0))
    orders = []
    for _ in range(3):
        (rows, index), *_ = stream.chunks()
        orders.append(rows.x.numpy()[index[index >= 0]])
    assert not np.array_equal(orders[0], orders[1])
    for order in orders:
        np.testing.assert_array_equal(np.sort(order[:, 0]), np.sort(X[:, 0]))


BAD = {
    "empty": (lambda: batches(X[:0], Y[:0]), ValueError, "at least one batch"),
    "endless": (lambda: batches(X, Y).repeat(), ValueError, "must end"),
    "no targets": (lambda: batches(X), NotStackable, "not \\(x, y\\)"),
    "several inputs": (
        lambda: tf.data.Dataset.from_tensor_slices(((X, X), Y)).batch(8),
        ValueError,
        "`x` must hold the inputs of this model, .* Received: 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_datasets(name):
    dataset, error, message = BAD[name]
    with pytest.raises(error, match=message):
        Population.from_models([build(0.0)]).fit(dataset())


def test_targets_beside_a_dataset():
    with pytest.raises(ValueError, match="`y` must be None"):
        Population.from_models([build(0.0)]).fit(batches(X, Y), Y)
