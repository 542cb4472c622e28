"""`kregs.feature_selection`: the lasso's choices in each fold, their frequencies, the bound."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.preprocessing import StandardScaler

import kregs
from kregs.inspection import feature_selection as feature_selection_module
from kregs.inspection.feature_selection import FeatureSelection

L = keras.layers


def linear(l1, features=10, rate=0.1):
    layers = [keras.Input((features,)), L.Dense(1, kernel_initializer="zeros")]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.SGD(rate)
    model.compile(kregs.proximal(optimizer, l1=l1), "mse")
    return model


@pytest.fixture(scope="module")
def diabetes():
    frame, y = load_diabetes(return_X_y=True, as_frame=True)
    x = pd.DataFrame(StandardScaler().fit_transform(frame), columns=frame.columns)
    return x.astype("float32"), ((y - y.mean()) / y.std()).to_numpy("float32")


@pytest.fixture(scope="module")
def selection(diabetes):
    x, y = diabetes
    return kregs.feature_selection(
        linear, x, y, folds=4, epochs=400, batch_size=500, seed=3, l1=[1.0, 0.1, 0.3, 0.6]
    )


@pytest.mark.nightly
def test_each_fold_keeps_what_scikit_learns_lasso_keeps(diabetes, selection):
    x, y = (part.astype("float64") for part in diabetes)  # float32 does not reach the tolerance
    splits = KFold(4, shuffle=True, random_state=3).split(x)
    for fold, (rows, _) in enumerate(splits):
        for place, l1 in enumerate([0.1, 0.3, 0.6, 1.0]):
            theirs = Lasso(alpha=l1 / 2, tol=1e-8).fit(x.iloc[rows], y[rows])
            kept = selection.kept[fold, place]
            assert kept.tolist() == (theirs.coef_ != 0).tolist(), (fold, l1)
    assert 0 < selection.kept.mean() < 1


def test_frequencies_are_shares_of_folds(diabetes, selection):
    assert selection.frequency.columns.tolist() == [0.1, 0.3, 0.6, 1.0]
    assert selection.frequency.index.tolist() == diabetes[0].columns.tolist()
    for place, l1 in enumerate(selection.frequency.columns):
        share = selection.kept[:, place].mean(axis=0)
        np.testing.assert_array_equal(selection.frequency[l1], share)
    # bmi and s5 (triglycerides) are the first to enter the lasso's path (Efron et al. 2004)
    assert set(selection.selected) == {"bmi", "s5"}
    assert selection.to_frame()["feature"].tolist()[:2] in (["bmi", "s5"], ["s5", "bmi"])


def made_up(kept, **changes):
    kept = np.array(kept, bool)
    features = [f"f{i}" for i in range(kept.shape[2])]
    frequency = pd.DataFrame(
        kept.mean(axis=0).T, features, [0.1 * 2**i for i in range(len(kept[0]))]
    )
    settings = {"threshold": 0.9, "most": 2.0, "counted": tuple(frequency), "selected": ("f0",)}
    return FeatureSelection("l1", frequency, kept, **{**settings, **changes})


def test_the_bound_is_the_papers():
    kept = [[[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 0, 1, 0], [1, 0, 0, 0]]]
    # q: features that a fold keeps at any counted value
    assert made_up(kept).expected_false == pytest.approx(2**2 / (0.8 * 4))
    assert made_up(kept, counted=(0.2,)).expected_false == pytest.approx(1 / (0.8 * 4))
    assert made_up(kept, threshold=0.6).expected_false == pytest.approx(2**2 / (0.2 * 4))


def test_table():
    kept = [
        [[1, 1, 0, 0], [1, 0, 0, 0]],
        [[1, 0, 1, 0], [1, 0, 0, 0]],
        [[1, 0, 1, 0], [0, 0, 0, 0]],
    ]
    frame = made_up(kept, counted=(0.2,)).to_frame()
    assert frame["feature"].tolist() == ["f0", "f2", "f1", "f3"]
    assert frame["frequency"].tolist() == pytest.approx([2 / 3, 0, 0, 0])
    assert frame["selected"].tolist() == [True, False, False, False]
    assert frame["survives_to"].tolist()[:2] == [0.2, 0.1]
    assert frame["survives_to"].isna().tolist() == [False, False, True, True]


@pytest.mark.nightly
def test_weak_values_that_keep_too_many_are_not_counted(diabetes):
    x, y = diabetes
    options = {"folds": 3, "epochs": 60, "batch_size": 500, "l1": [0.01, 0.6, 0.9]}
    few = kregs.feature_selection(linear, x, y, most=2.5, **options)
    assert few.counted == (0.6, 0.9)
    many = kregs.feature_selection(linear, x, y, most=10, **options)
    assert many.counted == (0.01, 0.6, 0.9)
    assert set(few.selected) < set(many.selected)
    none = kregs.feature_selection(linear, x, y, most=0.5, **options)
    assert (none.counted, none.selected) == ((), ())
    assert none.to_frame()["frequency"].tolist() == [0.0] * 10
    assert none.expected_false == 0.0


def deep(l1):
    """A network whose first kernel alone is penalized."""
    inputs = keras.Input((6,))
    x = L.Normalization(mean=[0.0] * 6, variance=[1.0] * 6)(inputs)
    x = L.Dense(8, "tanh", kernel_initializer=keras.initializers.GlorotUniform(1), name="a")(x)
    x = L.Dropout(0.1, seed=1)(x)
    outputs = L.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(2))(x)
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.Adam(0.02)
    model.compile(kregs.proximal(optimizer, l1=l1, variables=["a/kernel"]), "mse")
    return model


@pytest.mark.nightly
def test_a_network_finds_what_a_function_depends_on():
    x = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
    y = np.tanh(2 * x[:, 1]) * 2 + x[:, 4]
    selection = kregs.feature_selection(
        deep,
        x,
        y,
        folds=ShuffleSplit(3, train_size=0.5, random_state=0),
        epochs=150,
        batch_size=150,
        names=list("abcdef"),
        l1=[0.1, 0.2, 0.4],
        most=3,
    )
    assert selection.selected == ("b", "e")
    assert len(selection.kept) == 3


def test_plot_shows_selected_features_with_their_names(selection, tmp_path):
    figure = selection.plot(tmp_path / "paths.png")
    assert (tmp_path / "paths.png").stat().st_size > 10_000
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["bmi"].get_ydata(), selection.frequency.loc["bmi"])
    assert {"s5", "not selected", "threshold"} <= set(lines)
    assert "2 of 10 features" in axes.get_title(loc="left")


X, Y = np.ones((8, 10), "float32"), np.ones(8, "float32")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, TypeError, "values of one hyperparameter by name.*Received: none"),
        ({"l1": [0.1], "l2": [0.1]}, TypeError, "one hyperparameter by name.*Received: l1, l2"),
        ({"l2": [0.1]}, TypeError, "`build` must take l2 by name"),
        ({"l1": [0.1, 0.1]}, ValueError, "`l1` must be a list of different numbers"),
        ({"l1": 0.1}, TypeError, "`l1` must be a list of different numbers"),
        ({"l1": [-0.1]}, ValueError, "`l1` must be a finite number >= 0"),
        ({"l1": [0.1], "threshold": 0.5}, ValueError, "`threshold` must be .* > 0.5"),
        ({"l1": [0.1], "most": 0}, ValueError, "`most` must be"),
        ({"l1": [0.1], "folds": 9}, ValueError, "`folds` must be an integer >= 2, at most 8"),
        ({"l1": [0.1], "folds": None}, TypeError, "`folds` must be a number or a scikit-learn"),
        ({"l1": [0.1], "epoch": 3}, TypeError, "Received: l1, epoch. Did you mean 'epochs'?"),
        ({"l1": [0.1], "folds": KFold(2), "y": Y[:5]}, ValueError, "`y` must have"),
        (
            {"l1": [0.1], "x": pd.DataFrame(X, columns=list("aabcdefghi"))},
            ValueError,
            "`x` must have columns of different names.*Received: a more than once",
        ),
        ({"l1": [0.1], "names": ["a"]}, ValueError, "`names` must hold 10 different names"),
        ({"l1": [0.1], "x": X[0]}, ValueError, "`x` must be a table of numbers"),
        ({"l1": [0.1], "x": X[:, :3]}, ValueError, r"one input of shape \(3,\)"),
        ({"l1": [0.1], "build": 3}, TypeError, "`build` must be a function"),
        ({"l1": [0.1], "build": lambda l1: 3}, TypeError, "`build` must return a built Seq"),
        (
            {"l1": [0.1], "build": lambda l1: keras.Sequential([keras.Input((10,)), L.Dense(1)])},
            ValueError,
            "must return a compiled model",
        ),
    ],
)
def test_bad_input(arguments, kind, message):
    settings = {"build": linear, "x": X, "y": Y, **arguments}
    with pytest.raises(kind, match=message):
        kregs.feature_selection(
            settings.pop("build"), settings.pop("x"), settings.pop("y"), **settings
        )


def small(l1, kind=L.Dense):
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, "relu"), kind(1)])
    model.compile(kregs.proximal(keras.optimizers.SGD(0.1), l1=l1), "mse")
    return model


class OwnDense(L.Dense):  # cannot be stacked
    def call(self, inputs):
        return 1.0 * super().call(inputs)


@pytest.mark.parametrize("kind", [pytest.param(L.Dense, marks=pytest.mark.nightly), OwnDense])
def test_only_the_seed_is_random(kind, monkeypatch, eager):
    seen = []

    def noted(model):
        seen.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
        return np.array([True, False, True])

    monkeypatch.setattr(feature_selection_module, "_used_inputs", noted)
    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    trained = []
    for state, seed in ((1, 5), (2, 5)):
        keras.utils.set_random_seed(state)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        kregs.feature_selection(
            functools.partial(small, kind=kind), x, x[:, 0],
            folds=2, epochs=1, batch_size=4, seed=seed, l1=[0.01],
        )  # fmt: skip
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        trained.append(np.concatenate(seen))
        seen.clear()
    np.testing.assert_array_equal(trained[0], trained[1])


def test_models_that_make_no_zeros_are_told_of():
    def build(l1):
        layers = [keras.Input((3,)), L.Dense(1, kernel_regularizer=keras.regularizers.L1(l1))]
        model = keras.Sequential(layers)
        model.compile("sgd", "mse")
        return model

    x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    with pytest.raises(UserWarning, match=r"every feature survives .* every l1, .*kregs.proximal"):
        kregs.feature_selection(build, x, x[:, 0], folds=np.int64(2), epochs=1, l1=[0.1, 0.5])
