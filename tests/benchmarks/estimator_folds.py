"""What the mean of five networks gains: `KregsRegressor` and `KregsClassifier` beside their peers.

    python tests/benchmarks/estimator_folds.py [--splits 3]

On scikit-learn's own small tables, split in three by shuffled folds: the default (a network for
each of five folds, trained as one population), `folds=None` (one network), a linear model and
HistGradientBoosting. The numbers are R² of a regression, log loss of classes (`calibrate=True`),
and the median of the seconds that `fit` took, all in one run.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kregs

TABLES = {
    "diabetes": (load_diabetes, False),
    "breast_cancer": (load_breast_cancer, True),
    "wine": (load_wine, True),
}


def models_of(*, classes: bool) -> dict[str, Any]:
    """Return what is compared, by name."""
    if not classes:
        return {
            "five networks (default)": kregs.KregsRegressor(random_state=0),
            "one network": kregs.KregsRegressor(random_state=0, folds=None),
            "linear": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
            "HistGradientBoosting": HistGradientBoostingRegressor(random_state=0),
        }
    options: dict[str, Any] = {"random_state": 0, "calibrate": True}
    linear = LogisticRegressionCV(
        max_iter=1000, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False
    )
    return {
        "five networks (default)": kregs.KregsClassifier(**options),
        "one network": kregs.KregsClassifier(**options, folds=None),
        "linear": make_pipeline(StandardScaler(), linear),
        "HistGradientBoosting": HistGradientBoostingClassifier(random_state=0),
    }


def main() -> None:
    """Fit everything, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--splits", type=int, default=3)
    splits = parser.parse_args().splits
    print(f"{'':16s}{'':26s}" + "".join(f"{f'split {k}':>10s}" for k in range(splits)), end="")
    print(f"{'mean':>10s}{'seconds':>10s}")
    for table, (load, classes) in TABLES.items():
        x, y = load(return_X_y=True)
        folds = (StratifiedKFold if classes else KFold)(splits, shuffle=True, random_state=0)
        pairs = list(folds.split(x, y))
        for name, model in models_of(classes=classes).items():
            scores, seconds = [], []
            for train, test in pairs:
                start = time.perf_counter()
                model.fit(x[train], y[train])
                seconds.append(time.perf_counter() - start)
                if classes:
                    scores.append(log_loss(y[test], model.predict_proba(x[test])))
                else:
                    scores.append(model.score(x[test], y[test]))
            numbers = "".join(f"{score:10.3f}" for score in [*scores, np.mean(scores)])
            print(f"{table:16s}{name:26s}{numbers}{np.median(seconds):10.1f}", flush=True)


if __name__ == "__main__":
    main()
