from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fake_result import make_history

from kregs.inspection.histories import split_runs
from kregs.reporting.histories import measure_gap

GOAL = {"objective": "val_data_loss", "direction": "min"}


def test_runs_of_folds_and_seeds_are_told_apart():
    runs = list(split_runs(make_history(3, folds=2, seeds=3)))
    assert [(run["fold"].iloc[0], run["seed"].iloc[0], len(run)) for run in runs] == [
        (fold, seed, 6) for fold in range(2) for seed in range(3)
    ]


def test_the_gap_is_measured_where_each_run_was_scored():
    """Validation is 0.1, 0.2, ... above training, and 0.5 an epoch more after the fourth."""
    history = make_history(0, folds=2, seeds=2)
    scores = pd.DataFrame(  # in another order than the history
        {"fold": [1, 1, 0, 0], "seed": [1, 0, 0, 1], "score": 0.0, "epoch": [6, 1, 1, 5]}
    )
    expected = np.mean([0.4 + 1.0, 0.3, 0.1, 0.2 + 0.5])
    assert measure_gap(history, "data_loss", scores, **GOAL) == pytest.approx(expected)


def test_a_run_whose_epoch_is_not_known_is_judged_at_its_best():
    history = make_history(0, folds=2)
    scores = pd.DataFrame({"fold": [0, 1], "seed": 0, "score": 0.0, "epoch": [6, None]})
    gap = measure_gap(history, "data_loss", scores, **GOAL)
    assert gap == pytest.approx((0.1 + 1.0 + 0.2) / 2)
    assert measure_gap(history, "data_loss", None, **GOAL) == pytest.approx(0.15)
    last = measure_gap(history, "data_loss", None, **GOAL, last_epoch=True)
    assert last == pytest.approx(1.15)
    nothing = history.assign(val_data_loss=np.nan)
    assert np.isnan(measure_gap(nothing, "data_loss", None, **GOAL))


def test_of_one_run_fold_and_seed_do_not_matter():
    scores = pd.DataFrame({"fold": [np.nan], "seed": [np.nan], "score": [0.0], "epoch": [6]})
    gap = measure_gap(make_history(0), "data_loss", scores, **GOAL)
    assert gap == pytest.approx(1.1)
