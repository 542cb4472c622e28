"""Members of a population on rows of their own: folds, bootstraps, and what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

import kregs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(66, 4)).astype("float32")
Y = (X[:, 0] + 0.3 * RNG.normal(size=66) > 0.5).astype("int32")
RATES = (0.03, 0.01, 0.3)


def build(rate, l2=0.0):
    def kernel():
        return keras.initializers.GlorotUniform(seed=1)

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(
                8, "tanh", kernel_initializer=kernel(), kernel_regularizer=keras.regularizers.L2(l2)
            ),
            keras.layers.Dense(1, "sigmoid", kernel_initializer=kernel()),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def bootstraps():
    """Rows drawn with replacement, and those that were not drawn."""
    drawn = [np.sort(RNG.integers(0, 66, size)) for size in (66, 40, 50)]
    return [(rows, np.setdiff1d(np.arange(66), rows)) for rows in drawn]


def masks():
    held_out = [np.arange(66) % 5 == k for k in range(3)]
    return [(~rows, rows) for rows in held_out]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "weighted"),
    [
        (list(StratifiedKFold(3).split(X, Y)), "classes"),
        (bootstraps(), "rows"),
        (masks(), ""),
        ([(rows, []) for rows, _ in bootstraps()], "classes"),
    ],
    ids=["folds", "bootstraps", "masks", "nothing held out"],
)
def test_each_member_is_what_fit_makes_of_its_rows(splits, weighted):
    weights = RNG.uniform(0.2, 2.0, 66).astype("float32") if weighted == "rows" else None
    population = kregs.Population.from_models([build(rate, 10 * rate) for rate in RATES])
    options = {"epochs": 3, "batch_size": 16, "shuffle": False}
    class_weight = {0: 1.0, 1: 3.0} if weighted == "classes" else None
    histories = population.fit(
        X, Y, splits=splits, sample_weight=weights, class_weight=class_weight, **options
    )
    predictions = population.predict(X)
    for member, (train, held_out) in enumerate(splits):
        model = build(RATES[member], 10 * RATES[member])
        model.run_eagerly = True  # which is faster than tracing for few steps
        validation = {}
        if len(held_out):
            arrays = (X[held_out], Y[held_out])
            own = arrays if weights is None else (*arrays, weights[held_out])
            validation = {"validation_data": own}
        expected = model.fit(
            X[train],
            Y[train],
            sample_weight=None if weights is None else weights[train],
            class_weight=class_weight,
            verbose=0,
            **validation,
            **options,
        ).history
        assert histories[member].keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(histories[member][name], values, rtol=2e-5, err_msg=name)
        np.testing.assert_allclose(predictions[member], model.predict(X, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_each_member_stops_by_its_own_rows():
    # the second member's validation labels are turned round: it is best before it has learned
    splits = [(np.arange(40), np.arange(40, 66)), (np.arange(40, 66), np.arange(40))]
    y = Y.copy()
    y[40:] = 1 - y[40:]
    splits[0] = (np.arange(20), np.arange(20, 40))
    population = kregs.Population.from_models([build(0.5), build(0.5)])
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    first, second = population.fit(X, y, splits=splits, epochs=12, early_stopping=stopping)
    assert len(first["loss"]) > len(second["loss"]) == 3


@pytest.mark.slow
def test_shuffled_folds_see_all_their_rows_and_no_others():
    """A row far from the others moves the weights of those that train on it, and of no other."""
    splits = list(KFold(3).split(X))
    odd = X.copy()
    odd[5] *= 100.0  # a row of the first fold
    outputs = []
    for x in (X, odd):
        population = kregs.Population.from_models([build(rate) for rate in RATES])
        population.fit(x, Y, splits=splits, epochs=2, batch_size=7)
        outputs.append(population.predict(X))
    moved = np.abs(outputs[0] - outputs[1]).max(axis=(1, 2))
    assert moved[0] == 0.0
    assert (moved[1:] > 1e-4).all()


@pytest.mark.slow
def test_steps_of_members_with_other_numbers_of_rows():
    splits = [(np.arange(7), np.arange(60, 66)), (np.arange(7, 50), np.arange(50, 66))]
    options = {"epochs": 2, "batch_size": 4, "steps_per_epoch": 1, "validation_steps": 1}
    population = kregs.Population.from_models([build(rate) for rate in RATES[:2]])
    histories = population.fit(X, Y, splits=splits, shuffle=False, **options)
    for member, (train, held_out) in enumerate(splits):
        model = build(RATES[member])
        expected = model.fit(
            X[train], Y[train], validation_data=(X[held_out], Y[held_out]), shuffle=False,
            verbose=0, **options,
        ).history  # fmt: skip
        for name, values in expected.items():
            np.testing.assert_allclose(histories[member][name], values, rtol=2e-5, err_msg=name)


@pytest.mark.slow
def test_a_further_fit_goes_on():
    splits = list(KFold(2).split(X))
    halves, whole = (
        kregs.Population.from_models([build(rate) for rate in RATES[:2]], seeds=3) for _ in range(2)
    )
    for _ in range(2):
        halves.fit(X, Y, splits=splits, epochs=2, batch_size=16)
    whole.fit(X, Y, splits=splits, epochs=4, batch_size=16)
    np.testing.assert_array_equal(halves.predict(X), whole.predict(X))


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        ([([0, 1], [2])], ValueError, r"`splits` must be one pair a member \(2\)\. Received: 1"),
        ("KFold", TypeError, r"`splits` must be a list with a pair .* Received: str, 'KFold'"),
        (5, TypeError, r"`splits` must be a list with a pair .* Received: int, 5"),
        ([([0], [1]), 3], TypeError, r"`splits` must be pairs .* Received: int, 3 in split 1"),
        ([([0], [1]), ([66], [1])], ValueError, r"row numbers in \[0, 66\).* 66 to 66 in split 1"),
        ([([0], [1]), ([-1], [1])], ValueError, r"row numbers in \[0, 66\).* -1 to -1 in split 1"),
        ([([0], [1]), ([0.5], [1])], TypeError, r"lists of row numbers\. Received: \[0\.5\]"),
        ([([0], [1]), ([], [1])], ValueError, r"rows to train on in every split.* none in 1"),
        ([([0], [1]), ([0], [])], ValueError, r"in every split, or in none\. Received: in 1 of 2"),
    ],
)
def test_wrong_splits(splits, error, message):
    population = kregs.Population.from_models([build(rate) for rate in RATES[:2]])
    with pytest.raises(error, match=message):
        population.fit(X, Y, splits=splits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_data": (X, Y)}, "`validation_data` must not be given with `splits`"),
        ({"validation_split": 0.2}, "`validation_split` must not be given with `splits`"),
        ({"steps_per_epoch": 2}, r"`batch_size` must be given with `splits` and `steps_per_epoch`"),
        (
            {"validation_steps": 2},
            r"`validation_batch_size` must be given with `splits` and `validation_steps`",
        ),
    ],
)
def test_splits_say_what_is_validated(arguments, message):
    population = kregs.Population.from_models([build(rate) for rate in RATES[:2]])
    with pytest.raises(ValueError, match=message):
        population.fit(X, Y, splits=list(KFold(2).split(X)), **arguments)


def test_rows_of_datasets_have_no_numbers():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    population = kregs.Population.from_models([build(rate) for rate in RATES[:2]])
    with pytest.raises(ValueError, match=r"`splits` must be None if `x` is a dataset"):
        population.fit(dataset, splits=list(KFold(2).split(X)))
