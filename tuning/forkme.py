"""The search for λ and dropout of the template, by the protocol that stands in it.

Command:  python -m kregs.tuning.forkme
Time:     15 s on 2 CPU cores
Result:   results/forkme.json

5 folds of 89 wines: one split of so few would choose by luck.
"""

from __future__ import annotations

from kregs.recipes.forkme import PROTOCOL

__all__ = ["PROTOCOL"]

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("forkme")
