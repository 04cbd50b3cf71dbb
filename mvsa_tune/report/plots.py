"""The report's plots, as SVG and PNG: narrow enough for a phone, the same bytes every time, each difference told by more than its colour."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mvsa_tune.report.grids import Grid
from mvsa_tune.stats.analysis import Analysis, Scored
from mvsa_tune.stats.importance import Importance
from mvsa_tune.stats.tests import ALPHA
from mvsa_tune.training.result import TrialResult

WIDTH = 4.6  # inches: two beside each other on a desk, one on a phone
DPI = 160
MOST_LINES = 30
LONGEST = 60  # letters of a label that fit the width
# Ink, lines of the grid, paper: the page puts its own in their place. Then the series (Okabe & Ito 2008), told apart by dashes and markers too.
INK, FAINT, PAPER = "#1b1d21", "#d4d6da", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": "mvsa_tune", "font.family": "DejaVu Sans", "font.size": 9,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "legend.frameon": False, "legend.fontsize": 8,
    "grid.color": FAINT, "grid.linewidth": 0.7, "axes.axisbelow": True,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A drawing.

    Attributes:
        name: of its files.
        title: what it is of.
        description: what it shows, for those who cannot see it.
        svg, png: its files.
    """

    name: str
    title: str
    description: str
    svg: str
    png: bytes


def accuracies(analysis: Analysis, labels: Mapping[str, str]) -> Plot:
    """The best configurations, each with the interval of its cross-fitted accuracy; those told from the best are hollow and dashed."""
    shown = analysis.ranked[:MOST_LINES]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        kinds: dict[str, Line2D] = {}
        for place, one in enumerate(shown):
            kind, marker, face, line, colour = _kind(one, analysis)
            y, mean = -place, float(one.values.mean())
            if one.cross_fitted:
                axes.plot(
                    [one.cross_fitted.low, one.cross_fitted.high], [y, y], color=colour, linestyle=line, linewidth=1.6
                )
            drawn = axes.plot(mean, y, marker, color=colour, markerfacecolor=face, markersize=5.5, markeredgewidth=1.4)
            kinds.setdefault(kind, drawn[0])
            axes.text(0, y + 0.24, _cut(labels[one.config.id]), fontsize=8, transform=axes.get_yaxis_transform())
        axes.set_ylim(-len(shown) + 0.4, 0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("cross-fitted accuracy, 95 % interval")
        _legend_below(figure, list(kinds.values()), list(kinds))

    first = shown[0]
    description = (
        f"{len(shown)} configurations with their 95 % intervals, from {first.values.mean():.3f} ({labels[first.config.id]}) down to "
        f"{shown[-1].values.mean():.3f} ({labels[shown[-1].config.id]})."
    )
    return _drawn("accuracy", "Accuracy by configuration", description, 1.15 + 0.38 * len(shown), draw)


def _kind(one: Scored, analysis: Analysis) -> tuple[str, str, str, object, str]:
    """How a configuration is drawn: its kind, marker, face, line and colour."""
    if one is analysis.ranked[0]:
        return "best", "D", SERIES[0], "-", SERIES[0]
    less = analysis.against_best.get(one.config.id)
    if less is None:
        return "not compared", "s", SERIES[2], "-", SERIES[2]
    if less.corrected >= ALPHA:
        return "cannot be told from the best", "o", SERIES[0], "-", SERIES[0]
    return "worse than the best", "o", PAPER, (0, (3, 2)), SERIES[1]


def curves(outcomes: Mapping[str, TrialResult]) -> Plot:
    """Validation accuracy by epoch of a few configurations, by label: the mean over replicates, in a band of a standard deviation."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (label, outcome) in enumerate(outcomes.items()):
            _band(axes, outcome.accuracy, place, _cut(label))
        axes.set_ylabel("validation accuracy")
        _epochs(axes)
        _legend_below(figure, *axes.get_legend_handles_labels())

    ends = "; ".join(f"{label} ends at {outcome.accuracy[-1].mean():.3f}" for label, outcome in outcomes.items())
    height = 3.2 + 0.19 * len(outcomes)
    return _drawn("curves", "Validation accuracy by epoch", f"Mean over replicates by epoch: {ends}.", height, draw)


def losses(label: str, outcome: TrialResult) -> Plot:
    """Training and validation loss of one configuration by epoch, and where its best epoch lies."""
    best = float(np.median(outcome.best_epoch))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _band(axes, outcome.train_loss, 0, "training")
        _band(axes, outcome.val_loss, 1, "validation")
        axes.axvline(best, color=INK, linewidth=0.8, linestyle=":", label="best epoch (median)")
        axes.set_ylabel("cross-entropy")
        _epochs(axes)
        _legend_below(figure, *axes.get_legend_handles_labels())

    description = (
        f"{label}: training loss ends at {outcome.train_loss[-1].mean():.3f}, validation loss at {outcome.val_loss[-1].mean():.3f}; "
        f"it is least in epoch {outcome.val_loss.mean(axis=1).argmin() + 1}. The best epoch is {best:g} (median)."
    )
    return _drawn("loss", "Loss of the best by epoch", description, 3.75, draw)


def _band(axes: Axes, curve: NDArray[np.floating], place: int, label: str) -> None:
    """A curve `(E, R)`: mean and a standard deviation over replicates."""
    epochs, mean = np.arange(1, len(curve) + 1), curve.mean(axis=1)
    axes.plot(epochs, mean, color=SERIES[place], linestyle=DASHES[place], linewidth=1.6, label=label)
    if curve.shape[1] > 1:
        spread = curve.std(axis=1, ddof=1)
        axes.fill_between(epochs, mean - spread, mean + spread, color=SERIES[place], alpha=0.16, linewidth=0)


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")


def heat_map(name: str, grid: Grid, low: float, high: float) -> Plot:
    """Mean cross-fitted accuracy by D and lr, on a scale from `low` to `high` that several maps can share."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _cells(axes, grid.means, low, high, lambda row, column: f"{grid.means[row, column]:.3f}")
        axes.set_xticks(np.arange(len(grid.lrs)) + 0.5, grid.lrs)
        axes.set_yticks(np.arange(len(grid.widths)) + 0.5, grid.widths)
        axes.set_xlabel("lr")
        axes.set_ylabel("D")

    row, column = divmod(int(np.nanargmax(grid.means)), len(grid.lrs))
    description = (
        f"Cross-fitted accuracy of {grid.title} by D and lr. Highest: {grid.means[row, column]:.3f} at D {grid.widths[row]}, lr {grid.lrs[column]}; "
        f"lowest: {np.nanmin(grid.means):.3f}."
    )
    return _drawn(name, grid.title, description, 1.1 + 0.45 * len(grid.widths), draw)


def importance(lines: Sequence[Importance]) -> Plot:
    """Each hyperparameter's share of the variance, with the middle nine tenths of the draws."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, one in enumerate(reversed(lines)):
            axes.plot([one.low, one.high], [y, y], color=SERIES[0], linewidth=1.6)
            axes.plot(one.mean, y, "o", color=SERIES[0], markersize=5.5)
        axes.set_yticks(range(len(lines)), [one.name for one in reversed(lines)])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlim(0, max(one.high for one in lines) * 1.05 or 1)
        axes.set_xlabel("share of the variance of accuracy")
        axes.grid(axis="x")

    told = "; ".join(f"{one.name} {one.mean:.2f} ({one.low:.2f} to {one.high:.2f})" for one in lines)
    return _drawn("importance", "Importance of each hyperparameter", f"{told}.", 0.9 + 0.32 * len(lines), draw)


def budget(expected: NDArray[np.float64]) -> Plot:
    """What the best of 1, 2, … K configurations would show."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tried = np.arange(1, len(expected) + 1)
        axes.plot(tried, expected, color=SERIES[0], linewidth=1.6, marker="o" if len(expected) <= MOST_LINES else "")
        if len(expected) > MOST_LINES:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("configurations tried")
        axes.set_ylabel("expected accuracy of the best")
        axes.grid(axis="y")

    half = max(1, len(expected) // 2)
    description = (
        f"Expected accuracy of the best: {expected[0]:.3f} of one configuration tried, {expected[half - 1]:.3f} of {half}, "
        f"{expected[-1]:.3f} of {len(expected)}."
    )
    return _drawn("budget", "What a smaller budget would have shown", description, 3.2, draw)


def confusion(counts: NDArray[np.float64], classes: Sequence[str]) -> Plot:
    """`(C, C)` mean counts, true class down, predicted across; shaded by the share of the true class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _cells(axes, shares, 0, 1, lambda row, column: f"{counts[row, column]:.1f}\n{100 * shares[row, column]:.0f} %")
        places = np.arange(len(classes)) + 0.5
        axes.set_xticks(places, [_cut(one, 16) for one in classes])
        axes.set_yticks(places, [_cut(one, 16) for one in classes])
        axes.invert_yaxis()
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    right = "; ".join(f"{100 * shares[at, at]:.0f} % of {label}" for at, label in enumerate(classes))
    return _drawn(
        "confusion", "Confusion matrix of the best", f"Told rightly: {right}.", 1.1 + 0.6 * len(classes), draw
    )


def _cells(axes: Axes, values: NDArray[np.float64], low: float, high: float, text: Callable[[int, int], str]) -> None:
    """Shaded cells with their numbers in them; an empty one has a dash."""
    drawn = axes.pcolormesh(
        np.ma.masked_invalid(values), cmap="cividis", vmin=low, vmax=max(high, low + 1e-9), edgecolors=PAPER
    )
    size = 8 if values.shape[1] <= 5 else 6.5
    for (row, column), value in np.ndenumerate(values):
        known = bool(np.isfinite(value))
        red, green, blue, _ = drawn.to_rgba(value) if known else (0, 0, 0, 0)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = ("#ffffff" if dark else "#000000") if known else INK
        written = text(row, column) if known else "–"
        axes.text(column + 0.5, row + 0.5, written, ha="center", va="center", color=colour, fontsize=size)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _legend_below(figure: Figure, handles: Sequence[object], labels: Sequence[str]) -> None:
    figure.legend(handles, labels, loc="outside lower left", handlelength=3)  # type: ignore[call-overload]


def _cut(text: str, longest: int = LONGEST) -> str:
    """A text from data as a label: of one line, not longer than there is room for."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _drawn(name: str, title: str, description: str, height: float, draw: Callable[[Figure], None]) -> Plot:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Plot(name, title, description, svg.getvalue(), png.getvalue())
