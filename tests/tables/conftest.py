"""Tables that several test files read."""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import pandas as pd
import pytest


def make_people(rows=120, seed=0):
    """A table with every kind of column, and gaps; `y` depends on age and city."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, rows)
    city = rng.choice(["Bonn", "Köln", "Ulm"], rows, p=[0.5, 0.4, 0.1])
    frame = pd.DataFrame(
        {
            "customer": np.arange(rows) + 1000,
            "age": age.astype(str).astype(object),
            "income": [f"{v:.2f}" for v in rng.lognormal(8, 1, rows)],
            "city": city.astype(object),
            "member": rng.choice(["true", "False"], rows).astype(object),
            "since": [f"20{v:02}-03-01" for v in rng.integers(10, 26, rows)],
            "country": "DE",
            "empty": "",
            "remark": [f"text {i}" for i in range(rows)],
            "y": np.where(age / 40 + (city == "Ulm") + rng.normal(0, 0.3, rows) > 1.3, "yes", "no"),
        }
    )
    frame.loc[::7, "income"] = "?"
    frame.loc[::11, "city"] = "NA"
    frame.loc[3, "age"] = "unknown"
    return frame


@contextlib.contextmanager
def without_tracing():
    import keras

    with pytest.MonkeyPatch.context() as patch:
        always = property(lambda self: True, lambda self, value: None)
        patch.setattr(keras.Model, "run_eagerly", always)
        yield


@pytest.fixture(scope="session")
def eager():
    """The context in which Keras traces nothing: faster where a network trains for a few steps."""
    return without_tracing


@pytest.fixture(scope="session")
def people():
    """The function that makes a table of people: every call a fresh frame."""
    return make_people


@pytest.fixture
def people_csv(people, tmp_path):
    people().to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


@pytest.fixture(scope="session")
def tabular(shared):
    spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.tabular
