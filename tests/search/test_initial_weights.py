"""A search whose weights are drawn late: all that is measured and written as if drawn at once."""

from __future__ import annotations

import contextlib
import json

import h5py
import keras
import numpy as np
import pytest

import kregs
from kregs.population.undrawn import InitialWeights, UndrawnVariable
from kregs.search.storage import TRAINING_FILE

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(90, 6)).astype("float32")
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype("int32")


def build(hp):
    regularization = kregs.Regularization.from_hp(
        hp, base=kregs.Regularization(normalization="batch"), l2=(1e-6, 1e-2), dropout=(0.1, 0.6)
    )
    network = kregs.mlp((6,), 2, units=(8, 8), regularization=regularization)
    return kregs.compile_model(
        network,
        "sparse_categorical_crossentropy",
        learning_rate=hp.Float("learning_rate", 1e-3, 1e-1, sampling="log"),
        weight_decay=1e-3,
        metrics=["accuracy"],
    )


def build_on_frozen(hp):
    base = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8), keras.layers.BatchNormalization()]
    )
    base.trainable = False
    inputs = keras.Input((6,))
    x = keras.layers.Dropout(hp.Float("dropout", 0.1, 0.6))(base(inputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    return kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=0.01)


def searched(folder, build, **arguments):
    """Return what a search has measured and kept: scores, histories, facts and weights."""
    result = kregs.tune(
        build, X, Y, max_trials=4, epochs=3, seed=3, directory=folder, verbose=0, **arguments
    )
    weights = {}
    for path in sorted(folder.rglob("*.weights.h5")):
        with h5py.File(path) as file:
            found = weights[str(path.relative_to(folder))] = []
            file.visititems(
                lambda name, item, found=found: (
                    found.append((name, np.asarray(item).tolist()))
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    trials = [
        {**json.loads(path.read_text()), "seconds": None}
        for path in sorted(folder.rglob(TRAINING_FILE))
    ]
    assert len(trials) == 4
    return result, trials, weights


def counted(monkeypatch):
    """Return lists of what is made to be drawn late, and of what is drawn of it."""
    made, drawn = [], []
    wait, draw = UndrawnVariable.wait, UndrawnVariable._draw
    monkeypatch.setattr(UndrawnVariable, "wait", lambda *given: made.append(given) or wait(*given))
    monkeypatch.setattr(
        UndrawnVariable, "_draw", lambda variable: drawn.append(variable) or draw(variable)
    )
    return made, drawn


def test_the_space_is_found_without_a_draw(tmp_path, monkeypatch):
    made, drawn = counted(monkeypatch)
    tuner = kregs.PopulationTuner(build, "val_data_loss", max_trials=1, directory=tmp_path)
    space = tuner.oracle.get_space()
    assert {"l2", "dropout", "learning_rate"} <= {hp.name for hp in space.space}
    assert len(made) > 10
    assert drawn == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (build, {}),
        (build, {"folds": 3}),
        (build, {"seeds": 2}),
        (build_on_frozen, {}),
        (build, {"callbacks": [keras.callbacks.LearningRateScheduler(lambda epoch: 0.01)]}),
    ],
    ids=["split", "folds", "seeds", "frozen", "callbacks"],
)
def test_a_search_measures_and_keeps_the_same(tmp_path, monkeypatch, build, arguments):
    with monkeypatch.context() as counting:
        made, drawn = counted(counting)
        late, *measured = searched(tmp_path / "late", build, **arguments)
    monkeypatch.setattr(InitialWeights, "drawn_late", lambda self: contextlib.nullcontext())
    at_once, *expected = searched(tmp_path / "at once", build, **arguments)
    assert measured == expected
    for one, other in zip(late.best_model().weights, at_once.best_model().weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    # only the first model's are used: to learn its checkpoint's layout
    assert 0 < len(drawn) <= len(made) / (2 if build is build_on_frozen else 3)
