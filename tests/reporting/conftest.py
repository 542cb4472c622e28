"""Helpers beside the tests can be imported, and TensorFlow is not loaded for tests of pages."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Instead of the fixture for all tests, which loads Keras: nothing here trains a model."""
    np.random.seed(0)  # noqa: NPY002
