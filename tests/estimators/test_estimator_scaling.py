"""How estimators scale columns and targets: in training as in the model, and by what."""

from __future__ import annotations

import numpy as np
import pytest
from keras import Input, Model
from sklearn.datasets import load_iris
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


@pytest.mark.slow
def test_one_wild_number_does_not_spoil_a_preset():
    x, y = load_iris(return_X_y=True)
    spoilt = x.copy()
    spoilt[0] = 1e12
    model = kregs.KregsClassifier(epochs=20, random_state=0).fit(spoilt, y)
    assert model.score(x, y) > 0.9
    assert np.isfinite(model.predict_proba(np.full((1, 4), -1e30))).all()
