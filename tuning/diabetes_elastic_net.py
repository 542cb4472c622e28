"""The search for both λ of the elastic net on diabetes.

Command:  python -m kregs.tuning.diabetes_elastic_net
Time:     16 min on 2 CPU cores
Result:   results/diabetes_elastic_net.json
"""

from __future__ import annotations

from typing import Any

import keras


class LastEpochOnly(keras.callbacks.Callback):
    """Lets only the end of the training be judged: an elastic net is what it converges to.

    Epochs whose objective is NaN are never the best. Otherwise λ = 0, stopped early, would win.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and epoch + 1 < self.params["epochs"]:
            logs["val_data_loss"] = float("nan")


PROTOCOL = {
    "oracle": "random",
    "max_trials": 20,
    "epochs": 300,
    "batch_size": 256,
    "validation_split": 0.3,
    "objective": "val_data_loss",
    "callbacks": [LastEpochOnly()],
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("diabetes_elastic_net")
