"""Ingredients of the cocktail: each member of a population ends where it would end alone.

The first member never has the defaults.
"""

import keras
import numpy as np
import pytest
from keras import layers, losses, optimizers

import kregs
from kregs import Regularization
from kregs.population import Population
from kregs.population.layout import Layout
from kregs.population.signature import read_member

RNG = np.random.default_rng(0)
ROWS, BATCH = 50, 16  # the last batch is smaller
X = RNG.normal(size=(ROWS, 5))
CLASSES = RNG.integers(0, 3, ROWS)
FIT = {"batch_size": BATCH, "epochs": 3, "shuffle": False}


def check_ends(build, y, *, members=3, tolerance=1e-8, accelerate=(False, True), fit=None, x=X):
    """Check that members built by `build(k)` end in a population where `fit` alone takes them."""
    fit = FIT | (fit or {})
    ends = []
    for k in range(members):
        alone = build(k)
        history = alone.fit(x, y, verbose=0, **callbacks_of(build, k), **fit).history
        ends.append((history, alone.get_weights()))
    close = {"rtol": tolerance, "atol": tolerance}
    for xla in accelerate:
        population = Population.from_models([build(k) for k in range(members)])
        histories = population.fit(x, y, accelerate=xla, **fit)
        for k, (history, weights) in enumerate(ends):
            assert set(histories[k]) == set(history)
            for name, values in history.items():
                np.testing.assert_allclose(histories[k][name], values, err_msg=name, **close)
            for ours, theirs in zip(population.unstack()[k].get_weights(), weights, strict=True):
                np.testing.assert_allclose(ours, theirs, **close)


def callbacks_of(build, k):
    made = getattr(build, "callbacks", None)
    return {} if made is None else {"callbacks": made(k)}


# ---- weight decay and label smoothing --------------------------------------------------------

RESTRAINTS = (
    Regularization(weight_decay=0.3, label_smoothing=0.2, l2=0.01),
    Regularization(),
    Regularization(label_smoothing=0.05),
    Regularization(weight_decay=0.05, proximal_l1=1e-3),
)


def restrained(k, loss, optimizer="adam"):
    r = RESTRAINTS[k]
    keras.utils.set_random_seed(k)
    head = "sigmoid" if loss == "binary_crossentropy" else "softmax"
    model = kregs.mlp(
        (5,), 3, units=(4,), activation="tanh", head_activation=head, regularization=r
    )
    return kregs.compile_model(
        model, loss, optimizer=optimizer, learning_rate=0.05, regularization=r, metrics=["accuracy"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", ["sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"]
)
def test_weight_decay_and_label_smoothing(double, loss):
    y = CLASSES if loss.startswith("sparse") else np.eye(3)[CLASSES]
    fit = {"validation_data": (X[:20], y[:20])}
    check_ends(lambda k: restrained(k, loss), y, members=3, fit=fit)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["adamw", "nadam", "object", "proximal"])
def test_weight_decay_of_other_optimizers(double, given):
    def build(k):
        if given == "object":
            return restrained(k, "categorical_crossentropy", optimizers.SGD(0.05, momentum=0.9))
        return restrained(3 - k if given == "proximal" else k, "categorical_crossentropy", given)

    if given == "object":
        build = objects
    elif given == "proximal":
        build = proximals
    check_ends(build, np.eye(3)[CLASSES], members=2, accelerate=(False,))


def objects(k):
    r = RESTRAINTS[k]
    keras.utils.set_random_seed(k)
    model = kregs.mlp((5,), 3, units=(4,), regularization=r)
    optimizer = optimizers.SGD(0.05, momentum=0.9)
    return kregs.compile_model(
        model, "categorical_crossentropy", optimizer=optimizer, regularization=r
    )


def proximals(k):
    r = (RESTRAINTS[3], RESTRAINTS[3].replace(weight_decay=0.0, label_smoothing=0.1))[k]
    keras.utils.set_random_seed(k)
    model = kregs.mlp((5,), 3, units=(4,), regularization=r)
    return kregs.compile_model(model, "categorical_crossentropy", regularization=r)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
def test_class_numbers_of_sequences(double, weighted):
    """Weighted, Keras takes the weights along the steps: each member's loss is called by itself."""
    y = RNG.integers(0, 3, (8, 4))

    def build(k):
        keras.utils.set_random_seed(k)
        body = [layers.Dense(12), layers.Reshape((4, 3)), layers.Softmax()]
        model = keras.Sequential([keras.Input((5,)), *body])
        loss = losses.SparseCategoricalCrossentropy(reduction="sum")
        return kregs.compile_model(
            model, loss, optimizer="sgd", learning_rate=0.01, label_smoothing=(0.3, 0.0)[k]
        )

    fit = {"sample_weight": RNG.uniform(0, 2, 8)} if weighted else {}
    check_ends(
        build, y, x=X[:8], members=2, accelerate=(not weighted,), fit={"batch_size": 4, **fit}
    )


def test_they_need_no_program_of_their_own():
    members = [read_member(restrained(k, "sparse_categorical_crossentropy")) for k in range(3)]
    assert len({member.signature for member in members}) == 1
    layout = Layout(members)
    assert layout.smoothed.tolist() == [True]
    assert all(map(layout.fits, members))
    plain = Layout(members[1:2])
    assert plain.smoothed.tolist() == [False]
    assert plain.fits(members[1])
    assert not plain.fits(members[0])  # else its smoothing would be lost


# ---- schedules of the learning rate ----------------------------------------------------------

S = optimizers.schedules
SCHEDULES = {
    "flat, then cosine": lambda k: kregs.FlatCosine((0.1, 0.02)[k], steps=(10, 8)[k], flat=0.3),
    "coslog4": lambda k: kregs.CosLog4((0.1, 0.02)[k], steps=12),
    "warm-up cosine": lambda k: kregs.warmup_cosine((0.1, 0.02)[k], steps=12, warmup=(0.3, 0.1)[k]),
    "restarts": lambda k: S.CosineDecayRestarts((0.1, 0.02)[k], (2, 3)[k], t_mul=2.0),
}


def dense_model(k, optimizer, body=list):
    keras.utils.set_random_seed(k)  # before any layer is made
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, "tanh"), *body(), layers.Dense(3)])
    model.compile(optimizer, "mse")
    return model


TARGETS = RNG.normal(size=(ROWS, 3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_of_the_learning_rate(double, kind):
    def build(k):
        return dense_model(k, optimizers.SGD(SCHEDULES[kind](k), momentum=0.9))

    # Keras finds the restart by a logarithm in float32
    tolerance = 1e-6 if kind == "restarts" else 1e-8
    check_ends(build, TARGETS, members=2, tolerance=tolerance)


# ---- Lookahead and the schedule of the weight decay -------------------------------------------

STOCK = {
    "sgd": lambda k, **options: optimizers.SGD((0.1, 0.05)[k], momentum=0.9, **options),
    "adamw": lambda k, **options: optimizers.AdamW((0.1, 0.05)[k], **options),
    "rmsprop": lambda k, **options: optimizers.RMSprop((0.01, 0.02)[k], **options),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCK)
def test_lookahead(double, name):
    """Steps and alpha are each member's own; alpha=1 is the optimizer alone."""

    def build(k):
        optimizer = STOCK[name](k, weight_decay=(0.2, 0.0)[k])
        optimizer = kregs.lookahead(optimizer, steps=(4, 3)[k], alpha=(0.5, 1.0)[k])
        return dense_model(k, optimizer, lambda: [layers.Dense(3, kernel_constraint="non_neg")])

    check_ends(build, TARGETS, members=2)


@pytest.mark.slow
@pytest.mark.parametrize("looks_ahead", [False, True])
def test_schedule_of_the_weight_decay(double, looks_ahead):
    """Steps and flat are each member's own; an optimizer without a schedule is a member, too."""

    def build(k):
        optimizer = optimizers.AdamW(0.05, weight_decay=(0.4, 0.3, 0.2)[k])
        if looks_ahead:
            optimizer = kregs.lookahead(optimizer, steps=3)
        if k < 2:
            optimizer = kregs.decay_schedule(optimizer, steps=(10, 8)[k], flat=(0.2, 0.6)[k])
        return dense_model(k, optimizer)

    check_ends(build, TARGETS, members=3)


@pytest.mark.slow
def test_lookahead_of_an_optimizer_without_a_stacked_form(double):
    def build(k):
        optimizer = kregs.lookahead(optimizers.Nadam((0.1, 0.05)[k], weight_decay=(0.2, 0.1)[k]))
        return dense_model(k, kregs.decay_schedule(optimizer, steps=10))

    check_ends(build, TARGETS, members=2, accelerate=(False,))


@pytest.mark.slow
def test_lookahead_goes_on_where_it_was(double):
    models = [
        dense_model(k, kregs.lookahead(optimizers.SGD(0.1), steps=3, alpha=0.5)) for k in (0, 1)
    ]
    copies = [
        dense_model(k, kregs.lookahead(optimizers.SGD(0.1), steps=3, alpha=0.5)) for k in (0, 1)
    ]
    population = Population.from_models(models)
    for _ in range(2):
        population.fit(X, TARGETS, **FIT | {"epochs": 1})
    for model in population.unstack():  # the third epoch is Keras's own
        model.fit(X, TARGETS, verbose=0, **FIT | {"epochs": 1})
    for copy, ours in zip(copies, population.unstack(), strict=True):
        copy.fit(X, TARGETS, verbose=0, **FIT)
        for weight, expected in zip(ours.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-8)
