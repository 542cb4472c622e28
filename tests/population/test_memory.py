"""What a population holds in memory is bounded, whatever the epochs and the batch size."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population import Population, capacity
from kregs.population.program import Program
from kregs.population.rows import ORDER_BYTES, Feed, as_rows

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 1))


def build(rate):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def test_orders_that_are_kept_have_a_bound():
    rows = 200_000
    feed = Feed(as_rows(np.zeros((rows, 1), "float32"), np.zeros(rows, "float32")), None, 1000)
    first = feed.order(None, 5, 0)
    assert feed.order(None, 5, 0) is first  # members of one seed share it
    for epoch in range(60):
        np.testing.assert_array_equal(np.sort(feed.order(None, 5, epoch)), np.arange(rows))
    assert first.nbytes * 60 > 2 * ORDER_BYTES
    assert 2 * first.nbytes < feed._orders.nbytes <= ORDER_BYTES
    np.testing.assert_array_equal(feed.order(None, 5, 0), first)
    assert not np.array_equal(feed.order(None, 6, 0), first)


def test_one_order_that_is_larger_than_the_bound_is_kept_alone():
    rows = ORDER_BYTES // 4 + 1
    feed = Feed(as_rows(np.zeros((rows, 1), "float32"), np.zeros(rows, "float32")), None, 1000)
    orders = [feed.order(None, 5, epoch) for epoch in range(2)]
    assert feed._orders.nbytes == orders[1].nbytes
    assert feed.order(None, 5, 1) is orders[1]


def test_a_batch_larger_than_the_data_is_all_rows(double, eager):
    """As in Keras, in training and in validation."""
    models = [build(rate) for rate in (0.3, 0.1)]
    references = [build(rate) for rate in (0.3, 0.1)]
    for model, reference in zip(models, references, strict=True):
        reference.set_weights(model.get_weights())
    fit = {"validation_data": (X[:25], Y[:25]), "epochs": 2, "batch_size": 3_000_000}
    histories = Population.from_models(models).fit(X, Y, accelerate=False, **fit)
    for reference, history in zip(references, histories, strict=True):
        expected = reference.fit(X, Y, verbose=0, **fit).history
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-8)
    feed = Feed(as_rows(X, Y), as_rows(X[:25], Y[:25]), 3_000_000)
    assert (feed.step_rows, feed.validation_step_rows) == (60, 25)
    # a validation set may be larger than the training data
    feed = Feed(as_rows(X[:25], Y[:25]), as_rows(X, Y), 50)
    assert (feed.step_rows, feed.validation_step_rows) == (25, 50)


PEAK = textwrap.dedent(
    """
    import resource, sys
    import keras, numpy as np
    from kregs.population import Population

    def build(rate):
        body = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((3,)), *body])
        model.compile(keras.optimizers.SGD(rate), "mse")
        return model

    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    population = Population.from_models([build(rate) for rate in (0.3, 0.1, 0.2)])
    fit = {"epochs": 2, "validation_data": (x, x[:, :1])}
    population.fit(x, x[:, :1], batch_size=60, **fit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    population.fit(x, x[:, :1], batch_size=3_000_000, **fit)
    print("MiB", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """
)


@pytest.mark.nightly
def test_a_large_batch_size_takes_no_memory():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) < 150


def test_a_further_call_gives_back_the_programs_of_the_one_before(monkeypatch):
    alive: list[weakref.ref] = []
    begin = Program.__init__

    def counted(self, *arguments, **named):
        begin(self, *arguments, **named)
        alive.append(weakref.ref(self))

    monkeypatch.setattr(Program, "__init__", counted)
    population = Population.from_models([build(rate) for rate in (0.3, 0.1)])
    gc.disable()
    try:
        for _ in range(3):
            population.fit(X, Y, batch_size=30, accelerate=False)
    finally:
        gc.enable()
    assert [reference() is not None for reference in alive] == [False, False, True]


LIMITS = {
    "version 2": (
        "0::/job/task\n", {"job/memory.max": "3000", "job/task/memory.max": "max"}, [3000]
    ),
    "version 2, inner": (
        "0::/job\n", {"memory.max": "9000", "job/memory.max": "4000"}, [4000, 9000]
    ),
    "version 2 in a container": ("0::/of/the/host\n", {"memory.max": "5000"}, [5000]),
    "version 1": (
        "5:cpu:/a\n4:memory:/job\n",
        {
            "memory/job/memory.limit_in_bytes": "2000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        [2000, 9223372036854771712],
    ),
    "both": ("4:cpu,memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "7000"}, [7000]),
    "none": ("0::/job\n", {"job/memory.max": "max"}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_of_a_container_is_read(tmp_path, name):
    lines, files, expected = LIMITS[name]
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    for path, text in {"proc/self/cgroup": lines, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert list(capacity._container_limits(tmp_path)) == expected


def test_no_more_members_train_at_once_than_the_container_holds(monkeypatch, tmp_path):
    assert list(capacity._container_limits(tmp_path)) == []  # where there are no groups
    population = Population.from_models([build(rate) for rate in (0.3, 0.1)])
    plenty = capacity.members_at_once(population.layout, 1000, None)
    monkeypatch.setattr(capacity, "_container_limits", lambda: iter([10**9, 10**6]))
    assert 1 <= capacity.members_at_once(population.layout, 1000, None) < plenty
