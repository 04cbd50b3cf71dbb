"""The classes of a data set and their order. Everywhere else a class is its index in that order."""

import math
from collections.abc import Collection, Sequence

from mvsa_tune.errors import InputError, some

LABELS = ("negative", "neutral", "positive")  # the reference's, in its order
# Sentiments from one end to the other: labels that are all among these are put in this order.
SCALE = ("very negative", *LABELS, "very positive")
MAX_CLASSES = 256  # predicted classes are stored as bytes


def order_labels(
    requested: Sequence[str], layout_labels: Sequence[str], labels: Collection[str]
) -> tuple[tuple[str, ...], str]:
    """Return the classes in their order, and the name of that order.

    They are the `requested` labels, else the layout's (empty where it takes any), else the samples' `labels`, sorted.

    Raises:
        InputError: a label cannot be shown in tables or is there twice, or there are not 2 to 256 classes.
    """
    if requested:
        classes, order = tuple(requested), "the order of --labels"
    elif layout_labels:
        classes, order = tuple(layout_labels), "the layout's order"
    elif all(_plain(label) in SCALE for label in labels):
        classes, order = tuple(sorted(labels, key=lambda label: SCALE.index(_plain(label)))), "the usual order"
    elif all(_number(label) is not None for label in labels):
        classes, order = tuple(sorted(labels, key=lambda label: (_number(label), label))), "numerical order"
    else:
        classes, order = tuple(sorted(labels)), "alphabetical order"
    if classes:
        _check(classes)
    return classes, order


def is_label(label: str) -> bool:
    """Return whether a label fits into lists and tables: printable, not empty, no commas, bars or outer spaces."""
    return bool(label) and label.isprintable() and label == label.strip() and not set(label) & set(",|")


def _check(classes: Sequence[str]) -> None:
    unfit = [repr(label) for label in classes if not is_label(label)]
    if unfit:
        raise InputError(f"labels {some(unfit)}: a label must be printable, without a comma or a bar")
    plain = [_plain(label) for label in classes]
    alike = [label for label in classes if plain.count(_plain(label)) > 1]
    if alike:
        raise InputError(f"labels {some(alike)} are one label twice, or differ in case alone: write them alike")
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise InputError(f"{len(classes)} labels ({some(list(classes))}): there must be from 2 to {MAX_CLASSES}")


def _plain(label: str) -> str:
    return label.casefold().replace("_", " ").replace("-", " ") if _number(label) is None else label


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
