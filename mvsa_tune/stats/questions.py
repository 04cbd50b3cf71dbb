"""The reference's own questions, of any sweep: is one encoder pair worse than another, does a batch size help, does fusion beat one modality?

Each is answered by the configurations that differ in that one thing alone: the mean of their differences, pair by pair, over seeds and samples. The
questions are fixed by what was swept, before any number is seen; p is Holm's over all that are asked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mvsa_tune.config import AXES, Config, join_pair
from mvsa_tune.formats import short
from mvsa_tune.stats.alignment import Array
from mvsa_tune.stats.intervals import Crossed
from mvsa_tune.stats.tests import ALPHA, Difference, family

# Values of one axis that are compared two by two; of more each is compared with the reference's own (or the first), up to so many.
TWO_BY_TWO, MOST_VALUES = 3, 12
ALONE = {1: "the text alone", 2: "the picture alone"}


@dataclass(frozen=True)
class Question:
    """A question, its answer in words, and the difference that it rests on."""

    text: str
    answer: str
    difference: Difference


@dataclass(frozen=True)
class Contrast:
    """Two values of one axis, and the places of the configurations that have them and differ in nothing else."""

    text: str
    first: str
    second: str
    matched: tuple[tuple[int, int], ...]


def questions(configs: Sequence[Config], values: Sequence[Array]) -> tuple[Question, ...]:
    """Ask what K configurations can answer. `values` is K times `(R, N)`, the same seed and sample in the same place."""
    asked = list(contrasts(configs))
    less = [Crossed(np.mean([values[i] - values[j] for i, j in one.matched], axis=0)) for one in asked]
    return tuple(Question(one.text, _answer(one, found), found) for one, found in zip(asked, family(less), strict=True))


def contrasts(configs: Sequence[Config]) -> Iterator[Contrast]:
    """What can be asked, in the order of the reference's doubts: encoders, batch size, fusion, width, then the rest."""
    both = [config for config in configs if config.ablation == 0]
    encoders = lambda config: join_pair(config) if config.ablation == 0 else None  # noqa: E731
    pairs = list(dict.fromkeys(map(join_pair, both)))
    yield from _of_axis(
        configs, "encoders", encoders, ("image_encoder", "text_encoder"), pairs, next(iter(pairs), None)
    )
    yield from _of_field(configs, "batch_size")
    yield from _fusion(configs)
    yield from _of_field(configs, "D")
    for name in AXES:
        if name not in ("batch_size", "D", "ablation"):
            yield from _of_field(configs, name)


def _of_field(configs: Sequence[Config], name: str) -> Iterator[Contrast]:
    values = sorted({getattr(config, name) for config in configs})
    called = {"D": "D", "lr": "the learning rate"}.get(name, name.replace("_", " "))
    yield from _of_axis(configs, called, lambda config: getattr(config, name), (name,), values, getattr(Config, name))


def _of_axis(
    configs: Sequence[Config],
    called: str,
    value: Callable[[Config], Any],
    fields: Sequence[str],
    values: Sequence[Any],
    reference: Any,
) -> Iterator[Contrast]:
    """Of the values two by two, or each against the reference, where that was swept."""
    pairs = list(combinations(values, 2))
    if len(values) > TWO_BY_TWO:
        pairs = [(one, reference) for one in values if one != reference and reference in values]
    for first, second in pairs if len(values) <= MOST_VALUES else ():
        rest = {_without(config, fields): place for place, config in enumerate(configs) if value(config) == second}
        matched = tuple(
            (place, rest[key])
            for place, config in enumerate(configs)
            if value(config) == first and (key := _without(config, fields)) in rest
        )
        if matched:
            one, other = short(first), short(second)
            names = (one, other) if called == "encoders" else (f"{called} {one}", f"{called} {other}")
            asked = f"{names[0]} or {other}?"
            yield Contrast(asked if called == "encoders" else asked[:1].upper() + asked[1:], *names, matched)


def _fusion(configs: Sequence[Config]) -> Iterator[Contrast]:
    for ablation, alone in ALONE.items():
        seen = "text_encoder" if ablation == 1 else "image_encoder"
        fields = ("ablation", "image_encoder", "text_encoder")
        key = lambda config: (_without(config, fields), getattr(config, seen))  # noqa: B023, E731
        single = {key(config): place for place, config in enumerate(configs) if config.ablation == ablation}
        matched = tuple(
            (place, single[key(config)])
            for place, config in enumerate(configs)
            if config.ablation == 0 and key(config) in single
        )
        if matched:
            yield Contrast(f"Does fusion beat {alone}?", "both modalities", alone, matched)


def _without(config: Config, fields: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, one) for name, one in asdict(config).items() if name not in fields)


def _answer(asked: Contrast, found: Difference) -> str:
    of = found.interval
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (of.mean, of.low, of.high))
    numbers = f"{mean} points (95 % {low} to {high}; p {found.corrected:.2g})"
    count = len(asked.matched)
    basis = f"over {count} pair{'s' if count > 1 else ''} of configurations that differ in nothing else"
    if found.corrected >= ALPHA:
        return f"They cannot be told apart: {asked.first} less {asked.second} is {numbers}, {basis}."
    better, worse = (asked.first, asked.second) if of.mean > 0 else (asked.second, asked.first)
    return f"{better[:1].upper()}{better[1:]} is better than {worse}: {asked.first} less {asked.second} is {numbers}, {basis}."
