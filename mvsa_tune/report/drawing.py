"""How the plots of a report are drawn and written: narrow enough for a phone, the same bytes every time."""

import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from mvsa_tune.formats import short

# Inches: three or two plots beside each other on a desktop, one on a phone; or one as wide as the page.
SMALL, WIDTH, PAGE = 3.1, 4.6, 9.4
DPI = 160
MOST_VALUES = 6  # that an axis shows as they are; of more it shows a range
LONGEST = 60  # characters of a line of a label that fit the width
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
    """A drawing.

    Attributes:
        name: of its files, and of those of its variant for windows of another width.
        title: its heading on the page.
        description: what it shows, for who cannot see it.
        svg: the drawing; each point has its text as a `<title>`, which browsers show on hovering.
        png: the same as a picture.
        kind: how the page shows it: `wide` or `narrow` in such a window alone, `small`, or `scrolled` inside a box.
        figure: the drawing as matplotlib's figure.
    """

    name: str
    title: str
    description: str
    svg: str
    png: bytes
    kind: str = ""
    figure: Figure = field(default_factory=Figure, repr=False, compare=False)


def scale(values: Sequence[Any] | pd.Series, *, log: bool) -> tuple[NDArray[np.float64], list[float], list[str]]:
    """Return each value's position on an axis from 0 to 1, and the positions and labels of the ticks.

    A few values, or texts, are at equal distances.
    """
    levels = sorted(set(values))
    if len(levels) <= MOST_VALUES or isinstance(levels[0], str):
        places = np.linspace(0, 1, len(levels)) if len(levels) > 1 else np.array([0.5])
        return places[np.searchsorted(levels, values)], places.tolist(), [short(level) for level in levels]
    low, high = levels[0], levels[-1]
    scaled = np.log if log else np.asarray
    if log and high / low > 4:
        locator: Any = LogLocator(subs=(1.0,) if high / low > 200 else (1.0, 2.0, 5.0))
    else:
        locator = MaxNLocator(4, integer=isinstance(low, int | np.integer))
    near = 1e-9 * (high - low)  # of an end: rounding may have put a tick past it
    ticks = [tick for tick in locator.tick_values(low, high) if low - near <= tick <= high + near]
    position = (scaled([*values, *ticks]) - scaled(low)) / (scaled(high) - scaled(low))
    return position[: len(values)], position[len(values) :].tolist(), [short(float(tick)) for tick in ticks]


def wrapped(text: str, width: int = LONGEST, lines: int = 3) -> str:
    """Return a text from data as a label of at most so many lines, which may break after a `+` too."""
    wrapped_lines = textwrap.wrap(text.replace("+", "+ "), width, max_lines=lines, placeholder="…")
    return "\n".join(line.replace("+ ", "+") for line in wrapped_lines)


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return a figure of so many inches with its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def finished_plot(
    figure: Figure,
    name: str,
    title: str,
    description: str,
    kind: str = "",
    titles: Mapping[str, Sequence[str]] | None = None,
) -> Plot:
    """Return a drawn figure; `titles` has the texts of the points, or lines, of artists by their ids."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Plot(name, title, description, _titled(svg.getvalue(), titles or {}), png.getvalue(), kind, figure)


def _titled(svg: str, titles: Mapping[str, Sequence[str]]) -> str:
    """Return a drawing with a `<title>` in each point, or line, of the groups with these ids."""
    groups = re.split(r'(?=<g id=")', svg)
    for index, group in enumerate(groups):
        if texts := titles.get(group.partition('"')[2].partition('"')[0]):
            tag, left = "use" if "<use " in group else "path", iter(texts)
            groups[index] = re.sub(
                rf"<{tag} ([^>]*)/>",
                lambda match: f"<{tag} {match[1]}><title>{html.escape(next(left))}</title></{tag}>",  # noqa: B023
                group,
            )
            if next(left, None) is not None:
                raise ValueError(f"{group[:40]}: fewer points than texts")
    return "".join(groups)
