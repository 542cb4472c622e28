"""A search that ends with the most restrained of the trials as good as the best."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.model_selection import RepeatedKFold

import kregs
from kregs.search.judging.choose import choose

generator = np.random.default_rng(0)
X = generator.normal(size=(60, 3)).astype("float32")
Y = (X.sum(1) + 2.0 * generator.normal(size=60)).astype("float32")


def build(hp):
    """`pool2` is the learning rate's, and the penalty is called something else."""
    rate = hp.Choice("pool2", [0.05, 0.1])
    strong = hp.Choice("how_strong", [0.01, 0.0, 0.03])
    penalty = keras.regularizers.L2(strong)
    layers = [keras.Input((3,)), keras.layers.Dense(1, kernel_regularizer=penalty)]
    return kregs.compile_model(keras.Sequential(layers), "mse", learning_rate=rate)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return kregs.tune(
        build, X, Y, oracle="grid", folds=RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
        selection="one_standard_error", epochs=8, batch_size=16, callbacks=[], verbose=0,
        directory=tmp_path_factory.mktemp("selection"),
    )  # fmt: skip


def differences(result, a, b):
    both = [result.scores(trial)["score"].to_numpy() for trial in (a, b)]
    return both[0] - both[1]


def error_within_repeats(values):
    return np.sqrt(np.mean([np.var(part, ddof=1) / 3 for part in (values[:3], values[3:])]))


def test_the_penalty_of_the_built_models_decides(result):
    trials = result.trials().set_index("trial")
    assert len(trials) == 6
    best = result.best_trial
    as_good = [
        number for number in trials.index
        if (gap := differences(result, number, best)).mean() <= error_within_repeats(gap)
    ]  # fmt: skip
    assert len(as_good) > 1
    penalty = trials["how_strong"]
    stronger = [number for number in as_good if penalty[number] == penalty[as_good].max()]
    assert penalty[as_good].max() > penalty[best]
    # of two learning rates, which restrain nothing, the better score
    assert result.chosen_trial == trials.loc[stronger, "score"].idxmin()
    for number in trials.index:
        numbers = result.restraints(number)["numbers"]
        value = penalty[number]
        assert numbers == ({"l2": {"weight 0": value}} if value else {})


def test_the_error_of_repeats_is_that_of_one(result):
    for number in result.trials()["trial"]:
        values = result.scores(number)["score"].to_numpy()
        error = result.trials().set_index("trial")["standard_error"][number]
        assert error == pytest.approx(error_within_repeats(values))


def test_a_declared_order_decides(result):
    """Each order takes the end of the trials as good as the best that it names."""
    strong = result.trials().set_index("trial")["how_strong"]

    def chosen(*restraint):
        protocol = dataclasses.replace(result.protocol, restraint=restraint)
        record = dataclasses.replace(result.record, protocol=protocol)
        return strong[record.with_trials(result.record.trials).chosen["trial"]]

    assert chosen("how_strong") == strong[result.chosen_trial] > strong[result.best_trial]
    assert chosen("-how_strong") <= strong[result.best_trial]


def test_declared_names_are_kept_with_the_search(tmp_path):
    def tune(restraint, **changes):
        return kregs.tune(
            build, X, Y, oracle="grid", folds=3, selection="one_standard_error", epochs=1,
            restraint=restraint, verbose=0, directory=tmp_path, **changes,
        )  # fmt: skip

    result = tune(["-pool2", "how_strong"])
    loaded = kregs.load_result(result.path)
    assert loaded.protocol.restraint == ("-pool2", "how_strong")
    assert loaded.chosen_trial == result.chosen_trial
    record = result.record
    expected = choose(
        record.trials, direction="min", selection="one_standard_error",
        restraint=["-pool2", "how_strong"], held_out_share=0.5,
    )  # fmt: skip
    assert result.chosen_trial == expected["trial"]
    assert 'restraint=["-pool2", "how_strong"],' in result.protocol.call()
    with pytest.raises(ValueError, match="Expected restraint"):
        tune(["how_strong"], resume=True)
    with pytest.raises(ValueError, match="Did you mean 'how_strong'"):
        tune(["how_stron"], project_name="other")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"restraint": ["how_strong"]}, 'pass selection="one_standard_error", too'),
        (
            {"restraint": "how_strong", "selection": "one_standard_error", "folds": 2},
            "must be a list",
        ),
    ],
)
def test_a_wrong_restraint(changes, words, tmp_path):
    with pytest.raises((TypeError, ValueError), match=words):
        kregs.tune(build, X, Y, directory=tmp_path, verbose=0, **changes)


def test_the_bias_is_read_from_the_folds(result):
    scores = np.array([result.scores(n)["score"] for n in range(6)])
    best = scores.mean(axis=1).argmin()
    expected = (scores[best] - scores.min(axis=0)).mean()
    assert result.score_bias == pytest.approx(expected)
    assert expected > 0
    report = result.report().read_text()
    assert "Tibshirani" in report


def test_a_comparison_with_the_best_says_so(result):
    others = set(range(6)) - {result.best_trial, result.chosen_trial}
    a, b, *_ = others
    assert result.compare(a, b).chosen_out_of is None
    assert result.compare(a, result.best_trial).chosen_out_of == 6
    assert result.compare(result.chosen_trial, b).chosen_out_of == 6
    told = result.compare(a, b)
    gap = differences(result, a, b)
    assert told.pairs == 6
    # Bouckaert and Frank: all folds of all repeats count, with the variance corrected
    expected = np.sqrt(gap.var(ddof=1) * (1 / 6 + 20 / 40))
    assert told.standard_error == pytest.approx(expected)


def test_reading_it_needs_no_tensorflow(result):
    code = (
        "import sys, kregs; r = kregs.load_result(sys.argv[1]); "
        "print(r.chosen_trial, r.score_bias, r.restraints(0), r.compare(0, 1), r.kernels(0)); "
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(result.path)], check=True, timeout=100)


def test_importance_is_public(tmp_path):
    result = kregs.tune(
        build, X, Y, oracle="grid", epochs=1, verbose=0, directory=tmp_path, callbacks=[]
    )
    with pytest.raises(ValueError, match="6 completed points of the space are too few"):
        result.importance()
    from kregs.reporting.importance import measure_importance

    # many more trials, whose score is that of the strength
    rng = np.random.default_rng(0)
    trials = [
        {**result.record.trials[0], "trial": i, "id": str(i), "score": strong,
         "hyperparameters": {"how_strong": strong, "pool2": float(rng.choice([0.05, 0.1]))}}
        for i, strong in enumerate(rng.uniform(0.0, 0.03, 40))
    ]  # fmt: skip
    result.record = dataclasses.replace(result.record, trials=trials)
    table = result.importance()
    assert list(table) == ["hyperparameter", "importance", "standard_error"]
    assert table["hyperparameter"].tolist() == ["how_strong", "pool2"]
    assert table["importance"][0] > 1 > 10 * abs(table["importance"][1])
    again = measure_importance(result.trials(), result.samplings, seed=result.seed)
    assert table.attrs == {"r2": again.r2, "trials": 40}
