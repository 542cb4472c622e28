"""The schedule against its closed form."""

from __future__ import annotations

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
