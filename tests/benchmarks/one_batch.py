"""What the first layer would save if all members saw the same batch: the upper limit of that.

    python tests/benchmarks/one_batch.py [--repeats 9]

Members shuffle by their own seed and are at epochs of their own, so each step of a population has a
batch for each. On one batch, the first product (or convolution) of K members would be one with K
times the units. Microseconds of a member-step of that layer, of its kernel's gradient and of the
gathering of the rows, both ways in turn; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH, ROWS, STEPS = 32, 3200, 20


def dense_steps(members, shared, units=128, features=64):
    """Return a function of one epoch: the first product of the benchmark's MLP."""
    import tensorflow as tf

    data = tf.random.normal((ROWS, features))
    kernel = tf.Variable(tf.random.normal((members, features, units)) / 8)

    def product(rows, kernel):
        x = tf.gather(data, rows)
        if not shared:
            return x, tf.matmul(x, kernel)
        wide = tf.reshape(tf.transpose(kernel, [1, 0, 2]), [features, members * units])
        y = tf.reshape(tf.matmul(x, wide), [BATCH, members, units])
        return x, tf.transpose(y, [1, 0, 2])

    def gradient(x, dy):
        if not shared:
            return tf.matmul(x, dy, transpose_a=True)
        wide = tf.reshape(tf.transpose(dy, [1, 0, 2]), [BATCH, members * units])
        made = tf.reshape(tf.matmul(x, wide, transpose_a=True), [features, members, units])
        return tf.transpose(made, [1, 0, 2])

    return epoch(kernel, product, gradient, members, shared, compiled=True)


def convolution_steps(members, shared, filters=32, size=28):
    """Return a function of one epoch: the first convolution of the benchmark's `fashion`."""
    import tensorflow as tf

    data = tf.random.normal((ROWS, size, size, 1))
    kernel = tf.Variable(tf.random.normal((members, 3, 3, 1, filters)) / 3)
    shape = [BATCH, size, size]

    def packed(kernel):
        return tf.reshape(tf.transpose(kernel, [1, 2, 3, 0, 4]), [3, 3, 1, members * filters])

    def convolve(x, kernel):  # grouped, as kregs does with so few channels
        return tf.nn.conv2d(x, packed(kernel), 1, "SAME")

    def product(rows, kernel):
        x = tf.gather(data, rows)
        if not shared:  # (K, batch, ...) to K channels
            x = tf.reshape(tf.transpose(x[..., 0], [1, 2, 3, 0]), [*shape, members])
        return x, convolve(x, kernel)

    def gradient(x, dy):
        made = tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=[3, 3, 1, members * filters], out_backprop=dy,
            strides=[1, 1, 1, 1], padding="SAME",
        )  # fmt: skip
        made = tf.reshape(made, [3, 3, 1, members, filters])
        return tf.transpose(made, [3, 0, 1, 2, 4])

    return epoch(kernel, product, gradient, members, shared, compiled=False)


def epoch(kernel, product, gradient, members, shared, *, compiled):
    """Return a function that takes `STEPS` steps of the layer."""
    import tensorflow as tf

    shape = [STEPS, BATCH] if shared else [STEPS, members, BATCH]
    order = tf.random.uniform(shape, maxval=ROWS, dtype=tf.int32)

    def step(number, kernel):
        x, y = product(order[number], kernel)
        return number + 1, kernel - 1e-3 * gradient(x, y)

    return tf.function(
        lambda: tf.while_loop(lambda n, _: n < STEPS, step, (0, kernel.value()))[1],
        jit_compile=compiled,
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print("| first layer | members | a batch each, us | one batch, us | saved, us |")
    print("|---|---|---|---|---|")
    for name, steps, counts in (
        ("64 to 128", dense_steps, (8, 32)),
        ("28x28x1 to 32 filters", convolution_steps, (4, 16)),
    ):
        for members in counts:
            each, one = (steps(members, shared) for shared in (False, True))
            each(), one()  # they are compiled
            times = {each: [], one: []}
            for _ in range(repeats):
                for function, taken in times.items():
                    began = time.perf_counter()
                    function().numpy()
                    taken.append(1e6 * (time.perf_counter() - began) / STEPS / members)
            each, one = (statistics.median(taken) for taken in times.values())
            print(f"| {name} | {members} | {each:.0f} | {one:.0f} | {each - one:.0f} |", flush=True)


if __name__ == "__main__":
    main()
