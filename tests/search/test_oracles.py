from __future__ import annotations

import keras_tuner
import pytest

from kregs.search.keras_tuner_internals import write_whole_files
from kregs.search.objective import make_objective
from kregs.search.oracles import check_oracle, expected_trials, make_oracle
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
