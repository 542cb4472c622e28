"""Whether cost grows as the work does: seconds a trial and of the report by the number of trials.

    python tests/benchmarks/search_scaling.py            # 32, 128, 512 and 2,048 trials
    python tests/benchmarks/search_scaling.py --trials 32 128

A small MLP on 200 rows, 3 epochs, by the random oracle. The last trials should be as cheap as the
hundredth; a trial leaves two files beside those whose weights are kept.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

import kregs

ROWS, EPOCHS = 200, 3


def build(hp):
    r = kregs.Regularization.from_hp(hp, l2=(1e-6, 1e-2), dropout=(0.0, 0.6))
    model = kregs.mlp((8,), 2, units=(16,), regularization=r)
    return kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=1e-2)


def measure(trials: int) -> dict[str, float]:
    """Search with so many trials; return what it took."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 8)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = kregs.tune(
            build, x, y, max_trials=trials, epochs=EPOCHS, verbose=0, directory=folder
        )
        searched = time.perf_counter()
        result.report()
        reported = time.perf_counter()
        kregs.load_result(result.path).trials()
        read = time.perf_counter()
        # when each trial's record was written: the time of the last tenth against the second
        ends = sorted(p.stat().st_mtime for p in Path(folder).glob("search/trial_*/training.json"))
        tenth = max(1, trials // 10)
        files = sum(1 for p in Path(folder).glob("search/trial_*/*"))
    return {
        "trials": trials,
        "s/trial": (searched - began) / trials,
        "s/trial, second tenth": (ends[2 * tenth - 1] - ends[tenth - 1]) / tenth,
        "s/trial, last tenth": (ends[-1] - ends[-1 - tenth]) / tenth,
        "report s": reported - searched,
        "read s": read - reported,
        "files/trial": files / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[32, 128, 512, 2048])
    arguments = parser.parse_args()
    measure(8)  # loads and compiles what later searches share
    table = pd.DataFrame([measure(trials) for trials in arguments.trials])
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
