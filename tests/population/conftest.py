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
