"""`python -m kregs.tuning`: copies what the records say into recipes, headers and README."""

from __future__ import annotations

from kregs import catalog

for study in catalog.studies():
    for path in catalog.update_sources(study.name):
        print(f"updated: {path}")
