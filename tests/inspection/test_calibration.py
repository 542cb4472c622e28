"""Calibration against scikit-learn, closed forms and labels drawn from known probabilities."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.metrics import brier_score_loss, log_loss

import kregs
from kregs.inspection.calibration import logits_model

L = keras.layers
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(400, 3)) * 2
P = softmax(LOGITS, axis=1)
# the true probabilities are those of half the logits
Y = np.array([RNG.choice(3, p=p) for p in softmax(LOGITS / 2, axis=1)])


@pytest.mark.parametrize("bins", [4, 15])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_bins_are_those_of_scikit_learn(bins, adaptive):
    measured = kregs.calibration(P, y=Y, bins=bins)
    frame = measured.to_frame(adaptive=adaptive)
    confidence, correct = P.max(axis=1), P.argmax(axis=1) == Y
    strategy = "quantile" if adaptive else "uniform"
    accuracy, means = calibration_curve(correct, confidence, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(frame["accuracy"], accuracy)
    np.testing.assert_allclose(frame["confidence"], means)
    assert frame["rows"].sum() == len(Y)
    expected = (frame["rows"] * abs(accuracy - means)).sum() / len(Y)
    assert (measured.adaptive_ece if adaptive else measured.ece) == pytest.approx(expected)
    if not adaptive:
        assert measured.maximum_error == pytest.approx(abs(accuracy - means).max())


def test_the_bound_of_a_bin_belongs_to_it():
    """Guo et al.: bin m holds confidence in ((m - 1) / M, m / M]."""
    frame = kregs.calibration(np.array([[0.75, 0.25], [0.76, 0.24]]), y=[0, 1], bins=4).to_frame()
    assert frame[["lower", "upper", "rows"]].values.tolist() == [[0.5, 0.75, 1], [0.75, 1.0, 1]]
    assert frame["gap"].round(6).tolist() == [-0.25, 0.76]


def test_scores_are_those_of_scikit_learn():
    measured = kregs.calibration(P, y=np.eye(3)[Y])
    one_hot = np.eye(3)[Y]
    assert measured.nll == pytest.approx(log_loss(Y, P))
    parts = [brier_score_loss(one_hot[:, k], P[:, k]) for k in range(3)]
    assert measured.brier == pytest.approx(sum(parts))
    assert measured.accuracy == pytest.approx((P.argmax(axis=1) == Y).mean())
    binary = kregs.calibration(P[:, 0], y=one_hot[:, 0])
    assert binary.brier == pytest.approx(parts[0])
    assert binary.nll == pytest.approx(log_loss(one_hot[:, 0], P[:, 0]))
    column = kregs.calibration(P[:, :1], y=one_hot[:, :1])
    assert column.to_dict() == binary.to_dict()


def test_all_forms_of_outputs_and_labels_agree():
    expected = kregs.calibration(P, y=Y).to_dict()
    for outputs, from_logits in ((LOGITS, True), (LOGITS + 7, True), (P, False)):
        for y in (Y, Y[:, None], np.eye(3)[Y], Y.astype("float32")):
            got = kregs.calibration(outputs, y=y, from_logits=from_logits).to_dict()
            assert got == pytest.approx(expected)
    logits = LOGITS[:, :1]
    binary = [
        kregs.calibration(outputs, y=Y > 0, from_logits=from_logits).to_dict()
        for outputs, from_logits in (
            (logits, True),
            (expit(logits), False),
            (np.hstack([0 * logits, logits]), True),
        )
    ]
    assert binary[0] == pytest.approx(binary[1])
    assert binary[0] == pytest.approx(binary[2])


def test_a_calibrated_set_is_calibrated():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), size=40_000)
    y = (p.cumsum(axis=1) > rng.random((40_000, 1))).argmax(axis=1)
    measured = kregs.calibration(p, y=y)
    assert measured.ece < 0.01
    assert measured.adaptive_ece < 0.015
    surer = softmax(3 * np.log(p), axis=1)
    assert kregs.calibration(surer, y=y).ece > 0.1
    assert kregs.calibration(surer, y=y).to_frame()["gap"].iloc[-5:].min() > 0


def constant(logits, ending="softmax", **compiling):
    """A model whose input are its logits."""
    units = logits.shape[1]
    layers = [keras.Input((units,)), L.Dense(units, name="last")]
    if ending in ("softmax", "sigmoid"):
        layers[-1] = L.Dense(units, ending)
    elif ending == "Softmax":
        layers.append(L.Softmax())
    elif ending == "Activation":
        layers.append(L.Activation("softmax"))
    model = keras.Sequential(layers)
    model.set_weights([np.eye(units), np.zeros(units)])
    if ending == "nested":
        inputs = keras.Input((units,))
        model = keras.Model(inputs, constant(logits)(inputs))
    if ending == "mean":
        model = kregs.ensemble([constant(logits), constant(logits)])
    if compiling:
        model.compile(**compiling)
    return model


ENDINGS = ("softmax", "Softmax", "Activation", "nested", "mean")


@pytest.mark.parametrize("ending", ENDINGS)
def test_logits_are_found_behind_every_ending(ending, eager):
    z = logits_model(constant(LOGITS, ending)).predict(LOGITS, verbose=0)
    centred = LOGITS - LOGITS.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(z - z.mean(axis=1, keepdims=True), centred, atol=1e-4)
    if ending in ENDINGS[:3]:  # no probability in between, that could be 0
        z = logits_model(constant(LOGITS, ending)).predict(100 * LOGITS, verbose=0)
        np.testing.assert_allclose(z, 100 * LOGITS, rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("factor", [0.3, 4.0])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(factor, eager):
    rng = np.random.default_rng(2)
    z = rng.normal(size=(20_000, 3)).astype("float32")
    p = softmax(z / factor, axis=1)
    y = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    scaled = kregs.temperature_scaling(
        constant(z), z[:10_000], y[:10_000], test_data=(z[10_000:], y[10_000:])
    )
    assert scaled.temperature == pytest.approx(factor, rel=0.1)
    assert scaled.test_after.ece < 0.02 < scaled.test_before.ece
    assert scaled.test_after.nll < scaled.test_before.nll
    assert scaled.test_after.accuracy == scaled.test_before.accuracy
    np.testing.assert_allclose(
        scaled.model.predict(z[:50], verbose=0),
        softmax(z[:50] / scaled.temperature, axis=1),
        atol=1e-5,
    )
    # no other temperature has a smaller loss
    losses = [
        log_loss(y[:10_000], softmax(z[:10_000] / (t * scaled.temperature), axis=1))
        for t in (0.98, 1.0, 1.02)
    ]
    assert losses[1] == min(losses) == pytest.approx(scaled.after.nll, abs=1e-5)
    assert scaled.to_frame().shape == (4, 8)


def test_a_sigmoid_and_logits_are_scaled_alike(eager):
    z = LOGITS[:, :1].astype("float32")
    y = (RNG.random(400) < expit(z[:, 0] / 2)).astype(int)
    of_sigmoid = kregs.temperature_scaling(constant(z, "sigmoid"), z, y)
    assert of_sigmoid.temperature == pytest.approx(2, rel=0.3)
    np.testing.assert_allclose(
        of_sigmoid.model.predict(z, verbose=0), expit(z / of_sigmoid.temperature), atol=1e-5
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model = constant(z, "none", optimizer="sgd", loss=loss, metrics=["accuracy"])
    of_logits = kregs.temperature_scaling(model, z, y)
    assert of_logits.temperature == pytest.approx(of_sigmoid.temperature, rel=1e-4)
    np.testing.assert_allclose(
        of_logits.model.predict(z, verbose=0), z / of_logits.temperature, rtol=1e-4
    )
    assert of_logits.before.to_dict() == pytest.approx(of_sigmoid.before.to_dict(), rel=1e-4)
    # compiled as the model is
    assert of_logits.model.evaluate(z, y[:, None], verbose=0)[0] == pytest.approx(
        of_logits.after.nll, rel=1e-4
    )


def test_the_model_stays_free_and_mixed_precision_keeps_its_digits(eager):
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(8, "relu", dtype=policy), L.Dense(3, "softmax", dtype=policy)]
    )
    x = LOGITS.astype("float32")
    y = np.where(np.arange(400) % 3 == 0, Y, model.predict(x, verbose=0).argmax(axis=1))
    scaled = kregs.temperature_scaling(model, x, y)
    assert scaled.model.predict(x, verbose=0).dtype == "float32"
    before = scaled.model.predict(x, verbose=0)
    model.set_weights([0 * w for w in model.get_weights()])
    np.testing.assert_array_equal(scaled.model.predict(x, verbose=0), before)


@pytest.mark.nightly
def test_a_network_that_was_trained_too_long(tmp_path):
    """A real one: it becomes sure of itself, and scaling by rows of validation helps on others."""
    x, y = load_digits(return_X_y=True)
    x, noise = (x / 16).astype("float32"), np.random.default_rng(0)
    y = np.where(noise.random(len(y)) < 0.1, noise.integers(10, size=len(y)), y)
    keras.utils.set_random_seed(0)
    model = kregs.mlp((64,), 10, units=(128,))
    model = kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=1e-2)
    model.fit(x[:600], y[:600], epochs=40, verbose=0)
    scaled = kregs.temperature_scaling(
        model, x[600:1100], y[600:1100], test_data=(x[1100:], y[1100:])
    )
    assert scaled.temperature > 1.5
    assert scaled.test_after.ece < scaled.test_before.ece / 2
    assert scaled.test_after.nll < scaled.test_before.nll
    logs = scaled.model.evaluate(x[1100:], y[1100:], verbose=0, return_dict=True)
    assert logs["data_loss"] == pytest.approx(scaled.test_after.nll, rel=1e-4)
    scaled.model.save(tmp_path / "scaled.keras")
    np.save(tmp_path / "x.npy", x[:9])
    script = (
        "import sys; sys.modules['kregs'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('scaled.keras', compile=False)\n"
        "np.save('p.npy', model.predict(np.load('x.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    expected = scaled.model.predict(x[:9], verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-6)


def test_figures_and_words(eager):
    measured = kregs.calibration(P, y=Y)
    axes = measured.plot().axes[0]
    dots = axes.collections[0].get_offsets()
    np.testing.assert_allclose(dots, measured.to_frame()[["confidence", "accuracy"]])
    assert f"ece={measured.ece:.4f}" in repr(measured)
    scaled = kregs.temperature_scaling(constant(LOGITS), LOGITS, Y)
    assert len(scaled.plot().axes[0].collections) == 2
    assert "on validation rows" in repr(scaled)
    assert scaled.to_frame().shape == (2, 8)


def test_bad_calls(eager):
    model = constant(LOGITS)
    with pytest.raises(ValueError, match="from_logits=True if they are logits"):
        kregs.calibration(LOGITS, y=Y)
    with pytest.raises(ValueError, match="`y` must hold class numbers from 0 to 2"):
        kregs.calibration(P, y=Y + 1)
    with pytest.raises(ValueError, match=r"`y` must have shape \(400,\)"):
        kregs.calibration(P, y=Y[:5])
    with pytest.raises(ValueError, match="class numbers or one-hot rows"):
        kregs.calibration(P, y=P)
    with pytest.raises(ValueError, match="`x` must be None if predictions are given"):
        kregs.calibration(P, Y)
    with pytest.raises(TypeError, match="`y` must be class numbers"):
        kregs.calibration(model, LOGITS)
    with pytest.raises(TypeError, match="`model` must be a Keras model or an array"):
        kregs.calibration("model.keras", y=Y)
    with pytest.raises(ValueError, match="`bins` must be an integer >= 1"):
        kregs.calibration(P, y=Y, bins=0)
    with pytest.raises(TypeError, match="`model` must be of Keras"):
        kregs.temperature_scaling(P, LOGITS, Y)
    with pytest.raises(TypeError, match=r"`test_data` must be \(x, y\)"):
        kregs.temperature_scaling(model, LOGITS, Y, test_data=LOGITS)
    with pytest.raises(ValueError, match="400 of 400 rows are predicted rightly"):
        kregs.temperature_scaling(model, LOGITS, LOGITS.argmax(axis=1))


def test_a_functional_model_that_ends_in_a_softmax_layer(eager):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(3)(inputs)))
    x = np.random.default_rng(1).normal(size=(60, 4)).astype("float32")
    y = model.predict(x, verbose=0).argmax(axis=1)
    y[:9] = (y[:9] + 1) % 3
    scaled = kregs.temperature_scaling(model, x, y)
    logits = np.log(model.predict(x, verbose=0)) / scaled.temperature
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled.model.predict(x, verbose=0), expected, atol=1e-6)


def test_a_model_of_several_labels_is_refused():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    with pytest.raises(ValueError, match=r"one class a row.*3 units"):
        kregs.calibration(model, np.ones((5, 4)), np.eye(3)[[0, 1, 2, 0, 1]])
