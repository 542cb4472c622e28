"""How trials are scored, compared and chosen, against closed forms."""

from __future__ import annotations

import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError
from scipy import stats

from kregs.search.judging.choose import choose, strength
from kregs.search.judging.compare import compare
from kregs.search.judging.score import judge, standard_error
from kregs.search.runs import Split, make_runs

LOSS = keras_tuner.Objective("val_loss", "min")
ACCURACY = keras_tuner.Objective("val_accuracy", "max")


def runs(folds, seeds=1):
    return make_runs(
        [Split(np.arange(0), np.array([i])) for i in range(folds)] if folds else None, seeds
    )


def histories(*curves, name="val_loss"):
    return [{name: list(curve), "loss": [float(i) for i in range(len(curve))]} for curve in curves]


def test_the_epoch_of_a_fold_is_chosen_on_the_other_folds():
    # by itself each fold would take its own lowest value, 1.0
    curves = [[3, 1, 5], [3, 4, 2], [5, 6, 1]]
    judgement = judge(histories(*curves), runs(3), LOSS)
    # means of the other two: [4, 5, 1.5], [4, 3.5, 3], [3, 2.5, 3.5]
    assert [s["epoch"] for s in judgement.scores] == [2, 2, 1]
    assert [s["score"] for s in judgement.scores] == [5, 2, 6]
    assert judgement.metrics["val_loss"] == pytest.approx(13 / 3)
    assert judgement.metrics["loss"] == pytest.approx(5 / 3)
    assert judgement.epoch == 2  # of the mean over all: [3.67, 3.67, 2.67]


def test_scores_are_not_too_good_where_there_is_nothing_to_learn():
    """Over curves of pure noise the best epoch looks good; the cross-fitted one does not."""
    rng = np.random.default_rng(0)
    honest, naive = [], []
    for _ in range(300):
        curves = rng.normal(size=(5, 30))
        honest.append(judge(histories(*curves), runs(5), LOSS).metrics["val_loss"])
        naive.append(curves.min(axis=1).mean())
    assert np.mean(naive) < -1.8
    # 300 means of 5 standard normals: standard error 0.026, a little more for the common epoch
    assert abs(np.mean(honest)) < 0.15


def test_folds_that_share_judged_rows_do_not_choose_for_one_another():
    curves = histories([3, 1, 5], [3, 4, 2], [5, 6, 1], [1, 2, 3])
    halves = [np.array([0, 1]), np.array([2, 3])]
    repeated = make_runs([Split(np.arange(0), rows) for rows in [*halves, *halves]], 1)
    judgement = judge(curves, repeated, LOSS)
    # the first and the third are judged on the same rows: the second and the fourth choose for them
    assert [s["epoch"] for s in judgement.scores] == [0, 2, 0, 2]
    common = make_runs([Split(np.arange(0), np.array([0]))] * 4, 1)
    assert [s["epoch"] for s in judge(curves, common, LOSS).scores] == [2, 2, 2, 2]


def test_a_run_that_stopped_early_counts_on_at_its_last_value():
    judgement = judge(histories([3, 2], [3, 3, 1], [3, 3, 1]), runs(3), LOSS)
    assert [s["epoch"] for s in judgement.scores] == [1, 2, 2]
    assert judgement.scores[0]["score"] == 2


def test_without_folds_each_seed_has_its_own_best_epoch():
    curves = histories([0.1, 0.9, 0.5], [0.2, 0.3, 0.6], name="val_accuracy")
    judgement = judge(curves, runs(None, 2), ACCURACY)
    assert [s["epoch"] for s in judgement.scores] == [1, 2]
    assert judgement.metrics["val_accuracy"] == pytest.approx(0.75)
    assert judgement.standard_error == pytest.approx(np.std([0.9, 0.6], ddof=1) / np.sqrt(2))
    assert judge(histories([1.0, 0.5]), runs(None), LOSS).standard_error is None


def halves(*sizes):
    return tuple(np.arange(size) for size in sizes)


def test_without_folds_each_half_is_scored_at_the_epoch_of_the_other():
    first, second = histories([3, 1, 2], [1, 4, 6])
    whole = histories([2, 2.5, 4])
    own = make_runs(None, 1, halves(10, 30))
    judgement = judge(whole, own, LOSS, halves=[[first, second]])
    # the first at the second's best epoch, 0: 3; the second at the first's, 1: 4
    assert judgement.metrics["val_loss"] == pytest.approx((10 * 3 + 30 * 4) / 40)
    assert judgement.metrics["loss"] == 0  # at the epoch that is best on all rows
    assert judgement.scores == [{"fold": None, "seed": 0, "score": 3.75, "epoch": 0}]
    assert judge(whole, own, LOSS, "last_epoch", [[first, second]]).metrics["val_loss"] == 4
    accuracies = [{"val_accuracy": [0.1, 0.9]}, {"val_accuracy": [0.5, 0.2]}]
    even = make_runs(None, 1, halves(5, 5))
    scored = judge([{"val_accuracy": [0.3, 0.55]}], even, ACCURACY, halves=[accuracies])
    assert scored.metrics["val_accuracy"] == pytest.approx((0.1 + 0.2) / 2)


def test_halves_that_say_nothing_leave_the_best_epoch():
    own, whole = make_runs(None, 1, halves(2, 2)), histories([2.0, 1.0])
    for empty in ([], [{}, {}], [{"val_loss": [float("nan")] * 2}] * 2, [{"val_mae": [1.0]}] * 2):
        assert judge(whole, own, LOSS, halves=[empty]).metrics["val_loss"] == 1.0


def test_one_split_is_not_too_good_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(0)
    honest, naive = [], []
    for _ in range(300):
        curves = rng.normal(size=(2, 30))
        own = make_runs(None, 1, halves(8, 8))
        whole = histories(curves.mean(axis=0))
        honest.append(judge(whole, own, LOSS, halves=[histories(*curves)]).metrics["val_loss"])
        naive.append(judge(whole, own, LOSS).metrics["val_loss"])
    assert np.mean(naive) < -1.3  # two standard deviations of the mean of two
    # 300 means of two standard normals: standard error 0.04
    assert abs(np.mean(honest)) < 0.15


def test_the_standard_error_is_over_folds_not_over_seeds():
    values = np.array([[1.0, 3.0], [2.0, 4.0], [6.0, 8.0]])
    scores = [{"fold": f, "seed": s, "score": values[f, s]} for f in range(3) for s in range(2)]
    expected = np.std(values.mean(axis=1), ddof=1) / np.sqrt(3)
    assert standard_error(scores) == pytest.approx(expected)


def test_values_that_are_no_numbers():
    nan = float("nan")
    assert judge(histories([2.0, nan, 1.5]), runs(None), LOSS).metrics["val_loss"] == 1.5
    with pytest.raises(FailedTrialError, match="never a finite number in fold 1: inf"):
        judge(histories([1.0], [nan]), runs(2), LOSS)
    with pytest.raises(FailedTrialError, match="in fold 0"):
        judge(histories([2.0, nan], [2.0, 1.0]), runs(2), LOSS)
    with pytest.raises(ValueError, match=r"'val_loss' was not logged\. Logged: val_accuracy"):
        judge([{"val_accuracy": [1.0]}], runs(None), LOSS)


def space():
    hp = keras_tuner.HyperParameters()
    hp.Float("l2", 1e-6, 1e-2, sampling="log")
    hp.Float("dropout", 0.0, 0.5)
    hp.Int("units", 16, 64)
    hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
    return hp.get_config()["space"]


def test_strength_grows_with_what_restrains():
    middle = {"l2": 1e-4, "dropout": 0.25, "units": 40, "learning_rate": 1e-3}
    for changed in ({"l2": 1e-3}, {"dropout": 0.4}, {"units": 20}):
        assert strength({**middle, **changed}, space()) > strength(middle, space())
    assert strength({**middle, "learning_rate": 1e-2}, space()) == strength(middle, space())
    without = {k: v for k, v in middle.items() if k != "l2"}
    assert strength(without, space()) < strength({**middle, "l2": 1e-6}, space())
    assert strength({"l2": 1e-2, "dropout": 0.5, "units": 16}, space()) == pytest.approx(
        1.0, abs=0.05
    )


def test_words_numbers_and_what_is_not_active_have_their_places():
    hp = keras_tuner.HyperParameters()
    hp.Choice("max_norm", ["none", "1.0", "3.0"])
    hp.Float("dropout_1", 0.0, 0.5)
    hp.Int("units_0", 16, 64)
    own = hp.get_config()["space"]

    def of(**values):
        return strength({"max_norm": "3.0", "dropout_1": 0.1, "units_0": 32, **values}, own)

    assert of(max_norm="1.0") > of(max_norm="3.0") > of(max_norm="none")
    assert of(dropout_1=0.4) > of()
    assert of(units_0=16) > of()
    shallow = {"max_norm": "3.0", "dropout_1": 0.1}  # the layer is not there
    assert strength(shallow, own) > of(units_0=16) - 1e-9


TRIALS = [
    {"trial": 0, "score": 0.30, "standard_error": 0.02, "hyperparameters": {"l2": 1e-6}},
    {"trial": 1, "score": 0.31, "standard_error": 0.10, "hyperparameters": {"l2": 1e-4}},
    {"trial": 2, "score": 0.32, "standard_error": 0.01, "hyperparameters": {"l2": 1e-3}},
    {"trial": 3, "score": 0.33, "standard_error": 0.01, "hyperparameters": {"l2": 1e-2}},
    {"trial": 4, "score": None, "standard_error": None, "hyperparameters": {"l2": 1e-2}},
]


def chosen(selection, trials=TRIALS, direction="min", order=None):
    picked = choose(trials, space(), direction=direction, selection=selection, order=order)
    return None if picked is None else picked["trial"]


def test_the_one_standard_error_rule():
    assert chosen("best") == 0
    assert chosen("one_standard_error") == 2  # 0.32 <= 0.30 + 0.02 < 0.33
    assert chosen("one_standard_error", order=lambda values: -values["l2"]) == 0
    upside_down = [{**t, "score": None if t["score"] is None else -t["score"]} for t in TRIALS]
    assert chosen("one_standard_error", upside_down, "max") == 2
    assert chosen("best", TRIALS[4:]) is None


def test_comparison_is_nadeau_and_bengios():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.1, 10), rng.normal(1.5, 0.1, 10)

    def scores(values):
        return [{"fold": i, "seed": 0, "score": v} for i, v in enumerate(values)]

    result = compare(scores(a), scores(b), direction="min", held_out_share=1 / 9)
    error = np.std(a - b, ddof=1) * np.sqrt(1 / 10 + 1 / 9)
    assert result.difference == pytest.approx((a - b).mean())
    assert result.standard_error == pytest.approx(error)
    expected = 2 * stats.t.sf(abs((a - b).mean()) / error, 9)
    assert result.p_value == pytest.approx(expected)
    assert result.better == "a"
    assert compare(scores(a), scores(b), direction="max", held_out_share=1 / 9).better == "b"
    # without the correction it is the plain paired t-test
    plain = compare(
        [{"fold": None, "seed": i, "score": v} for i, v in enumerate(a)],
        [{"fold": None, "seed": i, "score": v} for i, v in enumerate(b)],
        direction="min",
        held_out_share=None,
    )
    assert plain.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_two_equal_trials_differ_by_luck():
    found = 0
    rng = np.random.default_rng(1)
    for _ in range(400):
        common = rng.normal(size=5)
        a, b = (
            [{"fold": i, "seed": 0, "score": v} for i, v in enumerate(common + rng.normal(size=5))]
            for _ in range(2)
        )
        found += compare(a, b, direction="min", held_out_share=0.25).better is not None
    assert found / 400 < 0.05
    with pytest.raises(ValueError, match="at least 2 common folds"):
        compare(a[:1], b[:1], direction="min", held_out_share=0.25)
