"""Accuracy by D and lr, for the configurations that differ in nothing else; of a search, where everything differs, by encoders."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.formats import short
from mvsa_tune.stats.analysis import Scored

MOST_GRIDS = 4
MOST_VALUES = 6  # of an axis: beyond, ranges of a scale


@dataclass(frozen=True)
class Grid:
    """Mean cross-fitted accuracy by D and lr.

    Attributes:
        title: of what.
        widths, lrs: the values of the axes, or ranges of values.
        means: `(D, lr)`; NaN where nothing was trained.
    """

    title: str
    widths: Sequence[str]
    lrs: Sequence[str]
    means: NDArray[np.float64]


def grids(ranked: Sequence[Scored]) -> list[Grid]:
    """Those of the best configurations, `MOST_GRIDS` at most; none where D or lr does not vary."""
    alike: list[tuple[Callable[[Config], Hashable], Callable[[Config], str]]] = [
        (lambda config: replace(config, D=Config.D, lr=Config.lr), _but_D_and_lr),
        (lambda config: (config.image_encoder, config.text_encoder), lambda config: "+".join(config.encoders.values())),
    ]
    for key, title in alike:
        groups: dict[Hashable, list[Scored]] = {}
        for one in ranked:
            groups.setdefault(key(one.config), []).append(one)
        found = [group for group in groups.values() if _varies(group)]
        if found:
            return [_grid(title(group[0].config), group) for group in found[:MOST_GRIDS]]
    return []


def _varies(group: Sequence[Scored]) -> bool:
    return all(len({getattr(one.config, name) for one in group}) > 1 for name in ("D", "lr"))


def _but_D_and_lr(config: Config) -> str:  # noqa: N802
    return " ".join(word for word in config.name.split() if not word.startswith(("D=", "lr=")))


def _grid(title: str, group: Sequence[Scored]) -> Grid:
    rows, widths = _places([float(one.config.D) for one in group])
    columns, lrs = _places([one.config.lr for one in group])
    sums, counts = np.zeros((2, len(widths), len(lrs)))
    for row, column, one in zip(rows, columns, group, strict=True):
        sums[row, column] += one.values.mean()
        counts[row, column] += 1
    with np.errstate(invalid="ignore"):
        return Grid(title, widths, lrs, sums / counts)


def _places(values: Sequence[float]) -> tuple[NDArray[np.intp], list[str]]:
    """Each value's place on its axis, and what stands there: values, or where there are many, ranges of equal ratio."""
    levels = sorted(set(values))
    if len(levels) <= MOST_VALUES:
        return np.searchsorted(levels, values), [_written(level) for level in levels]
    edges = np.geomspace(levels[0], levels[-1], MOST_VALUES + 1)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, MOST_VALUES - 1)
    return places, [f"{_rounded(low)}–\n{_rounded(high)}" for low, high in pairwise(edges)]


def _written(value: float) -> str:
    return str(int(value)) if value >= 1 else short(value)


def _rounded(value: float) -> str:
    return _written(float(f"{value:.2g}"))
