"""Questions that a sweep answers: does batch size matter, does fusion beat one modality, is one encoder pair better?

Each is answered by the pairs of configurations that differ in that one respect: the mean of their differences, over
seeds and samples. What is asked depends on what was swept, not on any result; Holm's method corrects p over all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mvsa_tune.config import AXES, Config, join_pair
from mvsa_tune.formats import short
from mvsa_tune.stats.differences import ALPHA, Difference, Errors

# Up to so many values of an axis are compared with each other; up to `MOST_VALUES` with the reference's, or the first.
TWO_BY_TWO, MOST_VALUES = 3, 12
ENCODERS = ("image_encoder", "text_encoder")
ALONE = {1: "the text alone", 2: "the picture alone"}
SHARING = {"concat", "concat-shared-norm"}  # heads that differ in their BatchNorms alone, and with one modality not


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
    pairs: list[tuple[int, int]]


def questions(configs: Sequence[Config], errors: Errors) -> tuple[Question, ...]:
    """Return the questions that K configurations answer, from the errors of their means."""
    asked = list(contrasts(configs))
    weights = np.zeros((len(asked), len(configs)))
    for row, contrast in zip(weights, asked, strict=True):
        for first, second in contrast.pairs:
            row[first] += 1 / len(contrast.pairs)
            row[second] -= 1 / len(contrast.pairs)
    differences = errors.test_all(weights)
    return tuple(
        Question(contrast.text, _answer(contrast, difference), difference)
        for contrast, difference in zip(asked, differences, strict=True)
    )


def contrasts(configs: Sequence[Config]) -> Iterator[Contrast]:
    """Yield what can be asked, in the order of the reference's open questions, then of the other axes."""
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
    keys = [_without(config, fields) for config in configs]
    for first, second in pairs if len(values) <= MOST_VALUES else ():
        matched = _matched(keys, [level == first for level in levels], [level == second for level in levels])
        text = f"{name}{short(first)} or {short(second)}?"
        text = text[:1].upper() + text[1:] if name else text
        if {first, second} == SHARING:
            text = "What did sharing one BatchNorm cost?"
            matched = [(i, j) for i, j in matched if not configs[i].ablation]
        if matched:
            yield Contrast(text, f"{name}{short(first)}", f"{name}{short(second)}", matched)


def _fusion(configs: Sequence[Config]) -> Iterator[Contrast]:
    for ablation, alone in ALONE.items():
        encoder = ENCODERS[ablation % 2]  # which both use
        keys = [(_without(config, ("ablation", *ENCODERS)), getattr(config, encoder)) for config in configs]
        fused, single = ([config.ablation == code for config in configs] for code in (0, ablation))
        if matched := _matched(keys, fused, single):
            yield Contrast(f"Does fusion beat {alone}?", "fusion", alone, matched)


def _without(config: Config, fields: Sequence[str]) -> tuple[Any, ...]:
    return tuple(value for name, value in asdict(config).items() if name not in fields)


def _matched(keys: Sequence[Any], first: Sequence[bool], second: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the indices of each first and second configuration that have the same key."""
    partners = {key: index for index, (key, chosen) in enumerate(zip(keys, second, strict=True)) if chosen}
    return [
        (index, partners[key])
        for index, (key, chosen) in enumerate(zip(keys, first, strict=True))
        if chosen and key in partners
    ]


def _answer(contrast: Contrast, difference: Difference) -> str:
    count = len(contrast.pairs)
    mean, low, high = (
        f"{100 * value:+.1f}".replace("-", "−") for value in (difference.mean, difference.low, difference.high)
    )
    p = difference.adjusted
    basis = (
        f"{contrast.first} minus {contrast.second} is {mean} points (95 % {low} to {high}; p {p:.2g}), "
        f"over {count} pair{'s' if count > 1 else ''} of configurations that differ in nothing else"
    )
    if p >= ALPHA:
        return f"They cannot be distinguished: {basis}."
    better, worse = (contrast.first, contrast.second) if difference.mean > 0 else (contrast.second, contrast.first)
    return f"{better[:1].upper()}{better[1:]} is better than {worse}: {basis}."
