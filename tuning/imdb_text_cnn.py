"""The search for λ, dropout, spatial dropout and max-norm of the text network on reviews.

Command:  python -m kregs.tuning.imdb_text_cnn
Time:     10 min on 2 CPU cores
Result:   results/imdb_text_cnn.json

All 12,500 training reviews of the copy, of which 2,500 validate. An epoch of one network in a
population is about 5 s on 2 CPU cores: 6 trials of 6 epochs in each search, and 10 networks at
the end.
"""

from __future__ import annotations

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
