"""`autoencoder`, tied and not, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("tied", [False, True])
def test_autoencoder_is_its_closed_form(tied):
    model = kregs.autoencoder(
        (6,), units=(5, 3), tied=tied, activation="tanh", head_activation="sigmoid"
    )
    model.set_weights([RNG.normal(size=w.shape) for w in model.weights])
    w = {weight.path: weight.numpy() for weight in model.weights}
    x = RNG.normal(size=(4, 6)).astype("float32")
    code = np.tanh(x @ w["encoder_dense_1/kernel"] + w["encoder_dense_1/bias"])
    code = np.tanh(code @ w["encoder_dense_2/kernel"] + w["encoder_dense_2/bias"])
    if tied:
        y = code @ w["encoder_dense_2/kernel"].T + w["encoder_dense_2/reverse_bias"]
        y = np.tanh(y) @ w["encoder_dense_1/kernel"].T + w["encoder_dense_1/reverse_bias"]
    else:
        y = code @ w["decoder_dense_1/kernel"] + w["decoder_dense_1/bias"]
        y = np.tanh(y) @ w["head/kernel"] + w["head/bias"]
    np.testing.assert_allclose(model(x), 1 / (1 + np.exp(-y)), rtol=1e-4, atol=1e-6)
    encoder = keras.Model(model.inputs[0], model.get_layer("code").output)
    np.testing.assert_allclose(encoder(x), code, rtol=1e-4, atol=1e-6)


def test_tying_halves_the_kernels_and_penalizes_them_once():
    r = Regularization(l2=0.1)
    both = [
        kregs.autoencoder((6,), units=(5, 3), tied=tied, regularization=r) for tied in (False, True)
    ]
    sizes = [sum(w.shape[0] * w.shape[1] for w in m.weights if w.name == "kernel") for m in both]
    assert sizes == [2 * (6 * 5 + 5 * 3), 6 * 5 + 5 * 3]
    tied = both[1]
    tied(np.ones((2, 6), "float32"))
    assert len(tied.losses) == 2
