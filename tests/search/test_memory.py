"""Memory does not grow with the number of trials."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

SEARCH = textwrap.dedent(
    """
    import sys
    import numpy as np
    import keras_tuner, kregs

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    class Tuner(kregs.PopulationTuner):
        ended = 0

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            self.ended += 1
            if self.ended in (50, 300):
                print("MiB", resident())

    def build(hp):
        r = kregs.Regularization.from_hp(hp, l2=(1e-6, 1e-1), dropout=(0.0, 0.6))
        model = kregs.mlp((64,), 10, units=(128, 128), regularization=r)
        return kregs.compile_model(model, "sparse_categorical_crossentropy")

    GOAL = keras_tuner.Objective("val_data_loss", "min")
    x = np.random.default_rng(0).normal(size=(256, 64)).astype("float32")
    y = np.arange(256) % 10
    tuner = Tuner(build, GOAL, 300, seed=1, directory=sys.argv[1], keep=5)
    tuner.search(x, y, validation_split=0.2, epochs=2, verbose=0)
    """
)


@pytest.mark.nightly
def test_resident_memory_after_300_trials_is_that_after_50(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    early, late = (
        float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("MiB")
    )
    assert early > 100
    assert late < 1.1 * early, (early, late)
