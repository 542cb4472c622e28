"""What all figures share: colours, size, title, legend, and words in which no formula is found."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.6  # inches: words are still readable at the width of a phone

# Okabe and Ito's colours, which the colour-blind tell apart
BEST = "#d55e00"
TRAINING = "#e69f00"
VALIDATION = "#0072b2"
NONZERO = "#009e73"
POINT = "#31688e"  # from the middle of viridis

# behind words that lines run through
PAPER: dict[str, Any] = {
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    "zorder": 4,
}

_TITLE_COLUMNS = 58


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure that belongs to no window, and its axes; sizes are in inches."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def add_title_and_legend(figure: Figure, axes: Axes, title: str, *, columns: int = 3) -> None:
    """Write the title, draw the grid, and put a legend below the axes if anything has a label."""
    lines = textwrap.wrap(title, _TITLE_COLUMNS)
    axes.set_title(plain_text("\n".join(lines)), loc="left", fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=columns, fontsize=9, frameon=False)


def plain_text(words: str, most: int | None = None) -> str:
    """Return words in which matplotlib finds no formula, cut in the middle if they are long.

    Args:
        words: a name that a user chose.
        most: keep so many characters; `None` for all.

    Example:

    >>> plain_text("cost_$"), plain_text("encoder_block_dropout_rate", 11)
    ('cost_\\\\$', 'encod…_rate')
    """
    if most is not None and len(words) > most:
        kept = most - 1
        words = f"{words[: kept - kept // 2]}…{words[len(words) - kept // 2 :]}"
    return words.replace("$", r"\$")


def with_direction(objective: str, direction: str) -> str:
    """Return the objective's name and which scores are better, for an axis."""
    better = "lower" if direction == "min" else "higher"
    return plain_text(f"{objective} ({better} is better)", 48)
