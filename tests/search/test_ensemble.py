"""Ensembles: one file of stock layers, against the arithmetic on the members' predictions."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import kregs
from kregs.search.ensemble import data_loss_of, greedy_weights, kept_models

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
TRAIN, HELD = (X[:400], Y[:400]), (X[400:700], Y[400:700])


def build(hp):
    r = kregs.Regularization.from_hp(hp, l2=(1e-6, 1e-2), dropout=(0.0, 0.5))
    model = kregs.mlp((64,), 10, units=(16,), regularization=r)
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", learning_rate=1e-2, metrics=["accuracy"]
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return kregs.tune(
        build, *TRAIN, validation_data=HELD, max_trials=6, epochs=6, keep=4, verbose=0,
        directory=tmp_path_factory.mktemp("ensemble"),
    )  # fmt: skip


def members(result):
    return np.stack([m.predict(HELD[0], verbose=0) for m in kept_models(result)])


def test_the_mean_and_the_vote(result):
    own = members(result)
    assert len(own) == 4
    mean = result.ensemble(3).predict(HELD[0], verbose=0)
    np.testing.assert_allclose(mean, own[:3].mean(0), atol=1e-5)
    votes = result.ensemble(3, method="vote").predict(HELD[0], verbose=0)
    np.testing.assert_allclose(votes, np.eye(10)[own[:3].argmax(-1)].mean(0), atol=1e-5)


def test_the_greedy_choice_is_never_worse_than_the_best_member(result):
    ensemble = result.ensemble(8, method="greedy", x=HELD[0], y=HELD[1])
    loss = keras.losses.SparseCategoricalCrossentropy()
    own = members(result)
    singles = [float(loss(HELD[1], p)) for p in own]
    together = float(loss(HELD[1], ensemble.predict(HELD[0], verbose=0)))
    assert together <= min(singles) + 1e-6
    counts = greedy_weights(own, HELD[1], loss, size=8)
    assert counts.sum() == 8
    mean = np.tensordot(counts / 8, own, 1)
    np.testing.assert_allclose(ensemble.predict(HELD[0], verbose=0), mean, atol=1e-5)


@pytest.mark.nightly  # a process; builders' files are loaded without kregs in the quick tests
def test_one_file_that_loads_without_kregs(result, tmp_path):
    ensembles = {method: result.ensemble(3, method=method) for method in ("mean", "vote")}
    for method, ensemble in ensembles.items():
        ensemble.save(tmp_path / f"{method}.keras")
    np.save(tmp_path / "x.npy", HELD[0])
    script = (
        "import sys; sys.modules['kregs'] = None\n"
        "import keras, numpy as np\n"
        "for method in ('mean', 'vote'):\n"
        "    model = keras.models.load_model(method + '.keras', compile=False)\n"
        "    np.save(method + '.npy', model.predict(np.load('x.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    for method, ensemble in ensembles.items():
        expected = ensemble.predict(HELD[0], verbose=0)
        np.testing.assert_allclose(np.load(tmp_path / f"{method}.npy"), expected, atol=1e-5)


def test_the_ensemble_is_compiled_and_the_members_stay_free(result):
    ensemble = result.ensemble(2)
    scores = ensemble.evaluate(*HELD, verbose=0, return_dict=True)
    assert scores["accuracy"] > 0.5
    before = kept_models(result)[0].get_weights()
    ensemble.fit(*HELD, verbose=0)
    for one, other in zip(before, kept_models(result)[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bad_calls(result):
    with pytest.raises(ValueError, match="at most the number of trials that kept their weights, 4"):
        result.ensemble(5)
    with pytest.raises(ValueError, match="`method` must be one of"):
        result.ensemble(2, method="median")
    with pytest.raises(ValueError, match="needs both"):
        result.ensemble(2, method="greedy")
    with pytest.raises(ValueError, match="pass it to"):
        kregs.load_result(result.path).ensemble(2)


def test_models_with_a_loss_of_their_own_are_combined():
    def squared(y, prediction):
        return keras.ops.mean((y - prediction) ** 2, axis=-1)

    def spread(y, prediction):
        return keras.ops.std(prediction)

    models = []
    for k in (1, 0):
        keras.utils.set_random_seed(k)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1), squared, metrics=[spread])
        models.append(model)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    y = np.zeros((8, 2), "float32")
    logs = kregs.ensemble(models).evaluate(x, y, verbose=0, return_dict=True)
    mean = np.mean([model.predict(x, verbose=0) for model in models], axis=0)
    assert logs["loss"] == pytest.approx(float((mean**2).mean()), rel=1e-5)
    predictions = np.stack([model.predict(x, verbose=0) for model in models])
    counts = greedy_weights(predictions, y, data_loss_of(models[0]), size=3)
    assert counts.sum() == 3


def test_a_greedy_choice_is_by_the_loss_without_smoothing():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(label_smoothing=0.4))
    sure, unsure = np.full((2, 4, 2), [[[0.95, 0.05]], [[0.8, 0.2]]], "float32")
    y = np.tile([1.0, 0.0], (4, 1)).astype("float32")
    assert float(model.loss(y, unsure)) < float(model.loss(y, sure))
    counts = greedy_weights(np.stack([unsure, sure]), y, data_loss_of(model), size=1)
    assert counts.tolist() == [0, 1]
