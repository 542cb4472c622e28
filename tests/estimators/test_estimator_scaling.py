"""How estimators scale columns and targets: in training as in the model, and by what."""

from __future__ import annotations

import numpy as np
import pytest
from keras import Input, Model
from sklearn.datasets import load_diabetes, load_iris
from sklearn.preprocessing import StandardScaler

import kregs
from kregs.builders.layer_factory import chain
from kregs.estimators.scaling import robust_scaling, standard_scaling
from kregs.tables.transformers import SmoothClipScaler

X = np.random.default_rng(0).standard_cauchy((40, 3)) * [1e6, 1.0, 1e-3] + [1e9, 0.0, 5.0]
X = np.column_stack([X, np.full(40, 2.5), np.arange(40) % 4])  # a constant, and codes


def applied(layers, x):
    columns = Input((x.shape[1],), dtype="float64")
    return np.asarray(Model(columns, chain(columns, layers))(x))


@pytest.mark.parametrize("scaling", [robust_scaling, standard_scaling])
def test_the_model_scales_as_training_does(scaling):
    arguments = (X,) if scaling is robust_scaling else (X, None)
    made = scaling(*arguments, columns=4)
    scaled = made.transform(X)
    np.testing.assert_allclose(applied(made.layers("standardize"), X), scaled, rtol=1e-5, atol=1e-7)
    reference = SmoothClipScaler() if scaling is robust_scaling else StandardScaler()
    np.testing.assert_allclose(scaled[:, :4], reference.fit_transform(X[:, :4]), rtol=1e-5)
    np.testing.assert_array_equal(scaled[:, 4], X[:, 4])
    np.testing.assert_array_equal(scaled[:, 3], 0.0)
    before = X.copy()
    made.transform(X)
    np.testing.assert_array_equal(X, before)


def test_targets_come_back():
    made = standard_scaling(X[:, :3], None)
    back = applied(made.layers("target_units", invert=True), made.transform(X[:, :3]))
    np.testing.assert_allclose(back, X[:, :3], rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-12, 1e-9, 1e12])
@pytest.mark.parametrize("scaling", [robust_scaling, standard_scaling])
def test_units_do_not_matter(scaling, factor):
    x = X[:, :3] - X[:, :3].mean(axis=0)
    arguments = (None,) if scaling is standard_scaling else ()
    expected = scaling(x, *arguments, columns=2).transform(x)
    made = scaling(x * [factor, 1.0, 1.0], *arguments, columns=2)
    np.testing.assert_allclose(made.transform(x * [factor, 1.0, 1.0]), expected, rtol=1e-5)
    layers = made.layers("standardize")
    np.testing.assert_allclose(applied(layers, x * [factor, 1.0, 1.0]), expected, rtol=1e-5)
    back = standard_scaling(x * factor, None)
    found = applied(back.layers("target_units", invert=True), back.transform(x * factor))
    np.testing.assert_allclose(found / factor, x, rtol=1e-4, atol=1e-6 * np.abs(x).max())


def test_a_finite_number_stays_finite():
    x = np.random.default_rng(0).normal(size=(40, 1)) * 1e-10
    x[0] = 1e300
    scaled = robust_scaling(x, columns=1).transform(x)
    assert np.isfinite(scaled).all()
    assert scaled[0] == pytest.approx(3.0)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["preset", kregs.mlp])
def test_a_model_does_not_depend_on_units(network):
    x, y = load_diabetes(return_X_y=True)
    scores = [
        kregs.KregsRegressor(
            (16,), network=network, folds=2, epochs=20, learning_rate=0.01, random_state=0
        )
        .fit(x * factor, y * factor)
        .score(x * factor, y * factor)
        for factor in (1.0, 1e-12)
    ]
    assert scores[0] > 0.3
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.slow
def test_one_wild_number_does_not_spoil_a_preset():
    x, y = load_iris(return_X_y=True)
    spoilt = x.copy()
    spoilt[0] = 1e12
    model = kregs.KregsClassifier(epochs=20, random_state=0).fit(spoilt, y)
    assert model.score(x, y) > 0.9
    assert np.isfinite(model.predict_proba(np.full((1, 4), -1e30))).all()
