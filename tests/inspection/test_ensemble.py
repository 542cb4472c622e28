"""Ensembles of any models against the arithmetic on their predictions."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

import kregs

pytestmark = pytest.mark.usefixtures("eager")
L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")


def classifier(seed, *, units=3, activation="softmax", **options):
    keras.utils.set_random_seed(seed)
    r = kregs.Regularization(dropout=0.5, normalization="batch")
    body = kregs.mlp((4,), 5, units=(6,), regularization=r)
    inputs = keras.Input((4,))
    return keras.Model(inputs, L.Dense(units, activation, **options)(body(inputs)))


def predictions(models, x=X):
    return np.stack([model.predict(x, verbose=0) for model in models])


def test_the_mean_the_weighted_mean_and_the_vote():
    models = [classifier(seed) for seed in (1, 2, 3)]
    own = predictions(models)
    mean = kregs.ensemble(models)
    np.testing.assert_allclose(mean.predict(X, verbose=0), own.mean(axis=0), atol=1e-6)
    weighted = kregs.ensemble(models, weights=[3, 0, 1]).predict(X, verbose=0)
    np.testing.assert_allclose(weighted, 0.75 * own[0] + 0.25 * own[2], atol=1e-6)
    votes = kregs.ensemble(models, how="vote").predict(X, verbose=0)
    np.testing.assert_allclose(votes, np.eye(3)[own.argmax(axis=-1)].mean(axis=0), atol=1e-6)
    # copies: the models stay free
    models[0].set_weights([0 * w for w in models[0].get_weights()])
    np.testing.assert_allclose(mean.predict(X, verbose=0), own.mean(axis=0), atol=1e-6)
    assert not mean.compiled


def test_one_sigmoid_unit_votes_for_a_class():
    models = [classifier(seed, units=1, activation="sigmoid") for seed in (1, 2, 3)]
    votes = kregs.ensemble(models, how="vote").predict(X, verbose=0)
    own = predictions(models) > 0.5
    assert 0 < own.mean() < 1
    np.testing.assert_allclose(votes, own.mean(axis=0), atol=1e-6)
    logits = [classifier(seed, units=1, activation=None) for seed in (1, 2, 3)]
    with pytest.raises(ValueError, match="one output for each class, or a single sigmoid unit"):
        kregs.ensemble(logits, how="vote")
    for model in logits:
        model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    votes = kregs.ensemble(logits, how="vote").predict(X, verbose=0)
    np.testing.assert_allclose(votes, (predictions(logits) > 0).mean(axis=0), atol=1e-6)


def two_heads(seed, structure):
    keras.utils.set_random_seed(seed)
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    shared = L.Dense(4, dtype="mixed_float16")
    hidden = L.Concatenate()([shared(a), shared(shared(a)), b])
    first, second = L.Dense(1, name="first")(hidden), L.Dense(2, name="second")(hidden)
    if structure == "list":
        return keras.Model([a, b], [first, second])
    return keras.Model({"a": a, "b": b}, {"second": second, "first": first})


@pytest.mark.parametrize("structure", ["list", "dict"])
@pytest.mark.parametrize("weights", [None, (1, 3)])
def test_several_inputs_and_outputs(structure, weights):
    models = [two_heads(seed, structure) for seed in (1, 2)]
    for model in models:
        model.compile("sgd", {"first": "mse", "second": "mae"})
    other = RNG.normal(size=(20, 2)).astype("float32")
    x = [X, other] if structure == "list" else {"a": X, "b": other}
    y = {"first": np.zeros((20, 1)), "second": np.zeros((20, 2))}
    ensemble = kregs.ensemble(models, weights=weights)
    parts = [model.predict(x, verbose=0) for model in models]
    got = ensemble.predict(x, verbose=0)
    for key in (0, 1) if structure == "list" else ("first", "second"):
        expected = np.average([part[key] for part in parts], axis=0, weights=weights)
        np.testing.assert_allclose(got[key], expected, atol=1e-5)
    targets = list(y.values()) if structure == "list" else y
    loss = ensemble.evaluate(x, targets, verbose=0, return_dict=True)["loss"]
    first, second = (got[key] for key in ((0, 1) if structure == "list" else ("first", "second")))
    assert loss == pytest.approx((first**2).mean() + abs(second).mean(), rel=1e-4)


def test_one_model_is_itself():
    model = classifier(1)
    np.testing.assert_allclose(
        kregs.ensemble([model]).predict(X, verbose=0), predictions([model])[0], atol=1e-6
    )


@pytest.mark.nightly
def test_the_file_loads_without_kregs(tmp_path):
    sigmoids = [classifier(seed, units=1, activation="sigmoid") for seed in (1, 2)]
    ensembles = {
        "mean": kregs.ensemble([classifier(1), classifier(2)]),
        "vote": kregs.ensemble([classifier(1), classifier(2)], how="vote"),
        "binary": kregs.ensemble(sigmoids, how="vote"),
    }
    for name, model in ensembles.items():
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", X)
    script = (
        "import sys; sys.modules['kregs'] = None\n"
        "import keras, numpy as np\n"
        "for name in ('mean', 'vote', 'binary'):\n"
        "    model = keras.models.load_model(name + '.keras')\n"
        "    np.save(name + '.npy', model.predict(np.load('x.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    for name, model in ensembles.items():
        expected = model.predict(X, verbose=0)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-6)


def test_bad_calls():
    one, other = classifier(1), classifier(2, units=2)
    with pytest.raises(ValueError, match="`models` must hold at least one model"):
        kregs.ensemble([])
    with pytest.raises(TypeError, match="`models` must be a list of models"):
        kregs.ensemble(one)
    with pytest.raises(TypeError, match="`models` must be of Keras"):
        kregs.ensemble([one, "model.keras"])
    with pytest.raises(ValueError, match="the same input and output shapes"):
        kregs.ensemble([one, other])
    with pytest.raises(ValueError, match=r"`how` must be one of .* Did you mean 'mean'"):
        kregs.ensemble([one], how="means")
    with pytest.raises(ValueError, match='`weights` are for how="mean"'):
        kregs.ensemble([one], how="vote", weights=[1])
    with pytest.raises(ValueError, match=r"`weights` must be one number a model \(1\)"):
        kregs.ensemble([one], weights=[1, 2])
    with pytest.raises(TypeError, match="`weights` must be one number a model"):
        kregs.ensemble([one], weights=1)
    with pytest.raises(ValueError, match="without inputs"):
        kregs.ensemble([keras.Sequential([L.Dense(1)])])


def test_votes_of_logits_are_no_logits(eager):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    models = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(3)]
    for model in models:
        model.compile("sgd", loss)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    vote = kregs.ensemble(models, how="vote")
    assert not vote.compiled
    measured = kregs.calibration(vote, x, np.zeros(6, int))
    assert measured.confidence.mean() == pytest.approx(
        vote.predict(x, verbose=0).max(axis=1).mean()
    )
    assert kregs.ensemble(models).compiled


def test_regressions_do_not_vote_and_kinds_are_not_mixed(eager):
    def network(loss, activation=None):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation)])
        model.compile("sgd", loss)
        return model

    with pytest.raises(ValueError, match="a vote needs classifiers"):
        kregs.ensemble([network("mse"), network("mse")], how="vote")
    logits = network(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="`models` must put out one kind"):
        kregs.ensemble([logits, network("sparse_categorical_crossentropy", "softmax")])
