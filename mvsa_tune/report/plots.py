"""The plots of a report, as SVG and PNG; what they say is never in colours alone."""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mvsa_tune.formats import short
from mvsa_tune.report.drawing import (
    BELOW,
    DASHES,
    INK,
    LONGEST,
    MOST_VALUES,
    PAGE,
    PAPER,
    SERIES,
    WIDTH,
    Plot,
    finished_plot,
    new_figure,
    scale,
    styled,
    wrapped,
)
from mvsa_tune.stats.analysis import Analysis, Scored
from mvsa_tune.stats.differences import ALPHA
from mvsa_tune.stats.importance import Importance
from mvsa_tune.training.result import TrialResult

MOST_LINES = 30
MOST_GRIDS = 4


@styled
def accuracies(analysis: Analysis, labels: Mapping[str, str], *, wide: bool) -> Plot:
    """Draw the cross-fitted accuracies of the best configurations; those worse than the best are hollow and dashed.

    In a narrow window each label stands above its interval, in a wide one to the left of it.
    """
    shown = analysis.ranked[:MOST_LINES]
    texts = [wrapped(labels[scored.config.id], 44 if wide else LONGEST) for scored in shown]
    # Inches of each row, which has room for the lines of its label.
    heights = 0.13 * np.array([1 + text.count("\n") for text in texts]) + (0.12 if wide else 0.25)
    y = (heights / 2 if wide else 0.1) - np.cumsum(heights)
    figure, axes = new_figure((0.8 if wide else 1.15) + heights.sum(), PAGE if wide else WIDTH)
    legend, titles = {}, {}
    for index, (scored, text, position) in enumerate(zip(shown, texts, y, strict=True)):
        kind, marker, face, dashes, colour = _kind(scored, analysis)
        title = f"{scored.config.name}: {scored.values.mean():.3f}"
        if interval := scored.cross_fitted:
            axes.plot([interval.low, interval.high], [position, position], color=colour, linestyle=dashes)
            title += f" ({interval.low:.3f} to {interval.high:.3f})"
        (point,) = legend[kind] = axes.plot(scored.values.mean(), position, marker, color=colour, markerfacecolor=face)
        point.set_gid(f"configuration-{index}")
        titles[f"configuration-{index}"] = [title]
        if not wide:
            axes.text(0, position + 0.09, text, fontsize=8, linespacing=1.1, transform=axes.get_yaxis_transform())
    axes.set(ylim=(y[-1] - 0.17, 0.02), xlabel="cross-fitted accuracy, 95 % interval")
    axes.set_yticks(y if wide else [], texts if wide else [], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    figure.legend([points[0] for points in legend.values()], list(legend), loc=BELOW, ncols=4 if wide else 1)
    first, last = (f"{s.values.mean():.3f} ({labels[s.config.id]})" for s in (shown[0], shown[-1]))
    description = f"{len(shown)} configurations with their 95 % intervals, from {first} down to {last}."
    name, kind = ("accuracy-wide", "wide") if wide else ("accuracy", "narrow")
    return finished_plot(figure, name, "Accuracy by configuration", description, kind, titles)


def _kind(scored: Scored, analysis: Analysis) -> tuple[str, str, str, Any, str]:
    """Return how a configuration is drawn: its kind, marker, marker's face, dashes and colour."""
    if scored is analysis.ranked[0]:
        return "best", "D", SERIES[0], "-", SERIES[0]
    difference = analysis.against_best.get(scored.config.id)
    if difference is None:
        return "not compared", "s", SERIES[2], "-", SERIES[2]
    if difference.adjusted >= ALPHA:
        return "may be the best", "o", SERIES[0], "-", SERIES[0]
    return "worse than the best", "o", PAPER, (0, (3, 2)), SERIES[1]


@styled
def curves(results: Mapping[str, TrialResult]) -> Plot:
    """Draw validation accuracy by epoch for a few results, by label: the mean over replicates ± standard deviation."""
    figure, axes = _by_epoch([(wrapped(label), result.accuracy) for label, result in results.items()])
    axes.set_ylabel("validation accuracy")
    figure.legend(loc=BELOW)
    ends = "; ".join(f"{label} ends at {result.accuracy[-1].mean():.3f}" for label, result in results.items())
    return finished_plot(figure, "curves", "Validation accuracy by epoch", f"Mean over replicates by epoch: {ends}.")


@styled
def losses(label: str, result: TrialResult) -> Plot:
    """Draw training and validation loss of one result by epoch, and its median best epoch."""
    best = float(np.median(result.best_epoch))
    figure, axes = _by_epoch([("training", result.train_loss), ("validation", result.val_loss)])
    axes.axvline(best, color=INK, linewidth=0.8, linestyle=":", label="best epoch (median)")
    axes.set_ylabel("cross-entropy")
    figure.legend(loc=BELOW)
    training, validation = (loss[-1].mean() for loss in (result.train_loss, result.val_loss))
    lowest = result.val_loss.mean(axis=1).argmin() + 1
    description = (
        f"{label}: training loss ends at {training:.3f}, validation loss at {validation:.3f}; the latter is lowest in "
        f"epoch {lowest}. The best epoch is {best:g} (median)."
    )
    return finished_plot(figure, "loss", "Loss of the best by epoch", description)


def _by_epoch(curves: Sequence[tuple[str, NDArray[np.floating]]]) -> tuple[Figure, Axes]:
    """Draw curves `(E, R)`, each with its label: the mean over replicates in a band of one standard deviation."""
    figure, axes = new_figure(3.3 + 0.19 * sum(1 + label.count("\n") for label, _ in curves))
    for (label, curve), colour, dashes in zip(curves, SERIES, DASHES, strict=False):
        epochs, mean = np.arange(1, len(curve) + 1), curve.mean(axis=1)
        axes.plot(epochs, mean, color=colour, linestyle=dashes, label=label)
        if curve.shape[1] > 1:
            std = curve.std(axis=1, ddof=1)
            axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.16, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure, axes


def grids(ranked: Sequence[Scored]) -> dict[str, pd.DataFrame]:
    """Return mean cross-fitted accuracy by D (rows) and lr (columns), by title; NaN where nothing was trained.

    A grid is of configurations that differ in nothing else; the best `MOST_GRIDS` are returned, and none where D or lr
    does not vary.
    """
    groups: dict[str, list[Scored]] = {}
    for scored in ranked:
        title = " ".join(word for word in scored.config.name.split() if not word.startswith(("D=", "lr=")))
        groups.setdefault(title, []).append(scored)
    crossed = {title: grid for title, group in groups.items() if min((grid := _grid(group)).shape) > 1}
    return dict(islice(crossed.items(), MOST_GRIDS))


def _grid(group: Sequence[Scored]) -> pd.DataFrame:
    rows, widths = _ticks([float(scored.config.D) for scored in group])
    columns, lrs = _ticks([scored.config.lr for scored in group])
    sums, counts = np.zeros((2, len(widths), len(lrs)))
    np.add.at(sums, (rows, columns), [scored.values.mean() for scored in group])
    np.add.at(counts, (rows, columns), 1)
    return pd.DataFrame(sums, widths, lrs) / np.where(counts, counts, np.nan)


def _ticks(values: Sequence[float]) -> tuple[NDArray[np.intp], list[str]]:
    """Return each value's index on its axis, and the axis' labels: the values, or ranges of equal ratio for many."""
    levels = sorted(set(values))
    if len(levels) <= MOST_VALUES:
        return np.searchsorted(levels, values), [short(level) for level in levels]
    edges = np.geomspace(levels[0], levels[-1], MOST_VALUES + 1)
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, MOST_VALUES - 1)
    return index, [f"{low}–\n{high}" for low, high in pairwise(short(float(f"{edge:.2g}")) for edge in edges)]


@styled
def heat_maps(grids: Mapping[str, pd.DataFrame]) -> list[Plot]:
    """Draw grids of accuracies, all on one colour scale."""
    means = [mean for grid in grids.values() for mean in grid.to_numpy().flat if np.isfinite(mean)]
    drawn = []
    for number, (title, grid) in enumerate(grids.items(), start=1):
        figure, axes = new_figure(1.1 + 0.45 * len(grid))
        _cells(axes, grid, (min(means), max(means)), [f"{mean:.3f}" for mean in grid.to_numpy().flat])
        axes.set(xlabel="lr", ylabel="D")
        row, column = divmod(int(np.nanargmax(grid)), grid.shape[1])
        description = (
            f"Cross-fitted accuracy of {title} by D and lr. Highest: {np.nanmax(grid):.3f} at D {grid.index[row]}, "
            f"lr {grid.columns[column]}; lowest: {np.nanmin(grid):.3f}."
        )
        drawn.append(finished_plot(figure, f"heat-map-{number}", title, description))
    return drawn


@styled
def confusion(counts: NDArray[np.float64], classes: Sequence[str]) -> Plot:
    """Draw mean counts `(C, C)`, true class down, predicted across; shaded by the share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    figure, axes = new_figure(1.1 + 0.6 * len(classes))
    texts = [f"{count:.1f}\n{100 * share:.0f} %" for count, share in zip(counts.flat, shares.flat, strict=True)]
    labels = [wrapped(label, 16) for label in classes]
    _cells(axes, pd.DataFrame(shares, labels, labels), (0, 1), texts)
    axes.invert_yaxis()
    axes.set(xlabel="predicted", ylabel="true")
    correct = "; ".join(
        f"{100 * share:.0f} % of {name}" for share, name in zip(shares.diagonal(), classes, strict=True)
    )
    return finished_plot(figure, "confusion", "Confusion matrix of the best", f"Correctly classified: {correct}.")


def _cells(axes: Axes, values: pd.DataFrame, scale: tuple[float, float], texts: Sequence[str]) -> None:
    """Draw a frame's cells with their texts, shaded by value on a scale; one without a value has a dash."""
    shares = np.ma.masked_invalid(values.to_numpy())
    mesh = axes.pcolormesh(shares, cmap="cividis", vmin=scale[0], vmax=max(scale[1], scale[0] + 1e-9), edgecolors=PAPER)
    for ((row, column), value), text in zip(np.ndenumerate(values.to_numpy()), texts, strict=True):
        dark = np.dot(mesh.to_rgba(value)[:3], (0.299, 0.587, 0.114)) < 0.5
        colour, label = ("#ffffff" if dark else "#000000", text) if np.isfinite(value) else (INK, "–")
        size = 8 if values.shape[1] <= 5 else 6.5
        axes.text(column + 0.5, row + 0.5, label, ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, values.columns)
    axes.set_yticks(np.arange(len(values)) + 0.5, values.index)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


@styled
def importance(lines: Sequence[Importance]) -> Plot:
    """Draw each hyperparameter's share of the variance, with the middle 90 % of the draws."""
    figure, axes = new_figure(0.9 + 0.32 * len(lines))
    for y, line in enumerate(reversed(lines)):
        axes.plot([line.low, line.high], [y, y], color=SERIES[0])
        axes.plot(line.mean, y, "o", color=SERIES[0])
    axes.set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
    axes.set(ylim=(-0.6, len(lines) - 0.4), xlim=(0, max(line.high for line in lines) * 1.05 or 1))
    axes.set_xlabel("share of the variance of accuracy")
    axes.grid(axis="x")
    shares = "; ".join(f"{line.name} {line.mean:.2f} ({line.low:.2f} to {line.high:.2f})" for line in lines)
    return finished_plot(figure, "importance", "Importance of each hyperparameter", f"{shares}.")


@styled
def budget(expected: NDArray[np.float64]) -> Plot:
    """Draw the expected accuracy `(K,)` of the best of 1, 2, … K configurations."""
    figure, axes = new_figure(3.2)
    many, half = len(expected) > MOST_LINES, max(1, len(expected) // 2)
    x, ticks, labels = scale(range(1, len(expected) + 1), log=many)
    axes.plot(x, expected, color=SERIES[0], marker="" if many else "o")
    axes.set_xticks(ticks, labels)
    axes.set(xlabel="configurations tried", ylabel="expected accuracy of the best")
    axes.grid(axis="y")
    values = ", ".join(f"{expected[count - 1]:.3f} of {count}" for count in (1, half, len(expected)))
    return finished_plot(
        figure, "budget", "Expected accuracy of the best by budget", f"Expected accuracy of the best: {values}."
    )
