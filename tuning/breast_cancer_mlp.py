"""The search for λ and dropout of the dense network on the tumours.

Command:  python -m kregs.tuning.breast_cancer_mlp
Time:     29 s on 2 CPU cores
Result:   results/breast_cancer_mlp.json

5 folds of 284 tumours: one split of so few would choose by luck.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 32,
    "epochs": 100,
    "batch_size": 32,
    "folds": 5,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("breast_cancer_mlp")
