"""Grouped against separate convolutions of K members: where each is faster.

    python tests/benchmarks/convolutions.py [--members 32] [--repeats 5]

Milliseconds of a convolution and its gradients on a batch of 32, the fastest of some repeats; the
last column is separate / grouped. The rule for CPUs in
`kregs.population.layers.grouped_convolution` is from this.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIZES = (28, 14, 7, 4)
CHANNELS = ((1, 16), (3, 32), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kernel", type=int, default=3)
    arguments = parser.parse_args()

    import tensorflow as tf

    from kregs.population.layers.grouped_convolution import measure

    plain = (("dilations", (1, 1)), ("padding", "SAME"), ("strides", (1, 1, 1, 1)))
    print("| size | in | out | grouped ms | separate ms | separate / grouped |")
    print("|---|---|---|---|---|---|")
    for before, after in CHANNELS:
        for size in SIZES:
            kernel = (arguments.members, arguments.kernel, arguments.kernel, before, after)
            grouped, separate = measure(
                (32, size, size), kernel, plain, tf.float32, arguments.members, arguments.repeats
            )
            print(
                f"| {size} | {before} | {after} | {1e3 * grouped:.1f} | {1e3 * separate:.1f} "
                f"| {separate / grouped:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
