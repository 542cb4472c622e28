"""The search for both λ of the elastic net on diabetes.

Command:  python -m kregs.tuning.diabetes_elastic_net
Time:     10 s on 2 CPU cores
Result:   results/diabetes_elastic_net.json

An elastic net is what its training converges to: each run is scored at its last epoch, since λ = 0,
stopped early, would win else. 5 folds of 221 patients: one split of so few would choose by luck.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 20,
    "epochs": 300,
    "batch_size": 256,
    "folds": 5,
    "objective": "val_data_loss",
    "score_at": "last_epoch",
    "callbacks": [],
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("diabetes_elastic_net")
