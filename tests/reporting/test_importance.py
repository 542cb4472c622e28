from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_result import SAMPLINGS, make_trials

from kregs.reporting import importance as module
from kregs.reporting.hyperparameters import first_penalty, first_rate, varied
from kregs.reporting.importance import MINIMUM_POINTS, measure_importance


def test_importance_finds_what_matters():
    trials = make_trials(80)
    importance = measure_importance(trials, SAMPLINGS, seed=1)
    table = importance.table.set_index("hyperparameter")["importance"]
    assert table.index[0] == "l2"
    assert set(table.index) == {"l2", "dropout", "norm", "depth"}  # l2 stands for its switch
    assert table["l2"] > 1.0  # worse than the mean, once it is shuffled
    assert table[["norm", "depth"]].abs().max() < 0.05
    assert 0.8 < importance.r2 <= 1.0
    assert importance.points == importance.distinct == 78
    again = measure_importance(trials, SAMPLINGS, seed=1)
    pd.testing.assert_frame_equal(importance.table, again.table)


def test_importance_is_that_of_scikit_learn():
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.inspection import permutation_importance

    generator = np.random.default_rng(0)
    inputs = generator.uniform(size=(300, 3))
    targets = inputs[:, 0] + 0.3 * inputs[:, 1]
    forest = ExtraTreesRegressor(20, random_state=0).fit(inputs, targets)
    falls = module._shuffled_errors(forest, inputs, targets, generator)
    theirs = permutation_importance(
        forest, inputs, targets, scoring="neg_mean_squared_error", random_state=0
    )
    np.testing.assert_allclose(falls, theirs.importances_mean, atol=0.02)


def test_importance_is_of_ranks():
    trials = make_trials(60)
    far = trials.assign(score=trials["score"].where(trials.index != 57, 1e12))
    assert measure_importance(far, SAMPLINGS).r2 > 0.7


def test_of_many_trials_some_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "MAXIMUM_POINTS", 40)
    importance = measure_importance(make_trials(80), SAMPLINGS)
    assert (importance.points, importance.distinct) == (40, 78)
    assert importance.table["hyperparameter"][0] == "l2"


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (make_trials(MINIMUM_POINTS + 1), "11 completed points of the space are too few"),
        (make_trials().assign(score=1.0), "the same score"),
        (make_trials()[["trial", "score"]], "no hyperparameter took more than one value"),
    ],
)
def test_importance_needs_enough(trials, words):
    with pytest.raises(ValueError, match=words):
        measure_importance(trials, SAMPLINGS)


def test_a_switch_that_says_more_is_kept():
    trials = pd.DataFrame({"use_l2": [True, False, True], "l2": [0.1, 0.0, 0.0], "x": [1, 1, 1]})
    assert varied(trials, trials) == ["use_l2", "l2"]
    trials = pd.DataFrame({"a/use_l2": [True, False], "a/l2": [0.1, np.nan]})
    assert varied(trials, trials) == ["a/l2"]


def test_regularizers_are_known_behind_a_prefix():
    assert first_penalty(["b/l1", "conv_l2", "l3"]) == "conv_l2"
    assert first_rate(["encoder/dropout", "drop"]) == "encoder/dropout"
    assert first_rate(["xdropout"]) is None
