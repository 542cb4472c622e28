"""The search for λ, spatial dropout and dropout of the convnet on digits.

Command:  python -m kregs.tuning.digits_convnet
Time:     85 s on 2 CPU cores
Result:   results/digits_convnet.json
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 24,
    "epochs": 100,
    "batch_size": 50,
    "validation_split": 0.3,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("digits_convnet")
