"""Models of others beside the network, on the same rows."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from kregs.tables import baselines
from kregs.tables.baselines import baseline_outputs

PEERS = {"lightgbm": "LightGBM", "xgboost": "XGBoost", "catboost": "CatBoost"}
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"x": RNG.normal(size=120), "z": RNG.normal(size=120)})
Y = (FRAME["x"] + RNG.normal(0, 0.5, 120) > 0).to_numpy().astype(int)
TRAIN, TEST = slice(0, 90), slice(90, 120)


def rows(frame, part):
    return frame[part], FRAME[part].to_numpy()


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_scikit_learns_on_these_rows(no_peers, weighted):
    weights = np.linspace(0.1, 2.0, 90) if weighted else None
    found = baseline_outputs(
        "classification", rows(FRAME, TRAIN), Y[TRAIN], weights, rows(FRAME, TEST), seed=3
    )
    assert list(found) == ["HistGradientBoosting", "logistic regression", "most frequent class"]
    trees = HistGradientBoostingClassifier(random_state=3).fit(FRAME[TRAIN], Y[TRAIN], weights)
    np.testing.assert_array_equal(found["HistGradientBoosting"], trees.predict_proba(FRAME[TEST]))
    linear = LogisticRegression(max_iter=1000).fit(FRAME[TRAIN], Y[TRAIN], weights)
    np.testing.assert_allclose(found["logistic regression"], linear.predict_proba(FRAME[TEST]))
    prior = np.average(Y[TRAIN], weights=weights)
    np.testing.assert_allclose(found["most frequent class"], np.tile([1 - prior, prior], (30, 1)))


def test_a_regression(no_peers):
    y = FRAME["x"].to_numpy() * 3
    found = baseline_outputs(
        "regression", rows(FRAME, TRAIN), y[TRAIN], None, rows(FRAME, TEST), seed=3
    )
    assert list(found) == ["HistGradientBoosting", "ridge regression", "mean"]
    trees = HistGradientBoostingRegressor(random_state=3).fit(FRAME[TRAIN], y[TRAIN])
    np.testing.assert_array_equal(found["HistGradientBoosting"][:, 0], trees.predict(FRAME[TEST]))
    np.testing.assert_allclose(found["mean"], np.full((30, 1), y[TRAIN].mean()))


def messy():
    """Categories, some of them missing and some new in the test part, and a name with brackets."""
    words = RNG.choice(["a", "b", None], 120)
    words[TEST][:5] = "new"
    many = np.array([f"w{i}" for i in RNG.integers(0, 400, 120)], dtype=object)
    frame = FRAME.assign(words=words, many=many).rename(columns={"x": "weight [kg]"})
    frame.loc[::7, "z"] = np.nan
    return frame


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_categories_and_gaps_are_read_as_they_are(task):
    frame = messy()
    found = baseline_outputs(task, rows(frame, TRAIN), Y[TRAIN], None, rows(frame, TEST))
    installed = {PEERS[name] for name in PEERS if importlib.util.find_spec(name)}
    assert set(list(found)[:-2]) == installed | {"HistGradientBoosting"}
    for name, outputs in found.items():
        assert outputs.shape == (30, 2 if task == "classification" else 1), name
        assert np.isfinite(outputs).all(), name
    better = "HistGradientBoosting"
    hit = found[better].argmax(1) if task == "classification" else found[better][:, 0] > 0.5
    assert np.mean(hit == Y[TEST]) > 0.7


def test_one_that_raises_is_left_out(no_peers, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(LogisticRegression, "fit", broken)
    with pytest.warns(UserWarning, match="logistic regression is not among .*no such luck"):
        found = baseline_outputs(
            "classification", rows(FRAME, TRAIN), Y[TRAIN], None, rows(FRAME, TEST)
        )
    assert list(found) == ["HistGradientBoosting", "most frequent class"]
