from __future__ import annotations

import contextlib
import re
import warnings

import keras
import numpy as np
import pytest

import kregs


def build_linear(hp):
    """A linear model whose true weights are known; λ may be off."""
    regularization = kregs.Regularization.from_hp(hp, l2=(0, 1e-4, 1.0))
    rate = hp.Choice("learning_rate", [0.03, 0.1])
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(
                1, kernel_regularizer=keras.regularizers.L2(regularization.l2), name="out"
            ),
        ]
    )
    return kregs.compile_model(model, "mse", learning_rate=rate, metrics=["mae"])


@contextlib.contextmanager
def _says(words):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    messages = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    assert len(messages) == 1, messages
    assert re.search(words, messages[0]), messages


@pytest.fixture
def says():
    """A context in which one warning is given, of these words (a regular expression).

    Unlike `pytest.warns` it bears with keras-tuner's own deprecated calls.
    """
    return _says


@pytest.fixture(scope="session")
def linear_data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(80, 3)).astype("float32")
    return x, (x @ [1.0, -2.0, 0.5]).astype("float32")


@pytest.fixture(scope="session")
def build():
    return build_linear


@pytest.fixture(scope="session")
def project(tmp_path_factory, linear_data):
    """A finished search of four trials; do not write into it."""
    directory = tmp_path_factory.mktemp("runs")
    return kregs.tune(
        build_linear, *linear_data, max_trials=4, epochs=3, directory=directory, verbose=0
    )
