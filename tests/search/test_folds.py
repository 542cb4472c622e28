"""Folds: which rows a trial is trained and judged on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kregs.search.folds import halves_of, make_splits, transform_folds, with_halves
from kregs.search.judging.score import judge
from kregs.search.objective import make_objective
from kregs.search.runs import RunOutcome, RunState, Split, make_runs
from kregs.search.storage import read_outcome, write_outcome

Y = np.repeat([0, 1, 2], [50, 40, 10])
GROUPS = np.arange(100) // 7


def test_a_number_of_folds_is_stratified_and_partitions_the_rows():
    splits, words = make_splits(5, Y, labels=Y, seed=1)
    assert "StratifiedKFold" in words
    assert sorted(np.concatenate([s.validation for s in splits])) == list(range(100))
    for split in splits:
        assert not set(split.train) & set(split.validation)
        assert np.bincount(Y[split.validation]).tolist() == [10, 8, 2]


def test_folds_are_seeded():
    same, again, other = (make_splits(5, Y, labels=Y, seed=s)[0][0].validation for s in (1, 1, 2))
    assert same.tolist() == again.tolist()
    assert same.tolist() != other.tolist()


def test_numbers_that_are_no_classes_are_not_stratified():
    _, words = make_splits(5, np.arange(100) % 60, labels=None)
    assert words.startswith("KFold")


@pytest.mark.parametrize("labels", [Y, None], ids=["classes", "numbers"])
@pytest.mark.parametrize("folds", [4, GroupKFold(4)], ids=["number", "splitter"])
def test_a_group_is_in_one_fold(folds, labels):
    order = np.random.default_rng(0).permutation(100)
    own = None if labels is None else labels[order]
    splits, _ = make_splits(folds, Y[order], labels=own, groups=GROUPS)
    for split in splits:
        assert not set(GROUPS[split.train]) & set(GROUPS[split.validation])


@pytest.mark.parametrize("splitter", [StratifiedKFold(4), TimeSeriesSplit(3), ShuffleSplit(2)])
def test_splitters_are_used_as_they_are(splitter):
    y = np.tile([0, 1], 50)
    splits, _ = make_splits(splitter, y, labels=y)
    if isinstance(splitter, ShuffleSplit):
        assert len(splits) == 2
        return
    for ours, (train, validation) in zip(splits, splitter.split(np.zeros(100), y), strict=True):
        np.testing.assert_array_equal(ours.train, train)
        np.testing.assert_array_equal(ours.validation, validation)


BAD = {
    "one fold": ({"folds": 1}, ValueError, "`folds`"),
    "no number": ({"folds": "five"}, TypeError, "scikit-learn splitter"),
    "a bool": ({"folds": True}, TypeError, "scikit-learn splitter"),
    "too many": ({"folds": 101}, ValueError, "number of rows, 100"),
    "few groups": ({"folds": 20, "groups": GROUPS}, ValueError, "number of groups, 15"),
    "groups of the wrong length": (
        {"folds": 4, "groups": GROUPS[:-1]},
        ValueError,
        "one label a row",
    ),
    "groups not used": (
        {"folds": StratifiedKFold(3), "groups": GROUPS},
        ValueError,
        "not used by StratifiedKFold",
    ),
    "a class of one row": (
        {"folds": 5, "labels": np.r_[np.zeros(99, int), 7]},
        ValueError,
        "without class",
    ),
    "a fold without a class": (
        {"folds": TimeSeriesSplit(3), "labels": np.repeat([0, 1], 50)},
        ValueError,
        "fold 1 would be trained without class",
    ),
    "no groups": ({"folds": GroupKFold(3)}, ValueError, "GroupKFold cannot divide"),
    "one split": ({"folds": ShuffleSplit(1)}, ValueError, "at least 2 folds"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folds(name):
    arguments, error, words = BAD[name]
    with pytest.raises(error, match=words):
        make_splits(**{"y": Y, "labels": Y, **arguments})


def test_every_fold_runs_with_every_seed():
    splits = [Split(np.arange(3), np.arange(3, 5))] * 2
    assert [(r.number, r.fold, r.seed) for r in make_runs(splits, 3)] == [
        (0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 0), (4, 1, 1), (5, 1, 2),
    ]  # fmt: skip
    assert [(r.number, r.fold, r.seed) for r in make_runs(None, 2)] == [(0, None, 0), (1, None, 1)]


def test_a_transformer_sees_the_training_rows_of_its_fold_only():
    x = np.random.default_rng(0).normal(3.0, 2.0, (100, 2))
    splits, _ = make_splits(4, Y, labels=Y)
    prepared = transform_folds(StandardScaler(), x, Y, splits)
    assert prepared.x.shape == (400, 2)
    for before, after in zip(splits, prepared.splits, strict=True):
        np.testing.assert_array_equal(after.train, before.train)
        np.testing.assert_array_equal(after.validation, before.validation)
        scaler = StandardScaler().fit(x[before.train])
        for rows, places in (
            (before.train, after.train_places),
            (before.validation, after.validation_places),
        ):
            np.testing.assert_array_equal(prepared.rows[places], rows)
            expected = scaler.transform(x[rows])
            np.testing.assert_allclose(prepared.x[places], expected, rtol=1e-5, atol=1e-6)


def epochs_scored(splits):
    """The epochs that folds are scored at, where fold k is best at epoch k."""
    histories = [{"val_loss": [abs(e - fold) + 1.0 for e in range(9)]} for fold in range(9)]
    runs = make_runs(splits, 1)
    scores = judge(histories[: len(runs)], runs, make_objective("val_loss")).scores
    return [score["epoch"] for score in scores]


def test_prepared_rows_of_overlapping_folds_choose_no_epoch_for_one_another():
    folds = RepeatedKFold(n_splits=2, n_repeats=2, random_state=3)
    splits, _ = make_splits(folds, Y, labels=None)
    prepared = transform_folds(StandardScaler(), Y[:, None] * 1.0, Y, splits).splits
    assert with_halves(prepared, labels=Y) == prepared  # the other fold of a repeat can choose
    # the two folds of a repeat choose for one another
    assert epochs_scored(prepared) == epochs_scored(splits) == [1, 0, 3, 2]


GROUPED = {
    "classes": Y[np.random.default_rng(1).permutation(100)],
    "numbers": np.linspace(0.0, 1.0, 100),
}


@pytest.mark.parametrize("y", GROUPED)
def test_a_group_is_in_one_half(y):
    y = GROUPED[y]
    labels = y if y.dtype.kind == "i" else None
    splits, _ = make_splits(GroupShuffleSplit(3, random_state=1), y, labels=None, groups=GROUPS)
    for split in with_halves(splits, labels=labels, groups=GROUPS, seed=2):
        a, b = (split.validation[half] for half in split.halves)
        assert sorted([*a, *b]) == sorted(split.validation)
        assert min(len(a), len(b)) > 0
        assert not set(GROUPS[a]) & set(GROUPS[b])
    mixed = halves_of(len(splits[0].validation), seed=2)
    assert set(GROUPS[splits[0].validation[mixed[0]]]) & set(GROUPS[splits[0].validation[mixed[1]]])


def test_halves_of_folds_in_time_are_the_earlier_and_the_later_rows():
    splits, _ = make_splits(TimeSeriesSplit(4), np.arange(100.0), labels=None)
    halved = with_halves(splits)
    assert [len(split.halves[0]) for split in halved] == [10] * 4
    for split in halved:
        earlier, later = (split.validation[half] for half in split.halves)
        assert split.train.max() < earlier.min()
        assert earlier.max() < later.min()
        assert sorted([*earlier, *later]) == split.validation.tolist()
    # a series of each of several sites: whole ones in a half, the middle is within site 1
    sites = np.repeat([5, 1, 2], [2, 6, 2])
    first, second = halves_of(10, groups=sites, order=np.arange(10))
    assert (first.tolist(), second.tolist()) == ([*range(8)], [8, 9])
    first, second = halves_of(10, groups=sites[::-1] > 1, order=np.arange(10))
    assert set((sites[::-1] > 1)[first]) & set((sites[::-1] > 1)[second]) == set()
    assert halves_of(10, groups=np.zeros(10)) is None


def test_tables_with_categories():
    frame = pd.DataFrame({"size": np.arange(100.0), "kind": np.tile(list("abcd"), 25)})
    encoder = ColumnTransformer(
        [("numbers", StandardScaler(), ["size"]), ("kinds", OneHotEncoder(), ["kind"])]
    )
    splits, _ = make_splits(4, Y, labels=Y)
    assert transform_folds(encoder, frame, Y, splits).x.shape == (400, 5)
    frame.loc[:0, "kind"] = "rare"
    rare = ColumnTransformer([("kinds", OneHotEncoder(handle_unknown="ignore"), ["kind"])])
    with pytest.raises(ValueError, match="one structure need one shape"):
        transform_folds(rare, frame, Y, splits)


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    (run,) = make_runs(None, 1)
    assert read_outcome(tmp_path, run) is None
    weights = [np.arange(6.0).reshape(2, 3), np.float32(2.0)]
    history = {"loss": [1.0, float("nan")]}
    outcome = RunOutcome(history, 0, 1.0, RunState(weights, weights[:1]), 2.5, "why")
    write_outcome(tmp_path, run, outcome)
    again = read_outcome(tmp_path, run)
    assert (again.best_epoch, again.best_value, again.seconds, again.failure) == (
        0,
        1.0,
        2.5,
        "why",
    )
    assert again.history["loss"][0] == 1.0
    assert np.isnan(again.history["loss"][1])
    for one, other in zip(again.state.weights, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(again.state.optimizer) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run_000.npz"]
