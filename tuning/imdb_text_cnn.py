"""The search for λ, dropout, spatial dropout and max-norm of the text network on reviews.

Command:  python -m kregs.tuning.imdb_text_cnn
Time:     4 min on 2 CPU cores
Result:   results/imdb_text_cnn.json
Data:     the first 5,000 of the training reviews, so that two CPU cores do it in minutes
"""

from __future__ import annotations

TRAIN_EXAMPLES = 5000
PROTOCOL = {
    "oracle": "random",
    "max_trials": 6,
    "epochs": 6,
    "batch_size": 64,
    "validation_split": 0.2,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("imdb_text_cnn")
