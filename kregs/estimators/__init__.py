"""`KregsClassifier` and `KregsRegressor`: the networks of tables as scikit-learn estimators."""

from kregs.estimators.classifier import KregsClassifier
from kregs.estimators.regressor import KregsRegressor

__all__ = ["KregsClassifier", "KregsRegressor"]
