"""Ensembles of what a search has trained: all folds, and the chosen trials trained again."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

import kregs
from kregs.search import refit_ensemble, storage
from kregs.search.result import load_result

X, Y = make_classification(150, 5, n_informative=3, flip_y=0.2, n_classes=3, random_state=0)
X = (X * [1, 10, 0.1, 3, 1]).astype("float32")
FOLDS = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, Y))
SIZE = 6


def log_loss(y, p):
    return metrics.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=[0, 1, 2])


def build(hp):
    return built(hp, hp.Choice("units", [4, 6]))


def of_one_structure(hp):
    return built(hp, 4)


def built(hp, units):
    model = kregs.mlp((5,), 3, units=(units,))
    rate = hp.Float("rate", 1e-2, 1e-1, sampling="log")
    return kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=rate)


def search(folder, build=build, **options):
    options = {"folds": FOLDS, "keep_folds": True, "max_trials": 4, "epochs": 4, **options}
    return kregs.tune(build, X, Y, seed=2, verbose=0, directory=folder, **options)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaled")
    return search(folder, preprocess=StandardScaler(), objective="log_loss")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return search(tmp_path_factory.mktemp("plain"), of_one_structure, max_trials=2)


def scaled(fold, rows):
    return StandardScaler().fit(X[FOLDS[fold][0]]).transform(rows)


@pytest.mark.slow
def test_out_of_fold_predictions_are_of_the_fold_s_own_model(result):
    trial = result.chosen_trial
    one = result.fold_ensemble(1, trials=[trial])
    assert one.counts == {trial: 1}
    expected = np.zeros((150, 3))
    for fold, (_, held) in enumerate(FOLDS):
        assert one.folds[fold] == fold
        expected[held] = one.models[fold].predict(scaled(fold, X[held]), verbose=0)
    np.testing.assert_allclose(one.out_of_fold, expected, atol=1e-6)
    assert one.score == pytest.approx(log_loss(Y, one.out_of_fold), rel=1e-5)
    # each fold's weights are those of its best epoch
    history = result.history(trial)
    best = history.groupby("fold")["val_log_loss"].min().to_numpy()
    losses = [log_loss(Y[held], one.out_of_fold[held]) for _, held in FOLDS]
    np.testing.assert_allclose(losses, best, rtol=1e-4)


@pytest.mark.slow
def test_the_choice_is_caruana_s(result):
    trials = result.trials()["trial"].tolist()
    single = {t: result.fold_ensemble(1, trials=[t]).out_of_fold for t in trials}
    picks = []
    for _ in range(SIZE):  # by definition: the one whose addition makes the mean best
        picks.append(
            min(trials, key=lambda t: log_loss(Y, np.mean([single[p] for p in [*picks, t]], 0)))
        )
    chosen = result.fold_ensemble(SIZE)
    assert chosen.counts == {t: picks.count(t) for t in trials if t in picks}
    mean = np.mean([single[p] for p in picks], axis=0)
    np.testing.assert_allclose(chosen.out_of_fold, mean, atol=1e-6)
    assert chosen.score <= min(log_loss(Y, own) for own in single.values()) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"preprocess": StandardScaler()}])
def test_weights_of_rows_count_in_the_choice(options, tmp_path):
    weight = np.array([0.1, 1.0, 3.0])[Y]
    result = search(tmp_path, of_one_structure, sample_weight=weight, max_trials=3, **options)

    def loss(p):  # Keras divides by the number of rows
        p = p / p.sum(axis=1, keepdims=True)
        return np.mean(weight * -np.log(p[np.arange(150), Y]))

    trials = result.trials()["trial"].tolist()
    single = {t: result.fold_ensemble(1, trials=[t]) for t in trials}
    for found in single.values():
        assert found.score == pytest.approx(loss(found.out_of_fold), rel=1e-5)
    best = min(trials, key=lambda t: loss(single[t].out_of_fold))
    assert result.fold_ensemble(1).counts == {best: 1}


@pytest.mark.slow
def test_it_predicts_the_mean_of_its_members(result):
    both = result.fold_ensemble(SIZE)
    expected = 0.0
    for model, (_, member) in zip(both.models, both.members().iterrows(), strict=True):
        rows = scaled(int(member["fold"]), X)
        expected = expected + member["weight"] * model.predict(rows, verbose=0)
    np.testing.assert_allclose(both.predict(X), expected, atol=1e-6)
    assert both.members()["weight"].sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="refit_ensemble"):
        both.model()


@pytest.mark.slow
def test_without_a_transformer_it_is_one_model_of_stock_layers(plain, tmp_path):
    both = plain.fold_ensemble(3)
    model = both.model()
    np.testing.assert_allclose(model.predict(X, verbose=0), both.predict(X), atol=1e-6)
    assert "kregs" not in model.to_json()
    model.save(tmp_path / "ensemble.keras")
    again = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(again.predict(X, verbose=0), both.predict(X), atol=1e-6)


@pytest.mark.slow
def test_what_it_cannot_be_made_of(plain, tmp_path):
    with pytest.raises(ValueError, match="a result without rows"):
        load_result(plain.path, build=of_one_structure).fold_ensemble()
    with pytest.raises(ValueError, match=r"keep_folds=True\. Received"):
        search(tmp_path, of_one_structure, keep_folds=False, max_trials=1, epochs=1).fold_ensemble()
    with pytest.raises(ValueError, match="size"):
        plain.fold_ensemble(0)


def test_weights_on_disk_both_ways(tmp_path):
    weights = {0: [np.ones((2, 3)), np.arange(4.0)], 3: [np.zeros((2, 3)), np.ones(4)]}
    storage.write_fold_weights(tmp_path, weights)
    found = storage.read_fold_weights(tmp_path)
    assert sorted(found) == [0, 3]
    for number, own in weights.items():
        for array, other in zip(own, found[number], strict=True):
            np.testing.assert_array_equal(array, other)
    (tmp_path / storage.FOLD_WEIGHTS_FILE).write_bytes(b"cut off")
    assert storage.read_fold_weights(tmp_path) == {}
    storage.remove_weights(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_only_the_kept_trials_keep_their_folds(tmp_path):
    result = search(tmp_path, of_one_structure, keep=2, max_trials=4, epochs=1)
    kept = [t for t in range(4) if (result.trial_folder(t) / "fold_weights.npz").exists()]
    assert sorted(kept) == sorted(result.trials()["trial"][:2])


def members_of(model):
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


@pytest.mark.nightly
def test_several_are_trained_again_on_all_rows(result):
    counts = {result.chosen_trial: 2, int(result.trials()["trial"].iloc[-1]): 1}
    model = result.refit_ensemble(X, Y, counts=counts)
    rows = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(result.preprocess_.transform(X), rows, rtol=1e-6)
    own = np.stack([member.predict(rows, verbose=0) for member in members_of(model)])
    assert own.shape[0] == 3
    assert not np.allclose(own[0], own[1], atol=1e-3)  # from other seeds
    np.testing.assert_allclose(model.predict(rows, verbose=0), own.mean(0), atol=1e-6)
    again = result.refit_ensemble(X, Y, counts=counts)
    np.testing.assert_array_equal(again.predict(rows, verbose=0), model.predict(rows, verbose=0))


@pytest.mark.slow
def test_one_by_one_where_they_cannot_be_stacked(plain, monkeypatch):
    def refuse(*args, **kwargs):
        raise refit_ensemble.NotStackable("no")

    monkeypatch.setattr(refit_ensemble, "Training", refuse)
    model = plain.refit_ensemble(X, Y, counts=2, seed=5)
    assert len(members_of(model)) == 2
    assert log_loss(Y, model.predict(X, verbose=0)) < log_loss(Y, np.full((150, 3), 1 / 3))


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [True, False])
def test_every_epoch_of_the_last_training_is_told(plain, monkeypatch, stacked):
    if not stacked:
        monkeypatch.setattr(refit_ensemble, "_group_of", lambda result, member: id(member))
    told = []
    counts = {plain.chosen_trial: 2}
    refit_ensemble.refit_on(
        plain, [(X, Y), (X[:90], Y[:90])], counts=counts, on_epochs=lambda *n: told.append(n)
    )
    epochs = plain.trials().set_index("trial")["best_epoch"][plain.chosen_trial]
    assert told == [(n, 4 * epochs) for n in range(1, 4 * epochs + 1)]


@pytest.mark.slow
def test_class_weights_are_weights_of_the_rows(plain):
    by_class = {0: 1.0, 1: 3.0, 2: 0.5}
    rows = np.array([by_class[label] for label in Y])
    one = plain.refit_ensemble(X, Y, counts=2, class_weight=by_class)
    other = plain.refit_ensemble(X, Y, counts=2, sample_weight=rows)
    without = plain.refit_ensemble(X, Y, counts=2)
    found, same, plainly = (m.predict(X, verbose=0) for m in (one, other, without))
    np.testing.assert_allclose(found, same, atol=1e-6)
    assert found[:, 1].mean() > plainly[:, 1].mean() + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "at least one trial"), ({99: 1}, "numbers of trials.*99"), (0, "counts=0"),
     ({0: 0}, r"counts\[0\]")],
)  # fmt: skip
def test_wrong_counts(plain, counts, message):
    with pytest.raises(ValueError, match=message):
        plain.refit_ensemble(X, Y, counts=counts)
