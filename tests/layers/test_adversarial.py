"""Adversarial training (FGSM) against NumPy, alone and in populations."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers, regularizers

import kregs
from kregs import AdversarialLoss
from kregs.layers import AdversarialInput, RowMix
from kregs.population import Population
from kregs.population.frozen import frozen_part

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5))
Y = RNG.integers(0, 3, 40)
SPARSE = "sparse_categorical_crossentropy"


def softmax(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "share"), [(0.3, 0.5), (0.1, 1.0), (0.0, 0.5), (0.3, 0.0)])
@pytest.mark.parametrize("eager", [False, True])
def test_a_step_is_that_of_the_paper(double, epsilon, share, eager):
    """Goodfellow et al. 2015: x + epsilon sign(dJ/dx), and a J(x) + (1 - a) J(of these rows)."""
    layer = AdversarialInput(epsilon, share=share)
    model = keras.Sequential([keras.Input((5,)), layer, layers.Dense(3, "softmax")])
    kregs.compile_model(model, SPARSE, optimizer="sgd", learning_rate=0.5)
    model.run_eagerly = eager
    kernel, bias = model.get_weights()
    logs = model.fit(X, Y, batch_size=40, verbose=0, validation_data=(X, Y)).history
    one_hot = np.eye(3)[Y]
    p = softmax(X @ kernel + bias)
    moved = X + epsilon * np.sign((p - one_hot) @ kernel.T)
    q = softmax(moved @ kernel + bias)
    clean, adversarial = (-np.log(part[np.arange(40), Y]).mean() for part in (p, q))
    assert logs["loss"][0] == pytest.approx((1 - share) * clean + share * adversarial, rel=1e-6)
    assert logs["data_loss"][0] == pytest.approx(clean, rel=1e-6)
    gradient = ((1 - share) * X.T @ (p - one_hot) + share * moved.T @ (q - one_hot)) / 40
    if epsilon == 0 or share == 0:
        gradient = X.T @ (p - one_hot) / 40
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.5 * gradient, rtol=1e-6)
    assert logs["val_loss"][0] == pytest.approx(logs["val_data_loss"][0], rel=1e-6)


def test_a_model_without_its_loss_is_refused():
    model = keras.Sequential([keras.Input((5,)), AdversarialInput(), layers.Dense(3, "softmax")])
    model.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match="is for adversarial training, and the loss is not"):
        model.fit(X, Y, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", AdversarialLoss(loss, model))
    model.fit(X, Y, verbose=0)
    assert float(model.loss(Y, model.predict(X, verbose=0))) > 0  # outside of a step: the loss


def test_where_it_cannot_be():
    loss = keras.losses.MeanSquaredError()
    later = keras.Sequential([keras.Input((5,)), layers.Dense(3), AdversarialInput()])
    with pytest.raises(ValueError, match="as its first layer"):
        AdversarialLoss(loss, later)
    both = keras.Sequential(
        [keras.Input((5,)), AdversarialInput(), RowMix(mixup=0.1), layers.Dense(3)]
    )
    with pytest.raises(ValueError, match="must either mix rows or make adversarial ones"):
        kregs.compile_model(both, "mse")
    for name, options in {"epsilon": {"epsilon": -1.0}, "share": {"share": 1.1}}.items():
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            AdversarialInput(**options)
    with pytest.raises(TypeError, match="`model` must be"):
        AdversarialLoss(loss, "model")


def test_files_hold_the_loss_itself(tmp_path):
    model = member(0)
    assert "AdversarialLoss" not in str(model.get_compile_config())
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("first", [AdversarialInput(0.3), RowMix(mixup=0.5), RowMix(cutout=0.5)])
def test_a_frozen_part_behind_it_is_not_computed_beforehand(monkeypatch, first):
    """Nor where kregs is installed, so that its layers count as those of a library."""
    monkeypatch.setattr("kregs.population.frozen.is_library", lambda module: True)
    frozen = layers.Dense(4, trainable=False)
    model = keras.Sequential([keras.Input((5,)), first, frozen, layers.Dense(3, "softmax")])
    kregs.compile_model(model, SPARSE)
    assert frozen_part(model) is None
    plain = keras.Sequential([keras.Input((5,)), frozen, layers.Dense(3, "softmax")])
    kregs.compile_model(plain, SPARSE)
    assert frozen_part(plain) is not None


NUMBERS = ({"epsilon": 0.3, "share": 0.7}, None, {"epsilon": 0.1}, {"epsilon": 0.0})


def member(k):
    keras.utils.set_random_seed(k)
    first = [] if NUMBERS[k] is None else [AdversarialInput(**NUMBERS[k])]
    body = [
        layers.Dense(4, kernel_regularizer=regularizers.L2(0.01), activity_regularizer="l2"),
        layers.BatchNormalization(momentum=0.8),
        layers.Activation("tanh"),
    ]
    model = keras.Sequential([keras.Input((5,)), *first, *body, layers.Dense(3, "softmax")])
    return kregs.compile_model(
        model, SPARSE, optimizer=optimizers.SGD(0.1), label_smoothing=(0.1, 0.0, 0.0, 0.0)[k]
    )


@pytest.mark.slow
def test_members_end_where_they_would_alone(double):
    """With statistics of a batch normalization and penalties of activities, which see each pass."""
    fit = {"batch_size": 16, "epochs": 3, "shuffle": False, "validation_data": (X[:9], Y[:9])}
    ends = []
    for k in range(4):
        alone = member(k)
        ends.append((alone.fit(X, Y, verbose=0, **fit).history, alone.get_weights()))
    for xla in (False, True):
        population = Population.from_models([member(k) for k in range(4)])
        histories = population.fit(X, Y, accelerate=xla, **fit)
        for k, (history, weights) in enumerate(ends):
            for name, values in history.items():
                np.testing.assert_allclose(
                    histories[k][name], values, rtol=1e-7, err_msg=f"{k} {name}"
                )
            for ours, theirs in zip(population.unstack()[k].get_weights(), weights, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_members_take_integers_as_numbers():
    numbers = np.random.default_rng(0).integers(0, 5, size=(16, 3)).astype("uint8")
    ends = []
    for x in (numbers, numbers.astype("float32")):
        keras.utils.set_random_seed(0)
        body = [AdversarialInput(0.1), keras.layers.Dense(2, "softmax")]
        model = keras.Sequential([keras.Input((3,)), *body])
        population = Population.from_models([kregs.compile_model(model, SPARSE)])
        population.fit(x, np.arange(16) % 2, shuffle=False)
        ends.append(population[0].get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
