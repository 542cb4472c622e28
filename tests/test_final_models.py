"""Final models: the same scores stacked or one by one, as Keras's own `fit` and `evaluate` say."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kregs.catalog.final_models import ModelGroup, train_and_score

SEEDS = [7, 8]


@pytest.fixture
def data():
    """A rare class 1, so that balanced weights are far from 1."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(64, 3)).astype("float32")
    return x, (x[:, 0] > 0.8).astype("int32")


def classifier(seed, *, loss="sparse_categorical_crossentropy", metrics=()):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.3), loss, metrics=list(metrics))
    return model


def scores_of(models, data, said, **options):
    group = ModelGroup(models=models, seeds=SEEDS, epochs=2, callbacks=options.pop("callbacks", ()))
    return train_and_score({"tuned": group}, data, data, log=said.append, **options)["tuned"]


@pytest.mark.parametrize("stacked", [True, False])
def test_a_metric_that_is_an_array_has_a_score_for_each_part(data, stacked):
    x, y = data
    data = x, np.eye(2, dtype="float32")[y]
    models = [
        classifier(seed, loss="categorical_crossentropy", metrics=[keras.metrics.F1Score()])
        for seed in SEEDS
    ]
    said = []
    scores = scores_of(models, data, said, stacked=stacked, batch_size=16)
    assert said == []
    for model, values in zip(models, scores, strict=True):
        f1 = model.evaluate(*data, verbose=0, return_dict=True)["f1_score"]
        assert f1[0] != f1[1]
        assert [values["f1_score_0"], values["f1_score_1"]] == pytest.approx(f1.tolist(), abs=1e-6)
        assert "f1_score" not in values


def test_an_array_of_a_failed_model_is_all_nan(data):
    x, y = data
    data = x, np.eye(2, dtype="float32")[y]
    models = [
        classifier(seed, loss="categorical_crossentropy", metrics=[keras.metrics.F1Score()])
        for seed in SEEDS
    ]
    kernel = models[1].layers[-1].kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    said = []
    good, failed = scores_of(models, data, said, batch_size=16)
    assert [line for line in said if "tuned model of seed 8 failed" in line]
    assert set(failed) == set(good) >= {"f1_score_0", "f1_score_1"}
    assert np.isnan(list(failed.values())).all()
    assert np.isfinite(list(good.values())).all()


def test_balanced_classes_of_models_trained_one_by_one(data):
    """The weights of the classes are scikit-learn's formula: n / (classes * rows of the class)."""
    x, y = data
    models = [classifier(seed) for seed in SEEDS]
    scores_of(models, data, [], stacked=False, class_weight="balanced", batch_size=16)
    weights = {label: len(y) / (2 * (y == label).sum()) for label in (0, 1)}
    assert weights[1] > 2 * weights[0]
    for seed, model in zip(SEEDS, models, strict=True):
        other = classifier(seed)
        keras.utils.set_random_seed(seed)
        other.fit(x, y, epochs=2, batch_size=16, class_weight=weights, verbose=0)
        for weight, expected in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
