"""What a search is told: weights of classes, doubtful arguments, seeds, an oracle's own bounds."""

from __future__ import annotations

import warnings

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

import kregs
from kregs.search.data import prepare_data
from kregs.training.targets import DoubtfulInput

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 4)).astype("float32")
Y = np.repeat([0, 1, 2], [36, 18, 6])


def build(hp):
    regularization = kregs.Regularization.from_hp(hp, l2=[0.01, 0.1])
    model = kregs.linear((4,), 3, head_activation="softmax", regularization=regularization)
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", learning_rate=0.1, metrics=["accuracy"]
    )


def search(tmp_path, name, **arguments):
    arguments = {"oracle": "grid", "epochs": 2, "verbose": 0, **arguments}
    return kregs.tune(build, X, Y, directory=tmp_path, project_name=name, **arguments)


@pytest.mark.nightly
def test_balanced_classes_are_the_same_search_as_their_weights(tmp_path):
    balanced = search(tmp_path, "balanced", class_weight="balanced", folds=3)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=Y)
    given = search(tmp_path, "given", class_weight=dict(enumerate(weights)), folds=3)
    plain = search(tmp_path, "plain", folds=3)
    assert balanced.trials()["score"].tolist() == given.trials()["score"].tolist()
    assert balanced.trials()["score"].tolist() != plain.trials()["score"].tolist()
    # the training on all rows is weighted, too, when it is done again as well
    models = balanced.best_model(), given.best_model(), balanced.refit(X, Y), given.refit(X, Y)
    for a, *others in zip(*(model.get_weights() for model in models), strict=True):
        for b in others:
            np.testing.assert_array_equal(a, b)
    assert 'class_weight="balanced"' in balanced.protocol.call()


def test_classes_are_counted_on_the_rows_that_are_trained_on():
    data = prepare_data(
        X, Y, validation_data=None, validation_split=0.5, sample_weight=None, seed=3,
        model=build(keras_tuner.HyperParameters()), class_weight="balanced",
    )  # fmt: skip
    expected = compute_class_weight("balanced", classes=np.arange(3), y=data.fit["y"])
    assert data.class_weight == dict(enumerate(expected))


@pytest.mark.nightly
def test_doubtful_arguments_are_warned_of_once(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        goal = keras_tuner.Objective("accuracy", "max")
        search(tmp_path, "doubtful", objective=goal, class_weight={0: 1.0, 5: 2.0}, nested=2)
    messages = sorted(str(w.message) for w in caught if w.category is DoubtfulInput)
    assert len(messages) == 2
    assert "classes without a row: 5" in messages[0]
    assert "Did you mean 'val_accuracy'?" in messages[1]


def test_the_largest_seed(tmp_path):
    assert search(tmp_path, "seed", seed=2**32 - 1).seed == 2**32 - 1


def test_an_oracle_object_has_its_own_settings(tmp_path):
    def oracle():
        return keras_tuner.oracles.RandomSearchOracle(objective="val_loss", max_trials=2)

    options = {"directory": tmp_path, "oracle": oracle()}
    with pytest.raises(ValueError, match=r"`max_trials` is set by the Oracle .* max_trials=5"):
        kregs.PopulationTuner(build, max_trials=5, **options)
    with pytest.raises(ValueError, match="`objective` must be the one of the Oracle"):
        kregs.PopulationTuner(build, "val_accuracy", **options)
    tuner = kregs.PopulationTuner(build, "val_loss", **options)
    assert tuner.oracle.max_trials == 2


def test_an_objective_is_given_to_an_oracle_without_one(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=2)
    tuner = kregs.PopulationTuner(build, "val_accuracy", oracle=oracle, directory=tmp_path)
    assert (tuner.oracle.objective.name, tuner.oracle.objective.direction) == (
        "val_accuracy",
        "max",
    )


def test_the_nearest_of_all_arguments_is_suggested(tmp_path):
    with pytest.raises(TypeError, match=r"Did you mean 'executions_per_trial'\?"):
        kregs.PopulationTuner(build, "val_loss", executions_per_trials=2, directory=tmp_path)


def test_population_balances_classes():
    def population():
        model = kregs.linear((4,), 3, head_activation="softmax", seed=1)
        kregs.compile_model(model, "sparse_categorical_crossentropy", optimizer="sgd")
        return kregs.Population.from_models([model])

    weights = dict(enumerate(compute_class_weight("balanced", classes=np.arange(3), y=Y)))
    reference = keras.models.clone_model(population().models[0])
    reference.compile("sgd", "sparse_categorical_crossentropy")
    reference.set_weights(population().models[0].get_weights())
    reference.fit(X, Y, batch_size=60, class_weight=weights, shuffle=False, verbose=0)
    stacked = population()
    stacked.fit(X, Y, batch_size=10**6, class_weight="balanced", shuffle=False)
    for a, b in zip(stacked.unstack()[0].get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
