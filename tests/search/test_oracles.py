from __future__ import annotations

import collections
import itertools

import keras_tuner
import numpy as np
import pytest

from kregs.search.keras_tuner_internals import write_whole_files
from kregs.search.objective import make_objective
from kregs.search.oracles import (
    check_oracle,
    expected_trials,
    make_oracle,
    trials_to_go_on_from,
)
from kregs.search.protocol import ORACLES

OBJECTIVE = make_objective("val_loss")


def space():
    hp = keras_tuner.HyperParameters()
    hp.Boolean("use_l2")
    with hp.conditional_scope("use_l2", [True]):
        hp.Choice("l2", [1e-4, 1e-3, 1e-2])
    hp.Choice("dropout", [0.0, 0.2])
    return hp


def make(name, path, *, space=space, max_trials=None, seed=0, epochs=9):
    oracle = make_oracle(
        name, objective=OBJECTIVE, space=space(), max_trials=max_trials, epochs=epochs, seed=seed
    )
    oracle._set_project_dir(str(path), "p")
    write_whole_files(oracle)
    return oracle


def score(values):
    return 1.0 + values.get("l2", 0.5) + values.get("dropout", 0.0)


def run(oracle, trials=10**6, *, finish_last=True):
    """Run trials without models; return their values in order."""
    done = []
    while len(done) < trials:
        trial = oracle.create_trial("t")
        if trial.status == "STOPPED":
            break
        done.append(dict(trial.hyperparameters.values))
        if len(done) == trials and not finish_last:
            break
        oracle.update_trial(trial.trial_id, {"val_loss": score(done[-1])}, step=1)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        oracle.save()  # as the tuner does: keras-tuner's own end_trial saves too early
    return done


def continuous():
    hp = keras_tuner.HyperParameters()
    hp.Float("l2", 1e-6, 1e-1, sampling="log")
    hp.Float("dropout", 0.0, 0.6)
    return hp


def test_grid_visits_every_point_once(tmp_path):
    oracle = make("grid", tmp_path)
    assert expected_trials(oracle) == 8  # (off + 3 values) x 2
    points = [tuple(sorted(values.items())) for values in run(oracle)]
    assert len(points) == len(set(points)) == 8


@pytest.mark.parametrize("finish_last", [True, False])
@pytest.mark.parametrize("name", ORACLES)
def test_a_reloaded_oracle_goes_on_as_if_nothing_had_happened(name, finish_last, tmp_path):
    of = {"space": space if name == "grid" else continuous, "max_trials": 10}
    expected = run(make(name, tmp_path / "a", **of))
    first = run(make(name, tmp_path / "b", **of), 5, finish_last=finish_last)
    reloaded = make(name, tmp_path / "b", **of)
    reloaded.reload()
    rest = run(reloaded)
    if not finish_last:
        assert rest[0] == first.pop()  # the interrupted trial runs again
    assert first + rest == expected
    assert len(expected) == (8 if name == "grid" else 10)


def test_the_first_trial_has_the_defaults(tmp_path):
    defaults = {hp.name: hp.default for hp in continuous().space}
    points = run(make("random_from_defaults", tmp_path / "a", space=continuous, max_trials=4))
    assert points[0] == defaults
    assert len({tuple(sorted(values.items())) for values in points}) == 4
    assert run(make("random", tmp_path / "b", space=continuous, max_trials=4))[0] != defaults
    # where nothing is searched there is one trial
    empty = make(
        "random_from_defaults", tmp_path / "c", space=keras_tuner.HyperParameters, max_trials=1
    )
    assert run(empty) == [{}]


def test_plain_grid_of_keras_tuner_stops_when_reloaded(tmp_path):
    # the reason for GridOracle; if this fails, keras-tuner has mended it
    def plain():
        oracle = keras_tuner.oracles.GridSearchOracle(objective=OBJECTIVE)
        oracle.update_space(space())
        oracle.verbose = 0
        oracle._set_project_dir(str(tmp_path), "p")
        return oracle

    run(plain(), 3)
    reloaded = plain()
    reloaded.reload()
    assert run(reloaded) == []


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_neighbouring_seeds_share_no_proposals(name, tmp_path):
    proposals = [
        {v["l2"] for v in run(make(name, tmp_path / str(s), space=continuous, seed=s), 6)}
        for s in range(6)
    ]
    assert len(set.union(*proposals)) == sum(len(p) for p in proposals) == 36
    again = {v["l2"] for v in run(make(name, tmp_path / "x", space=continuous), 6)}
    assert again == proposals[0]


def test_bayesian_never_repeats_a_point(tmp_path):
    points = [tuple(sorted(v.items())) for v in run(make("bayesian", tmp_path, max_trials=30))]
    assert len(points) == len(set(points)) == 8  # all there are


@pytest.mark.parametrize(
    ("max_trials", "size", "longest"),
    # epochs=9, factor 3: brackets of 9 + 3 + 1, 5 + 2, 3 trials
    [(None, 23, 9), (23, 23, 9), (22, 10, 9), (10, 10, 9), (9, 3, 9), (3, 3, 9), (2, 2, 9)],
)
def test_hyperband_makes_the_largest_sweep_that_fits(max_trials, size, longest, tmp_path):
    oracle = make("hyperband", tmp_path, space=continuous, max_trials=max_trials)
    points = run(oracle)
    assert len(points) == size == oracle.size == expected_trials(oracle)
    assert max(values["tuner/epochs"] for values in points) == longest


def ended(oracle, failing=lambda values: False, most=10**6):
    """Run trials without models, of which some fail; return the values of those proposed."""
    done = []
    while len(done) < most:
        trial = oracle.create_trial("t")
        if trial.status == "STOPPED":
            break
        assert trial.status == "RUNNING"  # nothing is under way that it could wait for
        values = dict(trial.hyperparameters.values)
        done.append(values)
        if failing(values):
            trial.status = "FAILED"
        else:
            oracle.update_trial(trial.trial_id, {"val_loss": score(values)}, step=1)
            trial.status = "COMPLETED"
        oracle.end_trial(trial)
        oracle.save()
    return done


def rounds(points):
    """How many trials each round of each bracket has."""
    return collections.Counter((v["tuner/bracket"], v["tuner/round"]) for v in points)


def test_failed_trials_starve_no_bracket(tmp_path):
    oracle = make("hyperband", tmp_path, space=continuous)
    failed = iter([True] * 7 + [False] * 100)  # of the 9 that begin: 2 are left for 3 places
    points = ended(oracle, lambda values: values["tuner/bracket"] == 2 and next(failed))
    assert rounds(points) == {
        (2, 0): 9, (2, 1): 2, (2, 2): 1, (1, 0): 5, (1, 1): 2, (0, 0): 3,
    }  # fmt: skip
    best = min(score(v) for v in points if (v["tuner/bracket"], v["tuner/round"]) == (2, 1))
    (last,) = (v for v in points if (v["tuner/bracket"], v["tuner/round"]) == (2, 2))
    assert (score(last), last["tuner/initial_epoch"], last["tuner/epochs"]) == (best, 3, 9)
    # all of a bracket fail: the others go on
    oracle = make("hyperband", tmp_path / "all", space=continuous)
    points = ended(oracle, lambda values: values["tuner/bracket"] == 1)
    assert rounds(points) == {(2, 0): 9, (2, 1): 3, (2, 2): 1, (1, 0): 5, (0, 0): 3}


def test_the_best_of_a_round_are_promoted_whatever_fails_and_in_whatever_order(tmp_path):
    generator = np.random.default_rng(3)
    oracle = make("hyperband", tmp_path, space=continuous)
    under_way, done, statuses = [], {}, {}
    for name in itertools.count():
        trial = oracle.create_trial(f"t{name}")
        if trial.status == "STOPPED":
            break
        if trial.status == "RUNNING":
            under_way.append(trial)
            if len(under_way) < 6:
                continue
        trial = under_way.pop(generator.integers(len(under_way)))
        values = trial.hyperparameters.values
        statuses[trial.trial_id] = "FAILED" if generator.random() < 0.3 else "COMPLETED"
        if statuses[trial.trial_id] == "COMPLETED":
            oracle.update_trial(trial.trial_id, {"val_loss": score(values)}, step=1)
        trial.status = statuses[trial.trial_id]
        done[trial.trial_id] = dict(values)
        oracle.end_trial(trial)
    assert "FAILED" in statuses.values()
    for number, place in [(2, 0), (2, 1), (1, 0)]:
        here = {k: v for k, v in done.items() if (v["tuner/bracket"], v["tuner/round"]) == (
            number, place)}  # fmt: skip
        left = sorted((score(v), k) for k, v in here.items() if statuses[k] == "COMPLETED")
        promoted = {v["tuner/trial_id"] for v in done.values() if (
            v["tuner/bracket"], v["tuner/round"]) == (number, place + 1)}  # fmt: skip
        size = min(oracle._get_size(number, place + 1), len(left))
        assert promoted == {k for _, k in left[:size]}


def test_a_space_with_few_points_is_halved_all_the_same(tmp_path):
    counts = rounds(ended(make("hyperband", tmp_path)))  # 8 points, for 9 places in the first round
    assert 3 < counts[2, 0] <= 8
    assert (counts[2, 1], counts[2, 2]) == (3, 1)


@pytest.mark.parametrize("cut", [2, 3, 7, 10])
def test_a_sweep_grows_with_max_trials(cut, tmp_path):
    whole = ended(make("hyperband", tmp_path / "whole", space=continuous, max_trials=23))
    first = ended(make("hyperband", tmp_path / "a", space=continuous, max_trials=cut))
    grown = make("hyperband", tmp_path / "a", space=continuous, max_trials=23)
    grown.reload()
    assert expected_trials(grown) == 23
    rest = ended(grown)
    assert rounds(first + rest) == rounds(whole)
    # and a part of the way: what does not fit is left out, as from the beginning
    again = make("hyperband", tmp_path / "a", space=continuous, max_trials=40)
    again.reload()
    assert ended(again) == []


def test_states_are_needed_until_no_trial_can_go_on_from_them(tmp_path):
    oracle = make("hyperband", tmp_path, space=continuous)
    ended(oracle, most=9)
    assert trials_to_go_on_from(oracle) == set(oracle.trials)  # any may be among the best
    ended(oracle, most=3)
    promoted = {v.hyperparameters.values.get("tuner/trial_id") for v in oracle.trials.values()}
    needed = trials_to_go_on_from(oracle)
    assert not needed & promoted
    assert needed == {k for k, t in oracle.trials.items() if "tuner/trial_id" in (
        t.hyperparameters.values)}  # fmt: skip
    trial = oracle.create_trial("t")  # under way: it may be lost and begun again
    assert trial.hyperparameters.values["tuner/trial_id"] in trials_to_go_on_from(oracle)
    ended(oracle)
    assert trials_to_go_on_from(oracle) == set()


def test_expected_trials(tmp_path):
    assert expected_trials(make("random", tmp_path)) == 20
    assert expected_trials(make("bayesian", tmp_path, max_trials=7)) == 7
    assert expected_trials(make("grid", tmp_path, max_trials=3)) == 3


def test_failed_trials_do_not_end_the_search(tmp_path):
    oracle = make("random", tmp_path, space=continuous, max_trials=6)
    for _ in range(6):
        trial = oracle.create_trial("t")
        trial.status = "INVALID"
        oracle.end_trial(trial)
    assert len(oracle.trials) == 6
    assert {trial.status for trial in oracle.trials.values()} == {"FAILED"}


@pytest.mark.parametrize(
    ("oracle", "max_trials", "error", "words"),
    [
        ("baysian", None, ValueError, "Did you mean 'bayesian'"),
        (3, None, TypeError, "oracle=3"),
        (keras_tuner.oracles.RandomSearchOracle, None, TypeError, "Oracle object"),
        (
            keras_tuner.oracles.RandomSearchOracle(objective="val_loss"),
            5,
            ValueError,
            "`max_trials` is set by the Oracle",
        ),
        (
            keras_tuner.oracles.RandomSearchOracle(objective="val_accuracy"),
            None,
            ValueError,
            "'val_accuracy'",
        ),
    ],
)
def test_bad_oracles(oracle, max_trials, error, words):
    with pytest.raises(error, match=words):
        check_oracle(oracle, max_trials, OBJECTIVE)


def test_an_oracle_object_is_taken_as_it_is(tmp_path):
    given = keras_tuner.oracles.RandomSearchOracle(max_trials=3, seed=1)
    check_oracle(given, None, OBJECTIVE)
    made = make_oracle(given, objective=OBJECTIVE, space=space(), max_trials=None, epochs=1, seed=0)
    assert made is given
    assert made.objective == OBJECTIVE
    assert expected_trials(made) == 3
