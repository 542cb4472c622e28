"""Figures of a search, each in a file of its name.

They are matplotlib figures that belong to no window, and change no global state.
"""

from __future__ import annotations

from kregs.reporting.figures.generalization_gap import generalization_gap
from kregs.reporting.figures.importance_bars import importance_bars
from kregs.reporting.figures.learning_curves import learning_curves
from kregs.reporting.figures.parallel_coordinates import parallel_coordinates
from kregs.reporting.figures.path_figure import path_figure
from kregs.reporting.figures.ranked_trials import ranked_trials
from kregs.reporting.figures.search_map import search_map
from kregs.reporting.figures.stability_paths import stability_paths
from kregs.reporting.figures.time_histogram import time_histogram

__all__ = [
    "generalization_gap",
    "importance_bars",
    "learning_curves",
    "parallel_coordinates",
    "path_figure",
    "ranked_trials",
    "search_map",
    "stability_paths",
    "time_histogram",
]
