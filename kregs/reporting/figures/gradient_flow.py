"""The figures of gradient flow: gradient and activations by layer, and over the epochs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from kregs.reporting.figures.style import (
    BEST,
    NONZERO,
    TRAINING,
    VALIDATION,
    plain_text,
)

_WIDTH = 7.6
_MOST_NAMES = 40


def gradient_flow(
    frame: pd.DataFrame, limits: tuple[float, float], *, problems: Mapping[str, str]
) -> Figure:
    """Return two panels with a row a layer, the first layer on top.

    Args:
        frame: as `kregs.GradientFlow.to_frame` returns it.
        limits: of `ratio`.
        problems: what is wrong, by layer.

    Example:

    >>> frame = pd.DataFrame({"layer": ["a", "b"], "ratio": [1e-5, 1.0], "gradient_norm": 0.1,
    ...     "relative_gradient": 0.1, "activation_mean": 0.0, "activation_std": 1.0,
    ...     "dead": np.nan, "saturated": np.nan})
    >>> figure = gradient_flow(frame, (1e-3, 1e3), problems={"a": "vanishing"})
    >>> len(figure.axes)
    2
    """
    shown = frame[
        frame["gradient_norm"].notna() | frame["dead"].notna() | frame["saturated"].notna()
    ]
    shown = shown.reset_index(drop=True)
    places = np.arange(len(shown))
    height = 2.2 + 0.2 * min(max(len(shown), 4), _MOST_NAMES)
    figure = Figure(figsize=(_WIDTH, height), dpi=120, layout="constrained")
    gradients, activations = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    _draw_gradients(gradients, shown, places, limits, problems)
    _draw_activations(activations, shown, places)
    every = -(-len(shown) // _MOST_NAMES)
    names = [plain_text(str(name), 26) for name in shown["layer"]]
    gradients.set_yticks(places[::every], names[::every], fontsize=8)
    for label, name in zip(gradients.get_yticklabels(), shown["layer"][::every], strict=True):
        if name in problems:
            label.set_color(BEST)
    gradients.set_ylim(len(shown) - 0.4, -0.6)
    handles = [axes.get_legend_handles_labels() for axes in (gradients, activations)]
    figure.legend(
        handles[0][0] + handles[1][0], handles[0][1] + handles[1][1],
        loc="outside lower left", ncols=2, fontsize=8.5, frameon=False,
    )  # fmt: skip
    figure.suptitle(_title(problems), x=0.01, ha="left", fontsize=11)
    return figure


def _title(problems: Mapping[str, str]) -> str:
    words = list(problems.values())
    counts = [f"{words.count(p)} {p}" for p in dict.fromkeys(words)]
    layers = "layer" if len(words) == 1 else "layers"
    return f"Gradient flow: {', '.join(counts)} {layers}" if counts else "Gradient flow: no finding"


def _draw_gradients(
    axes: Axes,
    shown: pd.DataFrame,
    places: np.ndarray,
    limits: tuple[float, float],
    problems: Mapping[str, str],
) -> None:
    low, high = limits
    axes.set_xscale("log")
    axes.axvspan(low, high, color=NONZERO, alpha=0.12, lw=0, label="neither vanishes nor explodes")
    for column, color, style, label in (
        ("ratio", VALIDATION, "o-", "that reaches the layer, by that at the last hidden one"),
        ("relative_gradient", TRAINING, "s--", "of the kernel, by the kernel's norm"),
    ):
        values = shown[column].to_numpy(float)
        known = np.isfinite(values) & (values > 0)
        if known.any():
            axes.plot(
                values[known], places[known], style, color=color, markersize=3.5, linewidth=1.1,
                label=label,
            )  # fmt: skip
    marked = (
        shown["layer"].isin(list(problems)) & shown["ratio"].gt(0) & np.isfinite(shown["ratio"])
    )
    axes.plot(shown["ratio"][marked], places[marked], "o", color=BEST, markersize=4.5)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, low / 10), max(right, high * 10))
    axes.set_xlabel("gradient, relative (log)")
    axes.grid(alpha=0.25, linewidth=0.6)


def _draw_activations(axes: Axes, shown: pd.DataFrame, places: np.ndarray) -> None:
    std = shown["activation_std"].fillna(0.0)
    usable = np.isfinite(shown["activation_mean"]) & np.isfinite(std)
    axes.errorbar(
        shown["activation_mean"][usable], places[usable], xerr=std[usable], fmt="o",
        color="#56b4e9", markersize=3.5, capsize=2, linewidth=1.2,
        label="outputs: mean ± standard deviation",
    )  # fmt: skip
    axes.set_xlabel("outputs")
    widest = float((shown["activation_mean"].abs() + std)[usable].max()) if usable.any() else 0.0
    if widest > 100:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=1000, linthresh=1.0))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    for column, color in (("dead", BEST), ("saturated", BEST)):
        for place, share in zip(places, shown[column], strict=True):
            if share > 0.005:
                axes.annotate(
                    f"{share:.0%} {column}", (1.0, place), (-2, 0), va="center", ha="right",
                    xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                    fontsize=7, color=color,
                )  # fmt: skip
    axes.grid(alpha=0.25, linewidth=0.6)


def gradient_flow_over_epochs(frame: pd.DataFrame, limits: tuple[float, float]) -> Figure:
    """Return a map: layers down, epochs across, the gradient that reaches a layer as colour.

    Args:
        frame: as `kregs.GradientFlowLogger.to_frame` returns it.
        limits: of `ratio`: the ends of the colours.

    Example:

    >>> frame = pd.DataFrame({"layer": ["a", "b"] * 2, "epoch": [0, 0, 1, 1],
    ...                       "ratio": [0.1, 1.0, 0.2, 1.0], "gradient_norm": 1.0})
    >>> gradient_flow_over_epochs(frame, (1e-3, 1e3)).axes[0].get_xlabel()
    'epochs of training'
    """
    column = "ratio" if frame["ratio"].notna().any() else "gradient_norm"
    known = frame[frame[column].notna()]
    table = known.pivot_table(column, "layer", "epoch", sort=False)[sorted(known["epoch"].unique())]
    figure = Figure(
        figsize=(_WIDTH, 1.7 + 0.2 * min(max(len(table), 4), _MOST_NAMES)), dpi=120,
        layout="constrained",
    )  # fmt: skip
    axes = figure.add_subplot()
    values = table.to_numpy(float)
    low, high = limits
    if column == "gradient_norm":
        low, high = np.nanmin(values[values > 0], initial=1e-3), np.nanmax(values, initial=1e-2)
    colors = mpl.colormaps["RdBu_r" if column == "ratio" else "viridis"].with_extremes(bad="black")
    image = axes.imshow(
        np.clip(values, low, high), aspect="auto", cmap=colors, norm=LogNorm(low, high)
    )
    every = -(-len(table) // _MOST_NAMES)
    names = [plain_text(str(name), 26) for name in table.index]
    axes.set_yticks(range(0, len(table), every), names[::every], fontsize=8)
    step = -(-len(table.columns) // 12)
    axes.set_xticks(range(0, len(table.columns), step), list(table.columns)[::step])
    axes.set_xlabel("epochs of training")
    words = "by that at the last hidden layer" if column == "ratio" else "of the weights: norm"
    figure.colorbar(image, ax=axes, label=f"gradient {words}", extend="both")
    axes.set_title("Gradient flow over the epochs", loc="left", fontsize=11)
    return figure
