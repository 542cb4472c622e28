"""Trials judged by scikit-learn's metrics of the predictions on validation rows."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import make_classification

import kregs
from kregs.search.judging.scorer import make_scorer
from kregs.search.objective import make_objective
from kregs.search.protocol import Protocol

X, Y = make_classification(160, 6, n_informative=4, flip_y=0.2, random_state=0)
X = X.astype("float32")
TRAIN, VALIDATION = slice(0, 100), slice(100, 160)
WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, len(Y)).astype("float32")


def build(hp):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.HeNormal(seed=1)),
            keras.layers.Dense(1, "sigmoid", kernel_initializer=keras.initializers.Zeros()),
        ]
    )
    rate = hp.Float("rate", 1e-2, 1e-1, sampling="log")
    return kregs.compile_model(model, "binary_crossentropy", learning_rate=rate)


def search(folder, name, **options):
    options = {"max_trials": 1, "epochs": 3, "callbacks": [], **options}
    return kregs.tune(
        build, X, Y, verbose=0, seed=1, directory=folder, project_name=name, **options
    )


@pytest.fixture(scope="module")
def three_classes():
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), 50).astype("float32")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("neg_log_loss", lambda y, p: metrics.log_loss(y, p)),
        ("accuracy", lambda y, p: metrics.accuracy_score(y, p.argmax(1))),
        ("balanced_accuracy", lambda y, p: metrics.balanced_accuracy_score(y, p.argmax(1))),
        ("roc_auc", lambda y, p: metrics.roc_auc_score(y, p, multi_class="ovr")),
        ("f1_macro", lambda y, p: metrics.f1_score(y, p.argmax(1), average="macro")),
        ("rmse", lambda y, p: metrics.root_mean_squared_error(y, p[:, 0])),
        ("neg_mean_absolute_error", lambda y, p: metrics.mean_absolute_error(y, p[:, 0])),
        ("mse", lambda y, p: metrics.mean_squared_error(y, p[:, 0])),
        ("r2", lambda y, p: metrics.r2_score(y, p[:, 0])),
    ],
)
def test_values_are_scikit_learns(name, expected, three_classes):
    y, p = three_classes
    p = (p.astype("float64").T / p.astype("float64").sum(axis=1)).T
    scorer = make_scorer(name)
    outputs = p if scorer.of_classes else p[:, :1]
    assert scorer.value(y, outputs) == pytest.approx(expected(y, p), rel=1e-12)


def test_what_is_not_defined_is_no_number(three_classes):
    y, p = three_classes
    assert np.isnan(make_scorer("roc_auc").value(np.zeros_like(y), p))
    assert np.isnan(make_scorer("accuracy").value(y, np.full_like(p, np.nan)))
    assert np.isfinite(make_scorer("log_loss").value(np.zeros_like(y), p))


@pytest.mark.parametrize("name", ["log_loss", "roc_auc"])
def test_logits_one_hot_rows_and_weights(name, three_classes):
    y, p = three_classes
    weight, scorer = np.arange(1.0, 51.0), make_scorer(name)
    expected = scorer.value(y, p, weight)
    assert scorer.value(np.eye(3)[y], np.log(p), weight, from_logits=True) == pytest.approx(
        expected, rel=1e-5
    )
    times = weight.astype(int)
    assert expected == pytest.approx(scorer.value(np.repeat(y, times), np.repeat(p, times, axis=0)))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_the_score_is_that_of_the_predictions(tmp_path, engine):
    result = kregs.tune(
        build, X[TRAIN], Y[TRAIN], sample_weight=WEIGHT[TRAIN], objective="roc_auc",
        validation_data=(X[VALIDATION], Y[VALIDATION], WEIGHT[VALIDATION]),
        max_trials=1, epochs=3, score_at="last_epoch", engine=engine, verbose=0,
        directory=tmp_path,
    )  # fmt: skip
    predicted = result.best_model().predict(X[VALIDATION], verbose=0)[:, 0]
    expected = metrics.roc_auc_score(Y[VALIDATION], predicted, sample_weight=WEIGHT[VALIDATION])
    assert result.best_score == pytest.approx(expected, abs=1e-9)
    assert result.objective == "val_roc_auc"
    assert 'objective="roc_auc",' in result.protocol.call()
    assert any("scikit-learn's metric `roc_auc`" in line for line in result.protocol.sentences())


@pytest.mark.nightly
@pytest.mark.parametrize("rows", [{"folds": 2}, {"validation_split": 0.4}], ids=["folds", "halves"])
def test_both_engines_judge_alike(tmp_path, rows):
    together, alone = (
        search(tmp_path, engine, engine=engine, objective="log_loss", **rows)
        for engine in ("population", "sequential")
    )
    one, other = together.history(0), alone.history(0)
    np.testing.assert_allclose(one["val_log_loss"], other["val_log_loss"], rtol=1e-4)
    # without weights or label smoothing it is Keras's mean
    np.testing.assert_allclose(one["val_log_loss"], one["val_data_loss"], rtol=1e-4)
    np.testing.assert_allclose(together.scores(0)["score"], alone.scores(0)["score"], rtol=1e-4)


def test_early_stopping_and_direction_follow_the_metric():
    for name, direction in (("balanced_accuracy", "max"), ("neg_mean_absolute_error", "min")):
        objective = make_objective(name)
        assert objective.direction == direction
        assert objective.name == f"val_{name.removeprefix('neg_')}"


def test_a_record_without_scorer_is_read():
    stored = Protocol(objective="val_loss", direction="min", data=_summary()).to_json()
    del stored["scorer"]
    assert Protocol.from_json(stored).scorer is None


def _summary():
    from kregs.search.protocol import DataSummary

    return DataSummary(validation="given")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("rmse", "is a metric of numbers.*binary_crossentropy"),
        ("rock_auc", "must be one of the metrics.*Did you mean 'roc_auc'"),
    ],
)
def test_unfit_metrics_are_refused(tmp_path, objective, message):
    with pytest.raises(ValueError, match=message):
        search(tmp_path, "unfit", objective=objective)


def test_an_oracle_object_may_have_its_objective(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_accuracy", "max"), max_trials=1
    )
    tuner = kregs.PopulationTuner(
        build, "accuracy", oracle=oracle, directory=tmp_path, project_name="oracle"
    )
    tuner.search(X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    accuracy = metrics.accuracy_score(Y, tuner.get_best_models()[0].predict(X, verbose=0) > 0.5)
    assert tuner.oracle.get_best_trials()[0].score == pytest.approx(accuracy)
