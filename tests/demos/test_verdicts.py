"""What a demo says of its claim follows from the numbers: other numbers, another verdict."""

from __future__ import annotations

import importlib

import pandas as pd
import pytest

from kregs import demos
from kregs.demos.measuring import Difference, Finding, Verdict

SEEDS = range(3)


def table(columns, *rows):
    """One run a seed of each row; the numbers of a row are those of its mean."""
    names = columns.split()
    return pd.DataFrame(
        [dict(zip(names, row, strict=True)) | {"seed": s} for row in rows for s in SEEDS]
    )


# per claim: runs of which all that it says is so, and runs of which nothing is
CASES = {
    "augmentation_dropout": (
        "method test_loss moved_loss",
        [
            ("neither", 0.4, 0.9), ("dropout 0.3", 0.3, 0.8),
            ("shifts", 0.2, 0.2), ("shifts and dropout 0.3", 0.1, 0.1),
        ],
        [
            ("neither", 0.1, 0.1), ("dropout 0.3", 0.2, 0.2),
            ("shifts", 0.3, 0.3), ("shifts and dropout 0.3", 0.4, 0.4),
        ],
    ),
    "bias_batch_norm": (
        "method bias_gradient moved_output test_loss",
        [
            ("batch norm, bias", 1e-8, 1e-7, 0.2), ("batch norm, no bias", None, None, 0.2),
            ("no norm, bias", 0.5, 0.5, 0.3),
        ],
        [
            ("batch norm, bias", 0.5, 0.5, 0.2), ("batch norm, no bias", None, None, 0.3),
            ("no norm, bias", 1e-8, 1e-7, 0.2),
        ],
    ),
    "cost_epochs": (
        "method best_epochs epochs_to_same",
        [("none", 20, 20), ("L2, λ = 0.01", 30, 20), ("dropout 0.5", 50, 40)],
        [("none", 20, 20), ("L2, λ = 0.01", 30, 20), ("dropout 0.5", 19, 10)],
    ),
    "dropout_batch_norm": (
        "dropout variance_shift test_loss",
        [
            ("no dropout", 1.0, 0.2), ("before each batch norm", 2.0, 0.4),
            ("after each activation", 1.5, 0.3), ("before the output only", 1.0, 0.2),
        ],
        [
            ("no dropout", 1.0, 0.2), ("before each batch norm", 1.0, 0.1),
            ("after each activation", 1.5, 0.3), ("before the output only", 2.0, 0.4),
        ],
    ),
    "dropout_ensemble": (
        "method size test_loss",
        [
            ("ensemble, no dropout", 1, 0.4), ("ensemble, no dropout", 8, 0.2),
            ("ensemble, dropout", 8, 0.2), ("one network, average of masks", 8, 0.2),
            ("one network", 8, 0.2),
        ],
        [
            ("ensemble, no dropout", 1, 0.2), ("ensemble, no dropout", 8, 0.1),
            ("ensemble, dropout", 8, 0.1), ("one network, average of masks", 8, 0.2),
            ("one network", 8, 0.3),
        ],
    ),
    "early_stopping_l2": (
        "method steps test_loss apart",
        [
            ("stopped after τ steps", 10, 0.5, 0.01), ("stopped after τ steps", 100, 0.7, 0.05),
            ("ridge regression", 10, 0.5, None), ("ridge regression", 100, 0.7, None),
        ],
        [
            ("stopped after τ steps", 10, 0.9, 0.01), ("stopped after τ steps", 100, 0.7, 0.5),
            ("ridge regression", 10, 0.5, None), ("ridge regression", 100, 0.6, None),
        ],
    ),
    "he_glorot": (
        "depth method signal test_accuracy",
        [
            (2, "he_normal", 1.0, 0.9), (2, "glorot_normal", 0.7, 0.9),
            (24, "he_normal", 1.0, 0.9), (24, "glorot_normal", 1e-4, 0.1),
        ],
        [
            (2, "he_normal", 1.0, 0.9), (2, "glorot_normal", 0.7, 0.8),
            (24, "he_normal", 1e-4, 0.1), (24, "glorot_normal", 1.0, 0.9),
        ],
    ),
    "inverted_dropout": (
        "dropout largest_difference test_loss",
        [
            ("inverted", 0.0, 0.2), ("vanilla, matched", 1e-6, 0.2),
            ("vanilla, not matched", 0.3, 0.2),
        ],
        [
            ("inverted", 0.0, 0.2), ("vanilla, matched", 0.3, 0.2),
            ("vanilla, not matched", 1e-6, 0.3),
        ],
    ),
    "l1_zeroes": (
        "data method strength exact_zeros near_zero",
        [
            ("diabetes, linear", "L1, Adam", 0.1, 0.5, 0.5),
            ("diabetes, linear", "L2, Adam", 0.1, 0.0, 0.0),
            ("diabetes, linear", "lasso (scikit-learn)", 0.1, 0.5, 0.5),
            ("diabetes, linear", "L1, proximal Adam", 0.1, 0.5, 0.5),
        ],
        [
            ("diabetes, linear", "L1, Adam", 0.1, 0.0, 0.5),
            ("diabetes, linear", "L2, Adam", 0.1, 0.5, 0.5),
            ("diabetes, linear", "lasso (scikit-learn)", 0.1, 0.0, 0.0),
            ("diabetes, linear", "L1, proximal Adam", 0.1, 0.0, 0.0),
        ],
    ),
    "more_data": (
        "rows l2 validation_loss test_loss",
        [(50, 0.0, 0.9, 0.9), (50, 0.1, 0.8, 0.8), (100, 0.0, 0.5, 0.5), (100, 0.1, 0.6, 0.6)],
        [(50, 0.0, 0.9, 0.9), (50, 0.1, 0.8, 0.8), (100, 0.0, 0.9, 0.9), (100, 0.1, 0.6, 0.6)],
    ),
    "priors": (
        "prior penalty factor error from_exact",
        [
            ("Gaussian", "L2", 1.0, 0.1, 1e-5), ("Gaussian", "L2", 10.0, 0.2, 1e-5),
            ("Gaussian", "L1", 1.0, 0.2, 1e-5), ("Laplace", "L1", 1.0, 0.1, 1e-5),
            ("Laplace", "L1", 10.0, 0.2, 1e-5), ("Laplace", "L2", 1.0, 0.2, 1e-5),
        ],
        [
            ("Gaussian", "L2", 1.0, 0.3, 0.5), ("Gaussian", "L2", 10.0, 0.2, 0.5),
            ("Gaussian", "L1", 1.0, 0.2, 0.5), ("Laplace", "L1", 1.0, 0.3, 0.5),
            ("Laplace", "L1", 10.0, 0.2, 0.5), ("Laplace", "L2", 1.0, 0.2, 0.5),
        ],
    ),
    "val_loss_lambda": (
        "data l2 val_loss val_data_loss test_loss",
        [("digits", 0.0, 0.3, 0.3, 0.3), ("digits", 0.01, 0.4, 0.2, 0.2)],
        [("digits", 0.0, 0.5, 0.3, 0.3), ("digits", 0.01, 0.4, 0.2, 0.2)],
    ),
    "weight_decay_adam": (
        "method learning_rate strength validation_loss test_loss apart",
        [
            ("Adam, L2", 0.1, 1e-3, 0.5, 0.5, None), ("Adam, L2", 0.1, 1e-2, 0.6, 0.6, None),
            ("Adam, L2", 0.2, 1e-3, 0.7, 0.7, None), ("Adam, L2", 0.2, 1e-2, 0.6, 0.6, None),
            ("AdamW, weight decay", 0.1, 1.0, 0.2, 0.2, None),
            ("AdamW, weight decay", 0.2, 1.0, 0.3, 0.3, None),
            ("AdamW, weight decay", 0.1, 10.0, 0.4, 0.4, None),
            ("AdamW, weight decay", 0.2, 10.0, 0.5, 0.5, None),
            ("SGD: twins", None, None, None, None, 1e-6),
            ("Adam: twins", None, None, None, None, 0.5),
        ],
        [
            ("AdamW, weight decay", 0.1, 1.0, 0.5, 0.5, None),
            ("AdamW, weight decay", 0.1, 10.0, 0.6, 0.6, None),
            ("AdamW, weight decay", 0.2, 1.0, 0.7, 0.7, None),
            ("AdamW, weight decay", 0.2, 10.0, 0.6, 0.6, None),
            ("Adam, L2", 0.1, 1e-3, 0.2, 0.2, None), ("Adam, L2", 0.2, 1e-3, 0.3, 0.3, None),
            ("Adam, L2", 0.1, 1e-2, 0.4, 0.4, None), ("Adam, L2", 0.2, 1e-2, 0.5, 0.5, None),
            ("SGD: twins", None, None, None, None, 0.5),
            ("Adam: twins", None, None, None, None, 1e-6),
        ],
    ),
}  # fmt: skip


def judged(name, columns, rows):
    return importlib.import_module(f"kregs.demos.claims.{name}").judge(table(columns, *rows))


@pytest.mark.parametrize("name", [entry.name for entry in demos.demos()])
def test_other_numbers_make_another_verdict(name):
    columns, so, not_so = CASES[name]
    verdict = judged(name, columns, so)
    assert [finding.holds for finding in verdict.findings] == [True] * len(verdict.findings), str(
        verdict
    )
    assert str(verdict).startswith("Holds on these data.")
    opposite = judged(name, columns, not_so)
    assert not any(finding.holds for finding in opposite.findings), str(opposite)
    assert str(opposite).startswith("Does not hold on these data.")


def test_a_verdict_of_both_kinds_holds_in_part():
    verdict = Verdict([Finding("one", True, "1"), Finding("two", False, "2")])
    assert verdict.outcome == "holds in part"
    assert str(verdict) == "Holds in part on these data. One: yes (1). Two: no (2)."


def test_what_lies_within_two_standard_errors_is_no_difference():
    for mean in (-0.019, 0.019):
        difference = Difference(mean, 0.01)
        assert not difference.above
        assert not difference.below
    assert Difference(0.021, 0.01).above
    assert Difference(-0.021, 0.01).below
    # of one run there is no error, and no difference that counts
    assert not Difference.of(pd.Series([1.0])).above


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "certain"), [("priors", [0]), ("inverted_dropout", [0])])
def test_what_is_mathematics_holds_at_full_size(name, certain):
    """Whatever the data: the posterior's mode, and the equality of two dropouts."""
    findings = demos.run(name, seed=1).verdict.findings
    assert all(findings[number].holds for number in certain), str(findings)
