"""The set of labels and its order: a class is its index there, everywhere."""

import math
from collections.abc import Collection, Sequence

from mvsa_tune.errors import InputError, some

# The reference's labels, in their order.
LABELS = ("negative", "neutral", "positive")
# Sentiments from one end to the other: any of them stand in this order unless another is asked for.
SCALE = ("very negative", *LABELS, "very positive")
# Predicted classes are kept as bytes.
MOST = 256


def order_labels(
    asked: Sequence[str], own: Sequence[str], found: Collection[str], *, needed: bool = True
) -> tuple[tuple[str, ...], str]:
    """Choose the classes in their order; return them, and how the order came about.

    Args:
        asked: by the user; empty for no wish.
        own: those of the data's form, which knows no others; empty where any label will do.
        found: those that samples have.
        needed: whether there must be labels at all.

    Raises:
        InputError: a name is unfit or stands twice, or there are fewer than two, or more than 256.
    """
    if asked:
        classes, how = tuple(asked), "as --labels says"
    elif own:
        classes, how = tuple(own), "the form's own order"
    elif all(_plain(name) in SCALE for name in found):
        classes, how = tuple(sorted(found, key=lambda name: SCALE.index(_plain(name)))), "their usual order"
    elif all(_number(name) is not None for name in found):
        classes, how = tuple(sorted(found, key=lambda name: (_number(name), name))), "in the order of the numbers"
    else:
        classes, how = tuple(sorted(found)), "in the order of the alphabet"
    if classes or needed:
        _check(classes)
    return classes, how


def is_label(name: str) -> bool:
    """Whether a label's name can stand in lists and tables: printable, not empty, without commas, bars and outer spaces."""
    return bool(name) and name.isprintable() and name == name.strip() and not set(name) & set(",|")


def _check(classes: Sequence[str]) -> None:
    unfit = [repr(name) for name in classes if not is_label(name)]
    if unfit:
        raise InputError(f"labels {some(unfit)}: a label must be printable, without a comma or a bar")
    if len(set(map(_plain, classes))) < len(classes):
        alike = [name for name in classes if [*map(_plain, classes)].count(_plain(name)) > 1]
        raise InputError(f"labels {some(alike)} are one label twice, or differ in case alone: write them alike")
    if not 2 <= len(classes) <= MOST:
        raise InputError(f"{len(classes)} labels ({some(list(classes))}): there must be from 2 to {MOST}")


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ") if _number(name) is None else name


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
