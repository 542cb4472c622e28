"""How many members train best at once: seconds of an epoch of one, by how many train together.

    python tests/benchmarks/members_at_once.py [mlp convnet fashion] [--members 1 2 4 8 16 32]
        [--epochs 4] [--repeats 3]

Behind the rule of `kregs.population.capacity`. Each run is a process of its own. "first" is the
first epoch of all members, with tracing and compiling; "member-epoch" is an epoch after it, divided
by the members; medians over repeats that alternate between the numbers of members.
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


def make_models(case: str, members: int) -> list:
    """Models that differ in their penalty, rates and learning rate, the first in all of them."""
    import keras
    import search_speed  # beside this file

    import kregs

    models = []
    for k in range(members):
        part = (k + 1) / (members + 1)
        r = kregs.Regularization(
            normalization="batch",
            l2=1e-3 * part,
            dropout=0.6 * part,
            spatial_dropout=0.0 if case == "mlp" else 0.4 * part,
        )
        model = search_speed.network(case, r)
        model.compile(keras.optimizers.Adam(1e-3 * part), "sparse_categorical_crossentropy")
        models.append(model)
    return models


def run(case: str, members: int, epochs: int) -> None:
    """Train, and print the seconds of the first epoch and of the others as JSON."""
    import keras
    import search_speed  # beside this file

    import kregs

    (x, y), _ = search_speed.data(case)
    if case == "fashion":
        x, y = x[:3200], y[:3200]
    population = kregs.Population(make_models(case, members), seeds=range(members))
    ends = {-1: time.perf_counter()}
    clock = keras.callbacks.LambdaCallback(  # the last member to end an epoch is what stays
        on_epoch_end=lambda epoch, logs: ends.update({epoch: time.perf_counter()})
    )
    population.fit(
        x,
        y,
        epochs=epochs,
        batch_size=32,
        max_members=members,
        callbacks=[clock],
    )
    seconds = [end - begin for begin, end in itertools.pairwise(ends.values())]
    print(json.dumps({"first": seconds[0], "later": statistics.median(seconds[1:])}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["mlp", "convnet", "fashion"], metavar="case")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run(arguments.cases[0], arguments.members[0], arguments.epochs)
        return
    print(f"{os.cpu_count()} cores, median of {arguments.repeats} runs")
    print("| case | members | first s | member-epoch s |")
    print("|---|---|---|---|")
    for case in arguments.cases:
        results: dict[int, list[dict[str, float]]] = {m: [] for m in arguments.members}
        for _ in range(arguments.repeats):
            for members in arguments.members:
                command = [
                    *(sys.executable, __file__, case, "--only", "--members", str(members)),
                    *("--epochs", str(arguments.epochs)),
                ]
                environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run(
                    command, capture_output=True, text=True, env=environment, check=False
                )
                if done.returncode:
                    sys.exit(done.stderr)
                results[members].append(json.loads(done.stdout.splitlines()[-1]))
        for members, runs in results.items():
            first = statistics.median(each["first"] for each in runs)
            later = statistics.median(each["later"] for each in runs) / members
            print(f"| {case} | {members} | {first:.2f} | {later:.4f} |", flush=True)


if __name__ == "__main__":
    main()
