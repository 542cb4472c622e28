"""How trials are scored, compared and chosen, against closed forms."""

from __future__ import annotations

import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError
from scipy import stats

from kregs.search.judging.bias import bias_of_best
from kregs.search.judging.choose import choose
from kregs.search.judging.compare import compare
from kregs.search.judging.errors import standard_error
from kregs.search.judging.score import judge
from kregs.search.runs import Split, make_runs

LOSS = keras_tuner.Objective("val_loss", "min")
ACCURACY = keras_tuner.Objective("val_accuracy", "max")


def runs(folds, seeds=1):
    return make_runs(
        [Split(np.arange(9), np.array([i])) for i in range(folds)] if folds else None, seeds
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
    repeated = make_runs([Split(np.arange(9), rows) for rows in [*halves, *halves]], 1)
    judgement = judge(curves, repeated, LOSS)
    # the first and the third are judged on the same rows: the second and the fourth choose for them
    assert [s["epoch"] for s in judgement.scores] == [0, 2, 0, 2]
    common = make_runs([Split(np.arange(9), np.array([0]))] * 4, 1)
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


def test_without_folds_a_run_is_scored_over_both_halves():
    own = make_runs(None, 1, halves(10, 30))
    judgement = judge(histories([2, 2.5, 4]), own, LOSS, crossed=[{"val_loss": 3.75}])
    assert judgement.metrics["val_loss"] == 3.75
    assert judgement.metrics["loss"] == 0  # at the epoch that is best on all rows
    (entry,) = judgement.scores
    assert entry == {"fold": None, "seed": 0, "score": 3.75, "epoch": 0, "repeat": None}
    last = judge(histories([2, 2.5, 4]), own, LOSS, "last_epoch", [{"val_loss": 3.75}])
    assert last.metrics["val_loss"] == 4
    rising = [{"val_accuracy": [0.3, 0.55]}]
    scored = judge(rising, own, ACCURACY, crossed=[{"val_accuracy": 0.15}])
    assert scored.metrics["val_accuracy"] == 0.15


@pytest.mark.parametrize("crossed", [[], [{}], [{"val_loss": float("nan")}], [{"val_mae": 1.0}]])
def test_no_trial_is_ranked_by_a_score_that_is_too_good(crossed):
    """Beside trials that are scored half by half, its own best epoch would win."""
    own = make_runs(None, 1, halves(2, 2))
    with pytest.raises(FailedTrialError, match="val_loss was no finite number on a half"):
        judge(histories([2.0, 1.0]), own, LOSS, crossed=crossed)
    # of one epoch none is chosen
    assert judge(histories([2.0]), own, LOSS, crossed=crossed).metrics["val_loss"] == 2.0
    # a metric of the training rows is scored alike in all trials
    training = keras_tuner.Objective("loss", "max")
    assert judge(histories([2.0, 1.0]), own, training, crossed=crossed).metrics["loss"] == 1.0


def test_the_standard_error_is_over_folds_not_over_seeds():
    values = np.array([[1.0, 3.0], [2.0, 4.0], [6.0, 8.0]])
    scores = [{"fold": f, "seed": s, "score": values[f, s]} for f in range(3) for s in range(2)]
    expected = np.std(values.mean(axis=1), ddof=1) / np.sqrt(3)
    assert standard_error(scores, held_out_share=0.5) == pytest.approx(expected)


def test_values_that_are_no_numbers():
    nan = float("nan")
    assert judge(histories([2.0, nan, 1.5]), runs(None), LOSS).metrics["val_loss"] == 1.5
    with pytest.raises(FailedTrialError, match="never a finite number in fold 1: inf"):
        judge(histories([1.0], [nan]), runs(2), LOSS)
    with pytest.raises(FailedTrialError, match="in fold 0"):
        judge(histories([2.0, nan], [2.0, 1.0]), runs(2), LOSS)
    with pytest.raises(ValueError, match=r"'val_loss' was not logged\. Logged: val_accuracy"):
        judge([{"val_accuracy": [1.0]}], runs(None), LOSS)


def trial(number, scores, l2=0.0, values=None, **others):
    """A trial of scores by fold, whose model has a penalty (and maybe other numbers)."""
    numbers = {"l2": {"weight 0": l2}, **{kind: {"edge 1": v} for kind, v in others.items()}}
    return {
        "trial": number,
        "score": float(np.mean(scores)),
        "scores": [{"fold": i, "seed": 0, "score": s, "repeat": 0} for i, s in enumerate(scores)],
        "hyperparameters": values or {},
        "restraints": {"structure": "a", "weights": 8, "numbers": numbers},
    }


def chosen(trials, selection="one_standard_error", direction="min", restraint=None):
    picked = choose(
        trials, direction=direction, selection=selection, restraint=restraint, held_out_share=0.5
    )
    return None if picked is None else picked["trial"]


def test_the_standard_error_is_that_of_the_difference():
    """Trial 1 is worse in each fold, by less than folds differ; trial 2 now worse, now better."""
    best = [0.1, 0.3, 0.5]
    trials = [
        trial(3, best, l2=1e-6),
        trial(1, [0.12, 0.32, 0.52], l2=1e-2),
        trial(2, [0.15, 0.28, 0.50], l2=1e-3),
    ]
    # the best score's own error would let both in
    own_error = np.std(best, ddof=1) / np.sqrt(3)
    assert np.mean([0.12, 0.32, 0.52]) < np.mean(best) + own_error
    differences = np.array([0.05, -0.02, 0.0])
    assert differences.mean() < np.std(differences, ddof=1) / np.sqrt(3)
    assert chosen(trials) == 2
    assert chosen(trials, "best") == 3
    mirrored = [{**t, "score": -t["score"]} for t in trials]
    for t in mirrored:
        t["scores"] = [{**entry, "score": -entry["score"]} for entry in t["scores"]]
    assert chosen(mirrored, direction="max") == 2
    failed = {**trials[0], "score": None}
    assert chosen([failed]) is None
    assert chosen([failed, trials[2]]) == 2


# as good as the best of them: their differences vary by much more than their mean
NOISY = [[0.2, 0.4, 0.6], [0.25, 0.38, 0.61], [0.15, 0.48, 0.6], [0.3, 0.3, 0.64]]


def test_only_what_restrains_more_than_the_best_is_taken_before_it():
    assert (
        chosen([trial(i, s, l2) for i, (s, l2) in enumerate(zip(NOISY, [2, 1, 4, 3], strict=True))])
        == 2
    )
    # more dropout, but a smaller penalty: the better score wins
    mixed = [
        trial(4, NOISY[0], l2=0.1, dropout=0.2),
        trial(5, NOISY[1], l2=0.01, dropout=0.5),
        trial(6, NOISY[2], l2=0.1, dropout=0.1),
    ]
    assert chosen(mixed) == 4
    # two that restrain more than the best, but one of this and one of that: the better one
    two = [*mixed, trial(8, NOISY[3], l2=0.1, dropout=0.4), trial(7, NOISY[2], l2=0.3, dropout=0.2)]
    assert two[4]["score"] < two[3]["score"]
    assert chosen(two) == 7
    unknown = [{**t, "restraints": None} for t in mixed]
    assert chosen(unknown) == 4


def test_the_user_declares_what_restrains():
    values = [
        {"l2": 0.1, "pool2": 9, "units": 64},
        {"l2": 0.1, "pool2": 3, "units": 16},
        {"l2": 0.2, "pool2": 1, "units": 128},
        {"pool2": 5, "units": 8},  # no penalty in this one
    ]
    trials = [trial(i, s, values=v) for i, (s, v) in enumerate(zip(NOISY, values, strict=True))]
    assert chosen(trials) == 0  # the built models are equal
    assert chosen(trials, restraint=["l2"]) == 2
    assert chosen(trials, restraint=["-l2"]) == 3
    assert chosen(trials, restraint=["-units", "l2"]) == 3
    assert chosen(trials[:3], restraint=["-units"]) == 1
    assert chosen(trials[:2], restraint=["l2", "-units"]) == 1
    assert chosen(trials[:2], restraint=["l2"]) == 0  # of equals the better one


def test_the_bias_of_the_best_is_tibshiranis():
    rng = np.random.default_rng(0)
    errors = rng.normal(1.0, 0.3, [12, 5])  # trials, folds
    trials = [{"scores": t["scores"]} for t in (trial(i, row) for i, row in enumerate(errors))]
    best = errors.mean(axis=1).argmin()
    expected = np.mean([errors[best, k] - errors[errors[:, k].argmin(), k] for k in range(5)])
    assert bias_of_best(trials, direction="min") == pytest.approx(expected)
    assert expected > 0.1
    mirrored = [trial(i, row) for i, row in enumerate(-errors)]
    assert bias_of_best(mirrored, direction="max") == pytest.approx(expected)
    seeds = [{"scores": [{"fold": None, "seed": i, "score": 1.0} for i in range(3)]}]
    assert bias_of_best(seeds, direction="min") is None
    assert bias_of_best([], direction="min") is None


def test_where_trials_are_equal_the_bias_is_nearly_that_of_the_minimum():
    """All true errors are 1: the best of 20 means of folds looks better by what is estimated."""
    rng = np.random.default_rng(1)
    true, estimated = [], []
    for _ in range(200):
        errors = 1.0 + rng.normal(0, 0.3, [20, 10])
        true.append(1.0 - errors.mean(axis=1).min())
        trials = [trial(i, row) for i, row in enumerate(errors)]
        estimated.append(bias_of_best(trials, direction="min"))
    # the paper's estimate is of the bias of one fold's minimum: too large by up to sqrt(folds)
    assert np.mean(true) < np.mean(estimated) < np.sqrt(10) * np.mean(true)


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
    assert (result.over, plain.over) == ("folds", "seeds")
    assert "over 10 folds" in str(result)
    assert "of training" not in str(result)
    assert "over 10 seeds" in str(plain)
    assert "the error is of training alone" in str(plain)


def test_a_comparison_with_the_best_of_many_says_so():
    scores = [[{"fold": i, "seed": 0, "score": i + own} for i in range(3)] for own in (0, 1)]
    told = compare(*scores, direction="min", held_out_share=0.5, chosen_out_of=20)
    assert told.chosen_out_of == 20
    assert "chosen out of 20 trials by these scores, so that the p-value is too small" in str(told)
    untold = compare(*scores, direction="min", held_out_share=0.5)
    assert "chosen" not in str(untold)


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


def test_all_metrics_of_halves_are_those_of_the_scored_epochs():
    half = np.array([0]), np.array([1])
    (run,) = make_runs(None, 1, half)
    history = {"val_loss": [3.0, 1.0], "val_accuracy": [0.5, 0.9], "loss": [5.0, 4.0]}
    crossed = {"val_loss": 2.5, "val_accuracy": 0.6}
    metrics = judge([history], [run], LOSS, crossed=[crossed]).metrics
    assert metrics == {**crossed, "loss": 4.0}
    # at the last epoch no epoch is chosen, on whatever rows
    last = judge([history], [run], LOSS, "last_epoch", crossed=[crossed]).metrics
    assert last == {"val_loss": 1.0, "val_accuracy": 0.9, "loss": 4.0}
