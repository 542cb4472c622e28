"""What is trained last on a table, and how its probabilities are scaled."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from kregs.search.fold_ensemble import NoFoldWeights
from kregs.tables.final import MEMBERS, calibrated, make_plan

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 200)
P = softmax(3 * RNG.normal(size=(200, 3)) + 2 * np.eye(3)[Y], axis=1)


def result(*, selection="best", folds=True, kept=True):
    """A search of two trials of which the second was chosen."""
    asked = []

    def fold_ensemble(size, *, trials):
        asked.append((size, trials))
        if not kept:
            raise NoFoldWeights("in which none did")
        counts = {0: 5, 1: 3} if trials is None else {trials[0]: size}
        return SimpleNamespace(counts=counts, out_of_fold=P, score=0.5)

    trials = [{"trial": n, "best_epoch": 4 + n, "hyperparameters": {"l2": n}} for n in (0, 1)]
    return SimpleNamespace(
        chosen_trial=1,
        objective="val_data_loss",
        data=SimpleNamespace(splits=[0, 1] if folds else None),
        record=SimpleNamespace(trials=trials),
        protocol=SimpleNamespace(selection=selection),
        fold_ensemble=fold_ensemble,
        asked=asked,
    )


@pytest.mark.parametrize(
    ("search", "ensemble", "counts", "asked"),
    [
        ({}, True, {0: 5, 1: 3}, (MEMBERS, None)),
        ({}, False, {1: 1}, (1, [1])),
        ({"selection": "one_standard_error"}, True, {1: MEMBERS}, (MEMBERS, [1])),
        ({"folds": False}, True, {1: MEMBERS}, None),
        ({"kept": False}, True, {1: MEMBERS}, (MEMBERS, None)),
        ({"kept": False}, False, {1: 1}, (1, [1])),
    ],
)
def test_which_networks_are_trained(search, ensemble, counts, asked):
    found = result(**search)
    plan = make_plan(found, Y, ensemble=ensemble, classes=True)
    assert plan.counts == counts
    assert found.asked == ([] if asked is None else [asked])
    judged = search.get("folds", True) and search.get("kept", True)
    assert (plan.record["calibration"] is not None) == judged
    if ensemble:
        members = plan.record["ensemble"]["members"]
        assert {m["trial"]: m["networks"] for m in members} == counts
        assert all(m["epochs"] == 4 + m["trial"] for m in members)
    else:
        assert plan.record["ensemble"] is None


def test_other_errors_of_the_ensemble_are_not_hidden():
    found = result()

    def fold_ensemble(size, *, trials):
        raise ValueError("a file is broken")

    found.fold_ensemble = fold_ensemble
    with pytest.raises(ValueError, match="a file is broken"):
        make_plan(found, Y, ensemble=True, classes=True)


def test_no_temperature_for_numbers():
    plan = make_plan(result(), RNG.normal(size=200), ensemble=True, classes=False)
    assert plan.temperature == 1.0
    assert plan.record["calibration"] is None


def test_the_temperature_is_scipys_minimum():
    def loss(temperature):
        return log_loss(Y, softmax(np.log(P) / temperature, axis=1))

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-7})
    found = calibrated(P, Y)
    assert found["temperature"] == pytest.approx(best.x, rel=1e-4)
    assert found["log_loss_before"] == pytest.approx(log_loss(Y, P))
    assert found["log_loss_after"] == pytest.approx(loss(best.x))


def test_weights_of_rows_count_in_the_temperature():
    weights = np.array([0.2, 1.0, 5.0])[Y]

    def loss(temperature):
        return log_loss(Y, softmax(np.log(P) / temperature, axis=1), sample_weight=weights)

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-7})
    plan = make_plan(result(), Y, ensemble=True, classes=True, weights=weights)
    assert plan.temperature == pytest.approx(best.x, rel=1e-4)
    assert plan.temperature != pytest.approx(calibrated(P, Y)["temperature"], rel=1e-2)
    found = plan.record["calibration"]
    assert found["log_loss_before"] == pytest.approx(loss(1.0))
    assert found["log_loss_after"] == pytest.approx(loss(best.x))


def test_without_a_best_temperature_nothing_is_scaled():
    sure = np.where(np.eye(3)[Y] == 1, 0.9, 0.05)
    assert calibrated(sure, Y)["temperature"] == 1.0
