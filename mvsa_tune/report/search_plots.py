"""The plots of a search: the best so far, accuracy by each setting, parallel coordinates."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from mvsa_tune.formats import short
from mvsa_tune.report.drawing import (
    BELOW,
    INK,
    PAGE,
    PAPER,
    SERIES,
    SMALL,
    Plot,
    finished_plot,
    new_figure,
    scale,
    styled,
    wrapped,
)

BEHIND: Any = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}  # a text that lines cross
POINTS: Any = {"color": SERIES[0], "linestyle": "none", "markersize": 4.5, "markeredgewidth": 0.9}


@styled
def best_so_far(trials: pd.DataFrame) -> list[Plot]:
    """Draw the best score so far after each trial, and after each minute of training; see `leaderboard.trials`."""
    best = trials["score"].where(trials["finished"]).cummax().ffill()
    first, shown = best.idxmax(), _near_finished(trials)
    drawn = []
    for name, x, label in (
        ("best-by-trial", trials["number"], "trials that have ended"),
        ("best-by-time", trials["seconds"].cumsum() / 60, "minutes of training, summed over trials"),
    ):
        figure, axes = new_figure(3.2)
        axes.step(x, best, where="post", color=SERIES[0], label="best so far")
        titles = {}
        for kind, rows, face in (
            ("trained to the end", shown & trials["finished"], SERIES[0]),
            ("stopped early", shown & ~trials["finished"], PAPER),
        ):
            if rows.any():
                gid = kind.replace(" ", "-")
                axes.plot(x[rows], trials["score"][rows], "o", markerfacecolor=face, label=kind, gid=gid, **POINTS)
                titles[gid] = list(trials["title"][rows])
        axes.set(xlabel=label, ylabel="cross-fitted accuracy")
        axes.grid(axis="y")
        figure.legend(loc=BELOW, ncols=3, fontsize=7.5, columnspacing=1, handlelength=2)
        description = f"The best of {len(trials)} trials, {best.max():.3f}, was found at {label} {x[first]:.3g}."
        drawn.append(finished_plot(figure, name, f"Best so far, by {label}", description, titles=titles))
    return drawn


def _near_finished(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Return which trials are not so far below the finished ones that these would be hard to tell apart in a plot."""
    worst = trials["score"][trials["finished"]].min()
    return trials["score"] >= worst - 0.25 * (trials["score"].max() - worst)


@styled
def slices(trials: pd.DataFrame, dimensions: Mapping[str, str], log: Collection[str]) -> list[Plot]:
    """Draw the score against each dimension.

    Args:
        trials: of `leaderboard.trials`.
        dimensions: by column of `trials`, its name.
        log: those whose axis is logarithmic.
    """
    shown, drawn = trials[_near_finished(trials)], []
    for column, name in dimensions.items():
        figure, axes = new_figure(2.4, SMALL)
        x, ticks, labels = scale(shown[column], log=column in log)
        titles = {}
        for rows, gid, face in ((~shown["finished"], "stopped", PAPER), (shown["finished"], "finished", SERIES[0])):
            if rows.any():
                axes.plot(x[rows], shown["score"][rows], "o", markerfacecolor=face, alpha=0.8, gid=gid, **POINTS)
                titles[gid] = list(shown["title"][rows])
        axes.set_xticks(ticks, [wrapped(label, max(6, 36 // len(labels))) for label in labels], fontsize=8)
        axes.set_xlim(-0.1, 1.1)
        axes.set_ylabel("cross-fitted accuracy", fontsize=8)
        axes.grid(axis="y")
        best = shown.loc[shown["score"].where(shown["finished"]).idxmax()]
        place = f"{best['score']:.3f}, at {short(best[column])}"
        description = f"Accuracy of {len(shown)} trials by {name}; the best of those trained to the end is {place}."
        drawn.append(finished_plot(figure, f"slice-{column}", name, description, "small", titles))
    return drawn


@styled
def parallel(trials: pd.DataFrame, dimensions: Mapping[str, str], log: Collection[str]) -> Plot:
    """Draw each trial as a line through its values of all dimensions to its score; arguments as of `slices`."""
    ordered = trials[trials["finished"]].sort_values("score")
    columns = {**dimensions, "score": "accuracy"}
    figure, axes = new_figure(3.6, PAGE)
    heights = []
    for x, (column, name) in enumerate(columns.items()):
        axes.axvline(x, ymin=0.04 / 1.08, ymax=1.04 / 1.08, color=INK, linewidth=0.8)
        y, ticks, labels = scale(ordered[column], log=column in log)
        heights.append(y)
        for tick, label in zip(ticks, labels, strict=True):
            axes.text(x + 0.03, tick, wrapped(label, 16), fontsize=7.5, va="center", bbox=BEHIND)
        axes.text(x, 1.08, wrapped(name, 12), ha="center", va="bottom", fontsize=8.5, fontweight="bold")
    lines = np.stack([np.tile(np.arange(len(columns)), (len(ordered), 1)), np.column_stack(heights)], axis=2)
    rank = np.arange(len(ordered))[::-1]  # of the best 0, which is drawn last
    colours = [to_rgba(SERIES[1] if r < 3 else SERIES[0], 0.9 if r < 3 else 0.7 - 0.55 * r / len(rank)) for r in rank]
    axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=np.where(rank < 3, 2, 1), gid="trials"))
    axes.set(xlim=(-0.3, len(columns) - 0.4), ylim=(-0.04, 1.04))
    axes.axis("off")
    best = "; ".join(f"{name} {short(ordered[column].iloc[-1])}" for column, name in dimensions.items())
    description = f"{len(ordered)} trials trained to the end. The best, {ordered['score'].iloc[-1]:.3f}: {best}."
    return finished_plot(
        figure, "parallel", "Parallel coordinates", description, "scrolled", {"trials": list(ordered["title"])}
    )
