"""Members shared out over devices, here virtual CPUs: a process of its own has four."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kregs.population.training import check_devices

PROGRAM = """
import collections
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")

from kregs.population import Population, lane

rng = np.random.default_rng(0)
x, y = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)


def build(k):
    seeded = {"kernel_initializer": keras.initializers.GlorotUniform(seed=k)}
    body = [keras.layers.Dense(8, "tanh", **seeded), keras.layers.BatchNormalization()]
    head = [keras.layers.Dropout(0.1 * (k % 4)), keras.layers.Dense(3, "softmax", **seeded)]
    model = keras.Sequential([keras.Input((4,)), *body, *head])
    f1 = keras.metrics.F1Score(average="macro")
    model.compile(keras.optimizers.Adam(0.01 * (1 + k % 3)), "categorical_crossentropy",
                  metrics=["accuracy", f1])
    return model


places = collections.Counter()
plain = lane.Lane.epoch
def counted(self):
    for weight in self._program.weights:
        places[weight.device[-5:]] += len(self.active)
    return plain(self)
lane.Lane.epoch = counted

targets = np.eye(3)[y]
outcomes = []
for devices in (None, ["CPU:1", "CPU:3"]):
    places.clear()
    population = Population.from_models([build(k) for k in range(8)], seeds=list(range(8)))
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    histories = population.fit(
        x, targets, validation_data=(x[:30], targets[:30]), epochs=5, batch_size=16,
        early_stopping=stopping, max_members=3, devices=devices,
        accelerate=devices is not None,  # XLA's part is the same in either place
    )
    weights = [model.get_weights() for model in population.unstack()]
    outcomes.append((histories, weights, dict(places)))
(a, one, alone), (b, many, shared) = outcomes
assert set(alone) == {"CPU:0"}, alone
assert set(shared) == {"CPU:1", "CPU:3"}, shared
assert max(shared.values()) < 2 * min(shared.values()), shared
assert len({len(history["loss"]) for history in a}) > 1, "none stopped early"
for ours, theirs in zip(a, b, strict=True):
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, err_msg=name)
for ours, theirs in zip(one, many, strict=True):
    for w, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-7, atol=1e-12)
print("equal")
"""


@pytest.mark.nightly  # a process with several virtual devices
def test_members_do_not_depend_on_their_device():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("equal\n")


def test_devices_that_are_not_there():
    assert check_devices(["CPU:0"]) == ["CPU:0"]
    assert check_devices(None) is None
    with pytest.raises(ValueError, match=r"`devices` must be among CPU:0.* Received: 'TPU:7'"):
        check_devices(["CPU:0", "TPU:7"])
    for bad in ("CPU:0", []):
        with pytest.raises(TypeError, match="`devices` must be a list"):
            check_devices(bad)
