"""Which labelled samples train, and which validate."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.errors import InputError
from mvsa_tune.labels import LABELS

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers into the labelled samples, by fold.

    Attributes:
        name: how the split was made, as its flag says it.
        train: one array of row numbers a fold.
        validation: the same; no row is in both of a fold.
    """

    name: str
    train: tuple[Rows, ...]
    validation: tuple[Rows, ...]

    def without(self, rows: Collection[int]) -> "Split":
        """The same split, some rows left out of every part."""
        train, validation = (
            tuple(part[~np.isin(part, list(rows))] for part in parts) for parts in (self.train, self.validation)
        )
        return Split(self.name, train, validation)


def documents_split(labels: list[int], classes: Sequence[str] = LABELS) -> Split:
    """The documents' split: a plain shuffled tenth for validation, `random_state=42`, over list order; one fold.

    Raises:
        InputError: too few samples to hold a tenth back and still train, or a training part without some class.
    """
    from sklearn.model_selection import train_test_split

    if len(labels) < 20:
        raise InputError(f"{len(labels)} labelled samples are too few to split; at least 20 are needed")
    train, validation = train_test_split(np.arange(len(labels)), test_size=0.1, random_state=42)
    absent = [name for label, name in enumerate(classes) if label not in np.asarray(labels)[train]]
    if absent:
        raise InputError(f"no training sample is labelled {', '.join(absent)}: every class needs some")
    return Split("documents", (train,), (validation,))
