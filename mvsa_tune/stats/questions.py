"""Questions that a sweep answers: is one pair of encoders better than another, does batch size matter, does fusion beat one modality?

Each is answered by the pairs of configurations that differ in that one respect: the mean of their differences, over seeds and samples.
The questions depend on what was swept, not on any result; p is corrected by Holm's method over all of them.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mvsa_tune.config import AXES, Config, join_pair
from mvsa_tune.formats import short
from mvsa_tune.stats.intervals import Array, Crossed
from mvsa_tune.stats.tests import ALPHA, Difference, Seeds, family, on_common_seeds

# Up to so many values of an axis are all compared with each other; more, up to `MOST_VALUES`, with the reference's value or the first.
TWO_BY_TWO, MOST_VALUES = 3, 12
ENCODERS = ("image_encoder", "text_encoder")
ALONE = {1: "the text alone", 2: "the picture alone"}


@dataclass(frozen=True)
class Question:
    """A question, its answer in words, and the difference that the answer is based on."""

    text: str
    answer: str
    difference: Difference


@dataclass(frozen=True)
class Contrast:
    """Two values of one axis, and the indices of the configurations `(first, second)` that differ in nothing else."""

    text: str
    first: str
    second: str
    pairs: tuple[tuple[int, int], ...]


def questions(
    configs: Sequence[Config], values: Sequence[Array], seeds: Sequence[Seeds] | None = None
) -> tuple[Question, ...]:
    """Return the questions that K configurations answer.

    A question is answered on the seeds that all of its configurations have, and left out where they have none in common.

    Args:
        configs: K configurations.
        values: `(R, N)` for each configuration, with the same samples in the same order.
        seeds: of the rows; None where all configurations have the same.
    """
    seeds = seeds or [tuple(range(len(values[0])))] * len(values)
    asked: list[tuple[Contrast, Seeds, Crossed]] = []
    for contrast in contrasts(configs):
        members = list(dict.fromkeys(index for pair in contrast.pairs for index in pair))
        common, rows = on_common_seeds([values[k] for k in members], [seeds[k] for k in members])
        if common:
            of = dict(zip(members, rows, strict=True))
            difference = Crossed(np.mean([of[i] - of[j] for i, j in contrast.pairs], axis=0))
            asked.append((contrast, common if {seeds[k] for k in members} != {common} else (), difference))
    differences = family([crossed for *_, crossed in asked])
    return tuple(
        Question(contrast.text, _answer(contrast, difference, only), difference)
        for (contrast, only, _), difference in zip(asked, differences, strict=True)
    )


def contrasts(configs: Sequence[Config]) -> Iterator[Contrast]:
    """Yield what can be asked, in the order of the reference's open questions: encoders, batch size, fusion, D, then the other axes."""
    first = ("encoders", "batch_size", "ablation", "D")
    for axis in (*first, *(name for name in AXES if name not in first)):
        yield from _fusion(configs) if axis == "ablation" else _axis(configs, axis)


def _axis(configs: Sequence[Config], axis: str) -> Iterator[Contrast]:
    """Yield the contrasts of the values of one axis."""
    fields: tuple[str, ...]
    if axis == "encoders":
        levels: list[Any] = [None if config.ablation else join_pair(config) for config in configs]
        values = list(dict.fromkeys(level for level in levels if level is not None))
        name, fields, reference = "", ENCODERS, next(iter(values), None)
    else:
        levels = [getattr(config, axis) for config in configs]
        values, fields, reference = sorted(set(levels)), (axis,), getattr(Config, axis)
        name = {"D": "D ", "lr": "the learning rate "}.get(axis, axis.replace("_", " ") + " ")
    pairs = list(combinations(values, 2))
    if len(values) > TWO_BY_TWO:
        pairs = [(value, reference) for value in values if value != reference and reference in values]
    for first, second in pairs if len(values) <= MOST_VALUES else ():
        matched = _matched(configs, [level == first for level in levels], [level == second for level in levels], fields)
        if matched:
            text = f"{name}{short(first)} or {short(second)}?"
            text = text[:1].upper() + text[1:] if name else text
            yield Contrast(text, f"{name}{short(first)}", f"{name}{short(second)}", matched)


def _fusion(configs: Sequence[Config]) -> Iterator[Contrast]:
    for ablation, alone in ALONE.items():
        encoder = "text_encoder" if ablation == 1 else "image_encoder"
        fused, single = ([config.ablation == code for config in configs] for code in (0, ablation))
        matched = _matched(configs, fused, single, ("ablation", *ENCODERS), lambda config: getattr(config, encoder))  # noqa: B023
        if matched:
            yield Contrast(f"Does fusion beat {alone}?", "both modalities", alone, matched)


def _matched(
    configs: Sequence[Config],
    first: Sequence[bool],
    second: Sequence[bool],
    fields: Sequence[str],
    same: Callable[[Config], Hashable] = lambda config: None,
) -> tuple[tuple[int, int], ...]:
    """Return the pairs of a first and a second configuration that are equal but for `fields`, and equal in `same`."""
    keys = [
        (tuple((name, value) for name, value in asdict(config).items() if name not in fields), same(config))
        for config in configs
    ]
    partners = {keys[k]: k for k in np.flatnonzero(second)}
    return tuple((int(k), int(partners[keys[k]])) for k in np.flatnonzero(first) if keys[k] in partners)


def _answer(contrast: Contrast, difference: Difference, only: Seeds) -> str:
    interval, p, count = difference.interval, difference.corrected, len(contrast.pairs)
    mean, low, high = (
        f"{100 * value:+.1f}".replace("-", "−") for value in (interval.mean, interval.low, interval.high)
    )
    basis = (
        f"{contrast.first} minus {contrast.second} is {mean} points (95 % {low} to {high}; p {p:.2g}), over {count} "
        f"pair{'s' if count > 1 else ''} of configurations that differ in nothing else"
    )
    basis += f", on the seeds that all of these have ({', '.join(map(str, only))})" if only else ""
    if p >= ALPHA:
        return f"They cannot be distinguished: {basis}."
    better, worse = (contrast.first, contrast.second)[:: 1 if interval.mean > 0 else -1]
    return f"{better[:1].upper()}{better[1:]} is better than {worse}: {basis}."
