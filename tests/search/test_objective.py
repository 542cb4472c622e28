from __future__ import annotations

import keras_tuner
import pytest

from kregs.search.objective import check_logged, make_objective


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_data_loss", "min"),
        ("val_loss", "min"),
        ("val_mean_absolute_error", "min"),
        ("val_accuracy", "max"),
        ("val_auc", "max"),
        ("val_auc_1", "max"),
        ("data_loss", "min"),
        ("val_cosine_similarity", "max"),
    ],
)
def test_direction_is_inferred(name, direction):
    objective = make_objective(name)
    assert (objective.name, objective.direction) == (name, direction)


def test_an_objective_is_taken_as_it_is():
    objective = keras_tuner.Objective("val_strange", "max")
    assert make_objective(objective) is objective


@pytest.mark.parametrize(
    ("objective", "error", "words"),
    [
        ("val_strange", ValueError, r"keras_tuner.Objective\('val_strange', 'min'\)"),
        (["val_loss", "val_accuracy"], TypeError, "one metric"),
        (None, TypeError, "objective=None"),
        ("", TypeError, "objective=''"),
        (keras_tuner.Objective("a", "down"), ValueError, "direction='down'"),
    ],
)
def test_bad_objectives(objective, error, words):
    with pytest.raises(error, match=words):
        make_objective(objective)


def test_several_objectives_are_refused():
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=["val_loss", keras_tuner.Objective("val_accuracy", "max")]
    )
    with pytest.raises(TypeError, match="one metric"):
        make_objective(oracle.objective)


def test_an_objective_that_is_not_logged():
    logged = ["loss", "accuracy", "val_loss", "val_accuracy"]
    check_logged(make_objective("val_accuracy"), logged)
    with pytest.raises(ValueError, match=r"Did you mean 'val_accuracy'\?"):
        check_logged(make_objective("val_acuracy_loss"), ["loss", "val_accuracy"])
    with pytest.raises(ValueError, match=r"kregs\.compile_model"):
        check_logged(make_objective("val_data_loss"), logged)
