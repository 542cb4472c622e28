"""Paths and maps: against scikit-learn's RidgeCV and LassoCV on the same folds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, Ridge
from sklearn.model_selection import KFold, cross_val_score

import kregs
from kregs.search import RegularizationPath

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


@pytest.mark.nightly
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


def test_norms_are_means_over_the_same_folds(path):
    """Not of the fold that was easiest for each value."""
    for row in path.frame.itertuples():
        kernels = path.result.kernels(row.trial)
        assert len(kernels) == len(path.result.scores(row.trial)) == 2
        assert kernels["norm"].nunique() == 2  # else the mean were no other than each
        assert row.norm == pytest.approx(kernels["norm"].mean())
        assert row.nonzero == pytest.approx(kernels["nonzero"].mean())


def quick_path(build, *, search=None, **values):
    return kregs.regularization_path(
        build,
        X[:40],
        Y[:40],
        folds=2,
        epochs=1,
        search={"callbacks": [], **(search or {})},
        **values,
    )


def lasso_of_own(strength):
    class Own(keras.regularizers.Regularizer):
        def __call__(self, weights):
            return strength * keras.ops.sum(keras.ops.abs(weights))

        def get_config(self):
            return {}

    layers = [keras.Input((10,)), keras.layers.Dense(1, kernel_regularizer=Own())]
    return kregs.compile_model(keras.Sequential(layers), "mse")


def bounded(bound):
    regularization = kregs.Regularization(max_norm=bound)
    model = kregs.mlp((10,), 1, units=(4,), head_activation=None, regularization=regularization)
    return kregs.compile_model(model, "mse")


def wide(units):
    return kregs.compile_model(
        kregs.mlp((10,), 1, units=(int(units),), head_activation=None), "mse"
    )


def fast(rate):
    return kregs.compile_model(kregs.linear((10,), 1), "mse", learning_rate=rate)


@pytest.mark.parametrize(
    ("build", "values", "search", "end"),
    [
        (bounded, {"bound": [2.0, 0.5, 1.0]}, {}, "small"),
        (wide, {"units": [4, 2, 8]}, {}, "small"),
        (fast, {"rate": [0.01, 0.02, 0.04]}, {}, None),
        (lasso_of_own, {"strength": [0.1, 0.2, 0.4]}, {}, None),
        (lasso_of_own, {"strength": [0.1, 0.2, 0.4]}, {"restraint": ["strength"]}, "large"),
        (bounded, {"bound": [2.0, 0.5, 1.0]}, {"restraint": ["bound"]}, "large"),
        (fast, {"rate": [0.01, 0.02, 0.04]}, {"restraint": ["-rate"]}, "small"),
    ],
)
def test_a_path_knows_which_end_restrains(build, values, search, end):
    if build is lasso_of_own:
        search = {**search, "engine": "sequential"}
    path = quick_path(build, search=search, **values)
    (name,) = values
    table = path.frame.assign(standard_error=path.frame["validation"].max())  # all are as good
    restraint = search.get("restraint")
    wide_open = RegularizationPath(name, table, path.result, restraint)
    expected = {"small": min(values[name]), "large": max(values[name]), None: wide_open.best}
    assert wide_open.one_standard_error == expected[end]
    exact = RegularizationPath(name, table.assign(standard_error=0.0), path.result, restraint)
    assert exact.one_standard_error == exact.best == path.best


def test_a_path_is_restrained_by_its_own_hyperparameter():
    with pytest.raises(ValueError, match=r"must be its hyperparameter.*Received: \['l2'\]"):
        quick_path(bounded, bound=[1.0, 2.0], search={"restraint": ["l2"]})


def test_the_plot_shows_the_table(path, tmp_path):
    figure = path.plot(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 5000
    above, below, share = figure.axes
    (curve,) = [c for c in above.containers if "standard error" in c.get_label()]
    np.testing.assert_allclose(curve.lines[0].get_ydata().astype(float), path.frame["validation"])
    np.testing.assert_allclose(below.lines[0].get_ydata(), path.frame["norm"])
    np.testing.assert_allclose(share.lines[0].get_ydata(), 100 * path.frame["nonzero"])


@pytest.mark.nightly
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
