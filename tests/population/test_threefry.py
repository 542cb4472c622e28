"""Random numbers of members: Threefry's published numbers, distributions, what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import kstest

from kregs.population.threefry import Noise, threefry


@pytest.mark.parametrize("compiled", [False, True])
def test_noise_has_the_right_mean_and_variance(compiled):
    noise = Noise(tf.constant([1, 2, 1]), tf.constant([3, 3, 4]), batch=200, compiled=compiled)
    rates = np.array([0.1, 0.5, 0.0])
    kept = noise.kept([200, 51], 1, tf.constant(rates)).numpy()
    assert kept.shape == (3, 200, 51)
    np.testing.assert_allclose(kept.mean((1, 2)), 1 - rates, atol=0.02)
    normal = noise.normal([200, 51], 2).numpy()
    np.testing.assert_allclose(normal.mean((1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(normal.std((1, 2)), 1, atol=0.03)
    assert abs(np.corrcoef(normal.reshape(3, -1)) - np.eye(3)).max() < 0.05
    assert kstest(normal[0].ravel(), "norm").pvalue > 1e-3


def test_a_short_step_gets_the_first_rows_of_the_noise():
    arguments = tf.constant([1, 2]), tf.constant([3, 4])
    full_step = Noise(*arguments, batch=8, compiled=False).normal([8, 5], 1).numpy()
    short_step = Noise(*arguments, batch=8, compiled=False).normal([tf.constant(3), 5], 1).numpy()
    np.testing.assert_array_equal(short_step, full_step[:, :3])


def test_threefry_gives_the_published_numbers():
    """Known answers of Random123's kat_vectors for threefry2x32, 20 and 13 rounds."""
    cases = [
        (20, (0x00000000,) * 2, (0x00000000,) * 2, (0x6B200159, 0x99BA4EFE)),
        (20, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (20, (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
        (13, (0x00000000,) * 2, (0x00000000,) * 2, (0x9D1C5EC6, 0x8BD50731)),
        (13, (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0xFD36D048, 0x2D17272C)),
        (13, (0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xBA3E4725, 0xF27D669E)),
    ]
    for rounds, key, counter, expected in cases:
        words = [tuple(tf.constant([w], tf.uint32) for w in pair) for pair in (key, counter)]
        got = tuple(int(word[0]) for word in threefry(*words, rounds))
        assert got == expected


def test_noise_differs_by_layer_step_and_row():
    noise, later = (
        Noise(tf.constant([1]), tf.constant([t]), batch=5, compiled=True) for t in (0, 1)
    )
    one = noise.normal([5, 4], 1).numpy()
    assert len(np.unique(one)) == 20
    assert not np.isin(one, noise.normal([5, 4], 2).numpy()).any()
    assert not np.isin(one, later.normal([5, 4], 1).numpy()).any()
