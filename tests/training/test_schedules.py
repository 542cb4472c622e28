"""The schedule against its closed form."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs


@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("final", [0.0, 0.2, 1.0])
def test_closed_form(steps, warmup, final):
    schedule = kregs.warmup_cosine(0.3, steps=steps, warmup=warmup, final=final)
    rising = min(round(warmup * steps), steps - 1)
    for t in {0, rising // 2, rising, (rising + steps) // 2, steps, steps + 10}:
        if t < rising:
            expected = 0.3 * t / rising
        else:
            part = min((t - rising) / (steps - rising), 1.0)
            expected = 0.3 * (final + (1 - final) * (1 + np.cos(np.pi * part)) / 2)
        assert float(schedule(t)) == pytest.approx(expected, abs=1e-6), t


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"learning_rate": 0.0}, ValueError),
        ({"steps": 0}, ValueError),
        ({"steps": 10.0}, TypeError),
        ({"warmup": 1.0}, ValueError),
        ({"final": 1.5}, ValueError),
    ],
    ids=str,
)
def test_wrong_arguments(options, error):
    arguments = {"learning_rate": 0.1, "steps": 10} | options
    with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
        kregs.warmup_cosine(arguments.pop("learning_rate"), **arguments)


STEPS = np.array([0, 1, 20, 49, 50, 51, 75, 99, 100, 130])


@pytest.mark.parametrize("flat", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("final", [0.0, 0.3])
def test_flat_cosine(flat, final):
    t = np.minimum(STEPS / 100, 1.0)
    falling = 0.5 * (1 + np.cos(np.pi * np.clip((t - flat) / (1 - flat), 0, 1)))
    expected = 0.2 * (final + (1 - final) * np.where(t < flat, 1.0, falling))
    check(kregs.FlatCosine(0.2, steps=100, flat=flat, final=final), expected)


def test_flat_cosine_is_that_of_realmlp():
    """pytabkit's form: half of 1 + cos(pi (max(1, 2 t) - 1))."""
    t = np.minimum(STEPS / 100, 1.0)
    check(kregs.FlatCosine(1.0, steps=100), 0.5 * (1 + np.cos(np.pi * (np.maximum(1, 2 * t) - 1))))


def test_coslog4():
    t = np.minimum(STEPS / 100, 1.0)
    check(kregs.CosLog4(0.2, steps=100), 0.2 * 0.5 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))))
    whole = np.array([float(kregs.CosLog4(1.0, steps=4500)(step)) for step in range(0, 4501, 20)])
    peaks = np.flatnonzero((whole[1:-1] > whole[:-2]) & (whole[1:-1] > whole[2:]))
    assert len(peaks) == 4


def check(schedule, expected):
    values = [float(schedule(step)) for step in STEPS]
    np.testing.assert_allclose(values, expected, atol=1e-5)
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    model.fit(np.ones((6, 2)), np.ones(6), batch_size=2, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(float(schedule(3)), rel=1e-6)


@pytest.mark.parametrize("kind", [kregs.FlatCosine, kregs.CosLog4])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"learning_rate": 0.0}, ValueError),
        ({"learning_rate": "fast"}, TypeError),
        ({"steps": 0}, ValueError),
        ({"steps": 10.0}, TypeError),
        ({"flat": 1.0}, ValueError),
        ({"final": -0.1}, ValueError),
    ],
    ids=str,
)
def test_wrong_arguments_of_the_classes(kind, options, error):
    name = next(iter(options))
    if kind is kregs.CosLog4 and name in ("flat", "final"):
        pytest.skip("it has none")
    arguments = {"learning_rate": 0.1, "steps": 10} | options
    with pytest.raises(error, match=f"`{name}` must be"):
        kind(arguments.pop("learning_rate"), **arguments)
