"""Running a demo: what it measured, the verdict, and the figure."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from kregs.catalog.entries import CLAIMS, Entry, check_name, entries
from kregs.validation import check_flag, check_seed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from kregs.demos.measuring import Verdict


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One claim and what was measured of it.

    Args:
        name: the demo's name.
        claim: one sentence.
        source: where the claim is from.
        runs: one row a trained model.
        table: means over seeds; of a column `c`, `c_error` is the standard error.
        verdict: whether the claim holds on these data, with the numbers that say so.
    """

    name: str
    claim: str
    source: str
    runs: pd.DataFrame
    table: pd.DataFrame
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.claim}\n{self.to_frame().to_string(index=False)}\n{self.verdict}"

    def to_frame(self) -> pd.DataFrame:
        """Return the table with each mean and its standard error as words, "0.12 ± 0.03"."""
        from kregs.demos.measuring import readable

        return readable(self.table)

    def plot(self) -> Figure:
        """Return the figure."""
        return _module(self.name).draw(self.runs)


def demos() -> list[Entry]:
    """Return every demo, sorted by name; `summary` is the claim.

    Example:

    >>> demos()[0].name
    'augmentation_dropout'
    """
    return entries(CLAIMS)


def run(name: str, *, quick: bool = False, seed: int = 0) -> Demonstration:
    """Measure one claim.

    Args:
        name: the demo.
        quick: a few steps of tiny models, to see that it runs; the verdict then means nothing.
        seed: of the split, and the first of the seeds of weights, noise and batches.

    Returns:
        What was measured, and the verdict.

    Raises:
        ValueError: there is no such demo.
    """
    check_name(CLAIMS, name)
    check_flag("quick", quick)
    seed = check_seed("seed", seed)
    (entry,) = (entry for entry in demos() if entry.name == name)
    claim = _module(name)

    from kregs.demos.measuring import Scale
    from kregs.logs import no_retracing_warning
    from kregs.search.randomness import preserved_state

    with preserved_state(), no_retracing_warning():
        runs = claim.measure(Scale(quick=quick, seed=seed))
    return Demonstration(
        name=name,
        claim=entry.summary,
        source=entry.fields["source"],
        runs=runs,
        table=claim.tabulate(runs),
        verdict=claim.judge(runs),
    )


def _module(name: str) -> Any:
    return importlib.import_module(f"{CLAIMS}.{name}")
