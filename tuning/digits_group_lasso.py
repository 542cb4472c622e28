"""The search for λ of the group lasso on digits: the strongest that costs nothing.

Command:  python -m kregs.tuning.digits_group_lasso
Time:     7 min on 2 CPU cores
Result:   results/digits_group_lasso.json

The strongest λ is taken whose accuracy is within one standard error of the best over 3 folds. A
group lasso leaves its zeros where training ends: each run is scored at its last epoch.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 8,
    "epochs": 90,
    "batch_size": 50,
    "folds": 3,
    "objective": "val_accuracy",
    "score_at": "last_epoch",
    "selection": "one_standard_error",
    "restraint": ["group_l1"],
    "callbacks": [],
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("digits_group_lasso")
