"""The plots of a report as SVG and PNG: narrow enough for a phone, the same bytes every time, never by colour alone."""

import io
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Final, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.formats import short
from mvsa_tune.stats.analysis import Analysis, Scored
from mvsa_tune.stats.differences import ALPHA
from mvsa_tune.stats.importance import Importance
from mvsa_tune.training.result import TrialResult

WIDTH = 4.6  # inches: two plots beside each other on a desktop, one on a phone
DPI = 160
MOST_LINES = 30
MOST_GRIDS = 4
MOST_VALUES = 6  # of an axis of a grid; more become ranges
LONGEST = 60  # characters of a label that fit the width
# Ink, grid lines and paper, which the page replaces; then the series (Okabe & Ito 2008) and their dashes.
INK, FAINT, PAPER = "#1b1d21", "#d4d6da", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": "mvsa_tune", "font.family": "DejaVu Sans",
    "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "legend.frameon": False,
    "legend.fontsize": 8, "legend.handlelength": 3, "lines.linewidth": 1.6, "lines.markersize": 5.5,
    "lines.markeredgewidth": 1.4, "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True,
}  # fmt: skip
BELOW: Final = "outside lower left"
styled = cast(ContextDecorator, mpl.rc_context(STYLE))  # a decorator too, which matplotlib's types do not say


@dataclass(frozen=True)
class Plot:
    """A drawing: the name of its files, its title, a description for who cannot see it, the files' content, itself."""

    name: str
    title: str
    description: str
    svg: str
    png: bytes
    figure: Figure = field(default_factory=Figure, repr=False, compare=False)


@styled
def accuracies(analysis: Analysis, labels: Mapping[str, str]) -> Plot:
    """Draw the cross-fitted accuracies of the best configurations; those worse than the best are hollow and dashed."""
    shown = analysis.ranked[:MOST_LINES]
    figure, axes = _figure(1.15 + 0.38 * len(shown))
    legend = {}
    for index, scored in enumerate(shown):
        kind, marker, face, dashes, colour = _kind(scored, analysis)
        if interval := scored.cross_fitted:
            axes.plot([interval.low, interval.high], [-index, -index], color=colour, linestyle=dashes)
        legend[kind] = axes.plot(scored.values.mean(), -index, marker, color=colour, markerfacecolor=face)[0]
        label = _cut(labels[scored.config.id])
        axes.text(0, 0.24 - index, label, fontsize=8, transform=axes.get_yaxis_transform())
    axes.set(ylim=(0.4 - len(shown), 0.9), yticks=[], xlabel="cross-fitted accuracy, 95 % interval")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    figure.legend(list(legend.values()), list(legend), loc=BELOW)
    first, last = (f"{s.values.mean():.3f} ({labels[s.config.id]})" for s in (shown[0], shown[-1]))
    description = f"{len(shown)} configurations with their 95 % intervals, from {first} down to {last}."
    return _plot(figure, "accuracy", "Accuracy by configuration", description)


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
    figure, axes = _by_epoch([(_cut(label), result.accuracy) for label, result in results.items()])
    axes.set_ylabel("validation accuracy")
    figure.legend(loc=BELOW)
    ends = "; ".join(f"{label} ends at {result.accuracy[-1].mean():.3f}" for label, result in results.items())
    return _plot(figure, "curves", "Validation accuracy by epoch", f"Mean over replicates by epoch: {ends}.")


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
    return _plot(figure, "loss", "Loss of the best by epoch", description)


def _by_epoch(curves: Sequence[tuple[str, NDArray[np.floating]]]) -> tuple[Figure, Axes]:
    """Draw curves `(E, R)`, each with its label: the mean over replicates in a band of one standard deviation."""
    figure, axes = _figure(3.3 + 0.19 * len(curves))
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

    A grid is of configurations that differ in nothing else, or in a search, where everything differs, of the same
    encoders; the best `MOST_GRIDS` are returned, and none where D or lr does not vary.
    """
    for title in (_without_D_and_lr, _encoders):
        groups: dict[str, list[Scored]] = {}
        for scored in ranked:
            groups.setdefault(title(scored.config), []).append(scored)
        grids = {title: grid for title, group in groups.items() if min((grid := _grid(group)).shape) > 1}
        if grids:
            return dict(islice(grids.items(), MOST_GRIDS))
    return {}


def _without_D_and_lr(config: Config) -> str:  # noqa: N802
    return " ".join(word for word in config.name.split() if not word.startswith(("D=", "lr=")))


def _encoders(config: Config) -> str:
    return config.name.partition(" D=")[0]


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
        figure, axes = _figure(1.1 + 0.45 * len(grid))
        _cells(axes, grid, (min(means), max(means)), [f"{mean:.3f}" for mean in grid.to_numpy().flat])
        axes.set(xlabel="lr", ylabel="D")
        row, column = divmod(int(np.nanargmax(grid)), grid.shape[1])
        description = (
            f"Cross-fitted accuracy of {title} by D and lr. Highest: {np.nanmax(grid):.3f} at D {grid.index[row]}, "
            f"lr {grid.columns[column]}; lowest: {np.nanmin(grid):.3f}."
        )
        drawn.append(_plot(figure, f"heat-map-{number}", title, description))
    return drawn


@styled
def confusion(counts: NDArray[np.float64], classes: Sequence[str]) -> Plot:
    """Draw mean counts `(C, C)`, true class down, predicted across; shaded by the share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
    figure, axes = _figure(1.1 + 0.6 * len(classes))
    texts = [f"{count:.1f}\n{100 * share:.0f} %" for count, share in zip(counts.flat, shares.flat, strict=True)]
    labels = [_cut(label, 16) for label in classes]
    _cells(axes, pd.DataFrame(shares, labels, labels), (0, 1), texts)
    axes.invert_yaxis()
    axes.set(xlabel="predicted", ylabel="true")
    correct = "; ".join(
        f"{100 * share:.0f} % of {name}" for share, name in zip(shares.diagonal(), classes, strict=True)
    )
    return _plot(figure, "confusion", "Confusion matrix of the best", f"Correctly classified: {correct}.")


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
    figure, axes = _figure(0.9 + 0.32 * len(lines))
    for y, line in enumerate(reversed(lines)):
        axes.plot([line.low, line.high], [y, y], color=SERIES[0])
        axes.plot(line.mean, y, "o", color=SERIES[0])
    axes.set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
    axes.set(ylim=(-0.6, len(lines) - 0.4), xlim=(0, max(line.high for line in lines) * 1.05 or 1))
    axes.set_xlabel("share of the variance of accuracy")
    axes.grid(axis="x")
    shares = "; ".join(f"{line.name} {line.mean:.2f} ({line.low:.2f} to {line.high:.2f})" for line in lines)
    return _plot(figure, "importance", "Importance of each hyperparameter", f"{shares}.")


@styled
def budget(expected: NDArray[np.float64]) -> Plot:
    """Draw the expected accuracy `(K,)` of the best of 1, 2, … K configurations."""
    figure, axes = _figure(3.2)
    many, half = len(expected) > MOST_LINES, max(1, len(expected) // 2)
    axes.plot(np.arange(1, len(expected) + 1), expected, color=SERIES[0], marker="" if many else "o")
    if many:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="configurations tried", ylabel="expected accuracy of the best")
    axes.grid(axis="y")
    values = ", ".join(f"{expected[count - 1]:.3f} of {count}" for count in (1, half, len(expected)))
    return _plot(
        figure, "budget", "Expected accuracy of the best by budget", f"Expected accuracy of the best: {values}."
    )


def _cut(text: str, longest: int = LONGEST) -> str:
    """Return a text from data as a label: on one line, no longer than there is room for."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _plot(figure: Figure, name: str, title: str, description: str) -> Plot:
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Plot(name, title, description, svg.getvalue(), png.getvalue(), figure=figure)
