"""Time a member-step against the number of members, the rate in FLOP/s, and peak memory.

    python tests/benchmarks/population_scaling.py [--members 1 8 32 128 512] [--plot FILE]

The network is 64-128-128-10 with batch normalization and dropout, batches of 32, 1,437 rows. What
bounds a step is measured in the same run, each alone: the products of the network at the rate of
the fastest batched product of its own shapes, Adam on as many weights, the dropout's masks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, ROWS, UNITS = 32, 1437, (64, 128, 128, 10)


def run(members, repeats):
    import resource

    import numpy as np
    import tensorflow as tf

    import kregs
    from kregs.population import Population
    from kregs.population.rows import Feed, as_rows
    from kregs.population.training import Training

    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, UNITS[0])).astype("float32")
    y = generator.integers(0, UNITS[-1], ROWS)

    r = kregs.Regularization(l2=1e-4, dropout=0.3, normalization="batch")
    model = kregs.mlp(UNITS[:1], UNITS[-1], units=UNITS[1:-1], regularization=r)
    kregs.compile_model(model, "sparse_categorical_crossentropy", metrics=["accuracy"])
    population = Population.from_models([model])
    data = as_rows(x, y)
    training = Training(population.layout, members, Feed(data, None, BATCH))
    program = training.program(members)
    weights = [v.value.numpy() for v in model.weights]
    settings = population.layout.settings[0]
    slots = range(members)
    program.fill(slots, [weights] * members, [settings] * members, list(slots))
    steps = -(-ROWS // BATCH)
    index = np.full((members, steps * BATCH), -1, np.int32)
    for k in slots:
        index[k, :ROWS] = generator.permutation(ROWS)
    index = index.reshape(members, steps, BATCH)
    rates = np.full((members, steps), 1e-3)
    began = time.perf_counter()
    program.train(data, index, rates, 2**27)
    first = time.perf_counter() - began
    epochs = []
    for _ in range(repeats):
        began = time.perf_counter()
        program.train(data, index, rates, 2**27)
        epochs.append(time.perf_counter() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # the limit, at this number of members
    a = tf.random.normal((members, BATCH, 128))
    b = tf.random.normal((members, 128, 128)) / 128

    @tf.function
    def products():
        x = a
        for _ in range(20):  # each needs the one before, so that none is left out
            x = tf.matmul(x, b)
        return tf.reduce_sum(x)

    products()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        products().numpy()
        times.append(time.perf_counter() - began)
    count = sum(np.size(weight) for weight in model.get_weights())
    adam = seconds_of_steps(adam_steps, [tf.zeros((members, count))] * 4, steps, repeats)
    seeds = tf.range(members, dtype=tf.int32)
    masks = seconds_of_steps(mask_steps, [seeds], steps, repeats)
    weights_each = sum(p * q for p, q in itertools.pairwise(UNITS))
    step_flops = 6 * BATCH * weights_each
    print(
        json.dumps(
            {
                "members": members,
                "first": first,
                "step": statistics.median(epochs) / steps / members,
                "flops": step_flops * steps * members / statistics.median(epochs),
                "limit": 20 * 2 * members * BATCH * 128 * 128 / statistics.median(times),
                "adam": adam / members,
                "masks": masks / members,
                "MiB": memory,
            }
        )
    )


def adam_steps(steps, weights, mean, square, gradient):
    """Adam alone: reads four arrays and writes three in each step."""
    import tensorflow as tf

    def step(number, weights, mean, square):
        mean = mean + (gradient - mean) * 0.1
        square = square + (gradient * gradient - square) * 0.001
        return number + 1, weights - 1e-3 * mean / (tf.sqrt(square) + 1e-7), mean, square

    return tf.while_loop(lambda n, *_: n < steps, step, (0, weights, mean, square))


def mask_steps(steps, seeds):
    """The masks of both dropout layers alone."""
    import tensorflow as tf

    from kregs.population.threefry import Noise

    rates = tf.fill(seeds.shape, 0.3)

    def step(number, total):
        noise = Noise(seeds, seeds + number, batch=BATCH, compiled=True)
        drawn = [noise.kept([BATCH, units], k, rates) for k, units in enumerate(UNITS[1:-1])]
        kept = sum(tf.reduce_sum(tf.cast(mask, tf.int32)) for mask in drawn)
        return number + 1, total + kept

    return tf.while_loop(lambda n, _: n < steps, step, (0, 0))


def seconds_of_steps(function, arrays, steps, repeats):
    """Return the median seconds of a step of a function that takes so many, compiled."""
    import tensorflow as tf

    compiled = tf.function(lambda *given: function(steps, *given), jit_compile=True)
    times = []
    for _ in range(repeats + 1):  # the first one compiles
        began = time.perf_counter()
        compiled(*arrays)[0].numpy()
        times.append((time.perf_counter() - began) / steps)
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 8, 32, 128, 512])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plot", help="a PNG file")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run(arguments.one, arguments.repeats)
        return
    print(f"{os.cpu_count()} cores, median of {arguments.repeats} epochs")
    print(
        "| members | µs a member-step | Adam alone | masks alone | GFLOP/s "
        "| batched product GFLOP/s | peak MiB | first epoch s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for members in arguments.members:
        command = [sys.executable, __file__, "--one", str(members)]
        command += ["--repeats", str(arguments.repeats)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"| {members} | {row['step'] * 1e6:.0f} | {row['adam'] * 1e6:.0f} | "
            f"{row['masks'] * 1e6:.0f} | {row['flops'] / 1e9:.0f} | "
            f"{row['limit'] / 1e9:.0f} | {row['MiB']:.0f} | {row['first']:.1f} |",
            flush=True,
        )
    limit = max(row["limit"] for row in rows)
    print(f"the products at that rate: {1e6 * rows[0]['flops'] * rows[0]['step'] / limit:.0f} µs")
    best = max(rows, key=lambda row: row["flops"])
    print(
        f"best: {best['members']} members, {100 * best['flops'] / limit:.0f} % of the fastest "
        f"batched product ({limit / 1e9:.0f} GFLOP/s)"
    )
    if arguments.plot:
        plot(rows, arguments.plot)


def plot(rows, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    members = [row["members"] for row in rows]
    left.semilogx(members, [row["step"] * 1e6 for row in rows], "o-", color="#0072b2")
    left.set(xlabel="members", ylabel="µs a member-step", title="Time", ylim=(0, None))
    right.semilogx(members, [row["MiB"] / 1024 for row in rows], "o-", color="#d55e00")
    right.set(xlabel="members", ylabel="GiB, the process's peak", title="Memory", ylim=(0, None))
    for axes in (left, right):
        axes.set_xticks(members, [str(m) for m in members])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
