"""Fixtures of the training tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def eager(monkeypatch):
    """Let Keras train and evaluate without tracing, most of the time of a few small steps."""
    import keras

    always = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(keras.Model, "run_eagerly", always)
