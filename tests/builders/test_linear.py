"""`linear` against scikit-learn."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import sklearn.linear_model as reference
import tensorflow as tf
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.preprocessing import StandardScaler

import kregs
from kregs import Regularization

STEPS = 3000


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(x), (y - y.mean()) / y.std()


def train(model, x, y, *, loss, learning_rate):
    """Run full-batch gradient descent with momentum, the rate falling to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, STEPS)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.95, nesterov=True)
    model.compile(optimizer, loss=loss, steps_per_execution=100)
    data = tf.data.Dataset.from_tensors((x.astype("float32"), y.reshape(-1, 1))).cache().repeat()
    model.fit(data, epochs=1, steps_per_epoch=STEPS, shuffle=False, verbose=0)
    kernel, bias = model.get_weights()
    return kernel[:, 0], bias[0]


def assert_same_fit(found, expected):
    coefficients, intercept = found
    target = expected.coef_.ravel()
    used = target != 0
    np.testing.assert_allclose(coefficients[used], target[used], rtol=1e-2)
    np.testing.assert_allclose(intercept, np.squeeze(expected.intercept_), rtol=1e-2, atol=1e-3)
    # what the lasso drops is near zero here
    assert np.abs(coefficients[~used]).max(initial=0) < 1e-3 * np.abs(target).max()


N = 442
REGRESSIONS = {
    "ordinary": (reference.LinearRegression(), {}),
    "ridge": (reference.Ridge(alpha=30.0), {"l2": 30.0 / N}),
    "lasso": (reference.Lasso(alpha=0.05), {"l1": 2 * 0.05}),
    "elastic_net": (
        reference.ElasticNet(alpha=0.2, l1_ratio=0.3),
        {"l1": 2 * 0.2 * 0.3, "l2": 0.2 * (1 - 0.3)},
    ),
}


@pytest.mark.parametrize(("model", "penalty"), REGRESSIONS.values(), ids=REGRESSIONS.keys())
def test_regressions_on_diabetes(model, penalty):
    x, y = diabetes()
    expected = model.fit(x, y)
    built = kregs.linear(x.shape[1:], regularization=Regularization(**penalty))
    assert_same_fit(train(built, x, y, loss="mse", learning_rate=0.05), expected)
    if "l1" in penalty:
        assert 0 < np.count_nonzero(expected.coef_) < 10  # else the case shows nothing


def test_logistic_regression():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    expected = reference.LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(x, y)
    built = kregs.linear(
        x.shape[1:],
        regularization=Regularization(l2=1 / (2 * 0.1 * len(x))),
        head_activation="sigmoid",
    )
    assert_same_fit(train(built, x, y, loss="binary_crossentropy", learning_rate=0.1), expected)


def test_starts_at_zero_and_is_sequential():
    model = kregs.linear((4, 2), 3)
    assert isinstance(model, keras.Sequential)
    assert model.count_params() == 8 * 3 + 3
    assert not np.asarray(model(np.ones((2, 4, 2), "float32"))).any()
    assert kregs.linear((4,), use_bias=False).count_params() == 4
