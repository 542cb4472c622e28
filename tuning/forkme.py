"""The search for λ and dropout of the template.

Command:  python -m kregs.tuning.forkme
Time:     12 s on 2 CPU cores
Result:   results/forkme.json
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 24,
    "epochs": 30,
    "batch_size": 16,
    "validation_split": 0.3,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("forkme")
