"""Standard errors over folds and repeats, against simulations whose truth is known."""

from __future__ import annotations

import keras_tuner
import numpy as np
import pytest
from sklearn.model_selection import KFold, RepeatedKFold, ShuffleSplit, TimeSeriesSplit

from kregs.search.judging.errors import error_of_mean, standard_error
from kregs.search.judging.score import judge, repeats_of
from kregs.search.runs import Split, make_runs

LOSS = keras_tuner.Objective("val_loss", "min")
ROWS = 40


def runs_of(splitter, seeds=1):
    return make_runs([Split(*pair) for pair in splitter.split(np.zeros(ROWS))], seeds)


@pytest.mark.parametrize(
    ("splitter", "expected"),
    [
        (KFold(4), [0, 0, 0, 0]),
        (TimeSeriesSplit(3), [0, 0, 0]),
        (RepeatedKFold(n_splits=2, n_repeats=3, random_state=0), [0, 0, 1, 1, 2, 2]),
        (ShuffleSplit(3, test_size=0.5, random_state=0), [None] * 3),
    ],
)
def test_repeats_are_rounds_over_the_same_rows(splitter, expected):
    assert list(repeats_of(runs_of(splitter, seeds=2)).values()) == expected
    assert repeats_of(make_runs(None, 2)) == {}


@pytest.mark.parametrize(
    ("splitter", "naive_is_wrong"),
    [
        (KFold(5, shuffle=True, random_state=0), False),
        (RepeatedKFold(n_splits=5, n_repeats=6, random_state=0), True),
        (ShuffleSplit(20, test_size=0.25, random_state=0), True),
    ],
)
def test_the_error_is_that_of_other_rows(splitter, naive_is_wrong):
    """Each row has a loss of its own, whoever trains: the mean over n rows varies by 1/n."""
    rng = np.random.default_rng(0)
    runs = runs_of(splitter)
    variances, naive = [], []
    for _ in range(400):
        losses = 5.0 + rng.normal(0, 2.0, ROWS)
        own = [{"val_loss": [float(losses[run.split.validation].mean())]} for run in runs]
        judgement = judge(own, runs, LOSS)
        variances.append(judgement.standard_error**2)
        values = [history["val_loss"][0] for history in own]
        naive.append(np.var(values, ddof=1) / len(values))
    truth = 2.0**2 / ROWS
    assert np.mean(variances) == pytest.approx(truth, rel=0.15)
    assert (np.mean(naive) < 0.4 * truth) == naive_is_wrong


def test_more_repeats_are_no_more_rows():
    rng = np.random.default_rng(1)
    losses = rng.normal(size=ROWS)
    errors = []
    for repeats in (1, 2, 20):
        runs = runs_of(RepeatedKFold(n_splits=4, n_repeats=repeats, random_state=3))
        own = [{"val_loss": [float(losses[run.split.validation].mean())]} for run in runs]
        errors.append(judge(own, runs, LOSS).standard_error)
    # a naive error would fall to a quarter
    assert errors[2] > 0.6 * errors[0]
    assert errors[1] > 0.6 * errors[0]


def test_drawn_folds_are_corrected_by_their_overlap():
    values = {0: 1.0, 1: 2.0, 2: 4.0}
    scores = [{"fold": fold, "seed": 0, "score": 0.0, "repeat": None} for fold in values]
    expected = np.sqrt(np.var([1, 2, 4], ddof=1) * (1 / 3 + 0.25))
    assert error_of_mean(values, scores, held_out_share=0.25) == pytest.approx(expected)


def test_a_result_of_before_has_no_repeats():
    scores = [{"fold": i, "seed": 0, "score": float(i)} for i in range(4)]
    expected = np.std(range(4), ddof=1) / 2
    assert standard_error(scores, held_out_share=0.3) == pytest.approx(expected)
    assert standard_error(scores[:1], held_out_share=0.3) is None
    assert standard_error([], held_out_share=None) is None
