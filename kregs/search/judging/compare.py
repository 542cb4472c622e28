"""Whether two trials differ by more than luck: paired over the folds or seeds that they share."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from kregs.search.judging.errors import by_fold, means_by_unit


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two trials compared over the folds and seeds that they share.

    Attributes:
        difference: the mean of the first's scores less the second's.
        standard_error: of that difference, corrected for the overlap of the training rows.
        p_value: two-sided, of the hypothesis that there is no difference.
        pairs: how many folds (or seeds, without folds) it rests on.
        better: `"a"`, `"b"`, or `None` where the difference may be luck (p >= 0.05).
        over: `"folds"`, or `"seeds"`: then the error is that of training, and says nothing of how
            the difference would be on other rows.
        chosen_out_of: out of how many trials one of the two was chosen by these scores, if it was:
            the p-value is too small then, since the best of many looks better than it is.
    """

    difference: float
    standard_error: float
    p_value: float
    pairs: int
    better: str | None
    over: str = "folds"
    chosen_out_of: int | None = None

    def __str__(self) -> str:
        verdict = (
            "the difference may be luck" if self.better is None else f"{self.better} is better"
        )
        words = (
            f"{self.difference:+.4g} ± {self.standard_error:.2g} over {self.pairs} {self.over}, "
            f"p = {self.p_value:.2g}: {verdict}"
        )
        if self.over == "seeds":
            words += "; the error is of training alone, on the same rows"
        if self.chosen_out_of is not None:
            words += (
                f"; one was chosen out of {self.chosen_out_of} trials by these scores, so that the "
                "p-value is too small"
            )
        return words


def compare(
    a: Sequence[Mapping[str, Any]],
    b: Sequence[Mapping[str, Any]],
    *,
    direction: str,
    held_out_share: float | None,
    chosen_out_of: int | None = None,
) -> Comparison:
    """Compare two trials' scores, pair by pair.

    Args:
        a, b: the scores of both, entries with `fold`, `seed`, `score`.
        direction: `"min"` or `"max"`.
        held_out_share: rows judged on over rows trained on, of a fold; `None` without folds.
        chosen_out_of: see `Comparison`.

    Raises:
        ValueError: there are fewer than 2 pairs.

    Reference:
        Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52, 2003: folds
        share training rows, so that the plain t-test finds differences where there are none; the
        variance is multiplied by 1/n + test/train instead of 1/n. With repeats (`RepeatedKFold`)
        n counts all folds: Bouckaert, Frank, "Evaluating the replicability of significance tests
        for comparing learning algorithms", PAKDD 2004.
    """
    first, second = means_by_unit(a), means_by_unit(b)
    common = sorted(set(first) & set(second))
    if len(common) < 2:
        raise ValueError(
            f"a comparison needs at least 2 common folds or seeds: search with folds= or seeds=. "
            f"Received: {len(common)}"
        )
    differences = [first[unit] - second[unit] for unit in common]
    mean, variance = statistics.fmean(differences), statistics.variance(differences)
    factor = 1 / len(common) + (held_out_share or 0.0)
    error = math.sqrt(variance * factor)
    if error == 0.0:
        p_value = 1.0 if mean == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(mean) / error, len(common) - 1))
    better = None
    if p_value < 0.05:
        better = "a" if (mean < 0) == (direction == "min") else "b"
    over = "folds" if by_fold(a) else "seeds"
    return Comparison(mean, error, p_value, len(common), better, over, chosen_out_of)
