"""The test scores of a run on a table, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def scores_table(record: Mapping[str, Any]) -> tuple[list[str], pd.DataFrame]:
    """Return sentences about the test scores, and these, one row a model, for a report.

    Args:
        record: what is in `table.json`.

    Example:

    >>> rows = {"train": 80, "test": 20, "saved_model": 100}
    >>> sentences, table = scores_table({"rows": rows, "test": {"mean": {"r2": 0.0}}})
    >>> sentences[0], table.columns.tolist()
    ('Test part, 20 rows that the search has not seen', ['model', 'r2'])
    """
    rows, calibration = record["rows"], record.get("calibration")
    sentences = [f"Test part, {rows['test']} rows that the search has not seen"]
    if "saved_model" in rows:
        sentences.append(
            f"The saved model was then trained on all {rows['saved_model']} rows, these too: the "
            "scores are those of the model before"
        )
    if calibration:
        sentences.append(
            f"Temperature {calibration['temperature']:.3g}: the log loss of "
            f"{calibration['rows']} out-of-fold predictions goes from "
            f"{calibration['log_loss_before']:.4g} to {calibration['log_loss_after']:.4g}"
        )
    frame = pd.DataFrame.from_dict(record["test"], orient="index").rename_axis("model")
    return sentences, frame.reset_index()
