"""The rows kept for the test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import kregs
from kregs.tables.holdout import score_outputs, split_rows


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5, 0.8])
def test_every_class_is_trained_and_tested_on(share):
    frame = pd.DataFrame({"x": np.cos(range(103)), "y": ["a", "b"] * 50 + ["c"] * 3})
    table = kregs.read_table(frame, "y")
    for seed in range(5):
        train, test = split_rows(table.target, 3, share, seed)
        np.testing.assert_array_equal(np.sort(np.append(train, test)), np.arange(103))
        assert np.bincount(table.target[test], minlength=3).min() >= 1
        assert np.bincount(table.target[train], minlength=3).min() >= 2
        assert abs(len(test) - max(103 * share, 3)) <= 2


@pytest.mark.parametrize("classes", [2, 3])
def test_test_rows_may_lack_a_class(classes):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 20)
    outputs = probabilities[:, 1:] if classes == 2 else probabilities
    scores = score_outputs("classification", np.arange(20) % (classes - 1), outputs)
    assert np.isnan(scores.pop("roc_auc"))
    assert all(np.isfinite(score) for score in scores.values())
    scores = score_outputs("classification", np.arange(20) % classes, outputs)
    assert 0 < scores["roc_auc"] < 1


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_classes_are_scikit_learn_s(classes):
    probabilities = np.random.default_rng(1).dirichlet(np.ones(classes), 30)
    y = np.arange(30) % classes
    found = score_outputs(
        "classification", y, probabilities[:, 1:] if classes == 2 else probabilities
    )
    predicted = probabilities.argmax(axis=1)
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
            "log_loss": metrics.log_loss(y, probabilities),
            "roc_auc": metrics.roc_auc_score(
                y, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr"
            ),
        },
        rel=1e-12,
    )
    assert list(found) == ["accuracy", "balanced_accuracy", "log_loss", "roc_auc"]


def test_scores_of_numbers_are_scikit_learn_s():
    y, outputs = np.random.default_rng(1).normal(size=(2, 30))
    assert score_outputs("regression", y, outputs[:, None]) == pytest.approx(
        {
            "r2": metrics.r2_score(y, outputs),
            "rmse": metrics.root_mean_squared_error(y, outputs),
            "mae": metrics.mean_absolute_error(y, outputs),
        },
        rel=1e-12,
    )
