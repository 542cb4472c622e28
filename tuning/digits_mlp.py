"""The search for λ, dropout, noise and normalization of the dense network on digits.

Command:  python -m kregs.tuning.digits_mlp
Time:     51 s on 2 CPU cores
Result:   results/digits_mlp.json
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 48,
    "epochs": 80,
    "batch_size": 50,
    "validation_split": 0.3,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("digits_mlp")
