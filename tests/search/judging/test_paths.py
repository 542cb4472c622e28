"""Paths and maps: against scikit-learn's RidgeCV and LassoCV on the same folds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import KFold, cross_val_score

import kregs

X, Y = load_diabetes(return_X_y=True)
# uncorrelated columns, so that a few steps of gradient descent reach the optimum
X = np.linalg.svd(X[:200] - X[:200].mean(0), full_matrices=False)[0].astype("float32") * 200**0.5
Y = ((Y - Y.mean()) / Y.std()).astype("float32")[:200]
FOLDS = KFold(4, shuffle=True, random_state=0)
TRAIN = 150  # rows of each fold
GRID = np.logspace(-3, 0, 6)
EPOCHS = 70


def make_build(penalty):
    def build(**values):
        regularization = kregs.Regularization(**{penalty: values[penalty]})
        model = kregs.linear((10,), 1, regularization=regularization)
        rate = keras.optimizers.schedules.ExponentialDecay(0.3, 1, 0.88)
        return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=rate)

    return build


def expected(penalty):
    """Mean and standard error of scikit-learn's errors at each λ of Keras."""
    means, errors = [], []
    for value in GRID:
        # Keras adds l2 * w² to the mean of squares, scikit-learn alpha * w² to their sum;
        # Lasso halves the mean of squares
        model = Ridge(value * TRAIN) if penalty == "l2" else Lasso(value / 2)
        scores = -cross_val_score(model, X, Y, cv=FOLDS, scoring="neg_mean_squared_error")
        means.append(scores.mean())
        errors.append(scores.std(ddof=1) / 2)
    return np.array(means), np.array(errors)


@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_the_rule_of_cv_glmnet_agrees_with_scikit_learn(penalty):
    path = kregs.regularization_path(
        make_build(penalty), X, Y, folds=FOLDS, epochs=EPOCHS,
        search={"batch_size": TRAIN, "callbacks": [], "score_at": "last_epoch"},
        **{penalty: GRID},
    )  # fmt: skip
    means, errors = expected(penalty)
    np.testing.assert_allclose(path.frame["validation"], means, rtol=1e-2)
    np.testing.assert_allclose(path.frame["standard_error"], errors, rtol=3e-2)
    best = means.argmin()
    assert path.best == pytest.approx(GRID[best])
    within = means <= means[best] + errors[best]
    assert path.one_standard_error == pytest.approx(GRID[within].max())
    assert path.one_standard_error >= path.best
    norms = path.frame["norm"].to_numpy()
    assert (np.diff(norms[2:]) < 0).all()
    if penalty == "l1":
        assert path.frame["nonzero"].iloc[-1] < 0.5 < path.frame["nonzero"].iloc[0]


@pytest.fixture(scope="module")
def path():
    def build(dropout):
        r = kregs.Regularization(dropout=dropout)
        model = kregs.mlp((10,), 1, units=(8,), head_activation=None, regularization=r)
        return kregs.compile_model(model, "mse")

    return kregs.regularization_path(build, X, Y, folds=2, epochs=2, dropout=[0.4, 0.0, 0.2])


def test_the_path_is_of_any_number_in_increasing_order(path):
    assert path.frame["dropout"].tolist() == [0.0, 0.2, 0.4]
    assert path.best in (0.0, 0.2, 0.4)
    assert path.one_standard_error >= path.best
    assert "3 values of dropout" in repr(path)
    assert path.frame["train"].notna().all()


def test_the_plot_shows_the_table(path, tmp_path):
    figure = path.plot(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 5000
    above, below, share = figure.axes
    (curve,) = [c for c in above.containers if "standard error" in c.get_label()]
    np.testing.assert_allclose(curve.lines[0].get_ydata().astype(float), path.frame["validation"])
    np.testing.assert_allclose(below.lines[0].get_ydata(), path.frame["norm"])
    np.testing.assert_allclose(share.lines[0].get_ydata(), 100 * path.frame["nonzero"])


def test_a_map_of_two_numbers(tmp_path):
    def build(l2, dropout):
        r = kregs.Regularization(l2=l2, dropout=dropout)
        model = kregs.mlp((10,), 1, units=(8,), head_activation=None, regularization=r)
        return kregs.compile_model(model, "mse")

    found = kregs.validation_map(
        build, X, Y, folds=2, epochs=1, l2=[0, 1e-4, 1e-1], dropout=[0.1, 0.3], directory=tmp_path
    )
    assert found.table().shape == (3, 2)
    assert found.table().loc[found.best["l2"], found.best["dropout"]] == found.table().min().min()
    found.plot(tmp_path / "map.png")
    again = kregs.validation_map(  # the search is there: nothing is trained again
        build, X, Y, folds=2, epochs=1, l2=[0, 1e-4, 1e-1], dropout=[0.1, 0.3], directory=tmp_path
    )
    assert again.table().equals(found.table())


def one(**values):
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    return kregs.compile_model(model, "mse")


@pytest.mark.parametrize(
    ("function", "values", "error", "words"),
    [
        (kregs.regularization_path, {}, TypeError, "1 hyperparameter by name"),
        (kregs.regularization_path, {"l1": [0, 1], "l2": [0, 1]}, TypeError, "Received: l1, l2"),
        (kregs.validation_map, {"l1": [0, 1]}, TypeError, "2 hyperparameters by name"),
        (kregs.regularization_path, {"l2": [0.1]}, ValueError, "at least 2 different"),
        (kregs.regularization_path, {"l2": [0.1, 0.1]}, ValueError, "at least 2 different"),
        (kregs.regularization_path, {"l2": [0.1, -1]}, ValueError, "`l2` must be"),
        (kregs.regularization_path, {"l2": [0.1, np.nan]}, ValueError, "`l2` must be"),
    ],
)
def test_bad_values(function, values, error, words):
    with pytest.raises(error, match=words):
        function(one, X, Y, **values)
