"""Fixtures of the population's tests."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture
def double():
    """Layers and optimizers of float64, so that only the arithmetic can differ."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


@pytest.fixture
def eager(monkeypatch):
    """Let Keras train without tracing, most of the time of a `fit` of a few steps."""
    always = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(keras.Model, "run_eagerly", always)
