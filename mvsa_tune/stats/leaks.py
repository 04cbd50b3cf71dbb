"""Which held-out samples of a split have a duplicate in training, and what that is worth."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import Groups
from mvsa_tune.data.splits import Rows, Split
from mvsa_tune.errors import InputError
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import wilson
from mvsa_tune.training.result import NO_ROW

# The parts of a split that nothing may be learnt from.
HELD_OUT = ("validation", "test")
UNLABELLED = "unlabelled"
# Instead of the label of most twins: there are no twins, or two labels are equally common.
UNDECIDED = -1


@dataclass(frozen=True)
class Leak:
    """Held-out samples of one part of one fold, and their duplicates of one kind in training, their twins.

    Attributes:
        part: one of `HELD_OUT`; or `unlabelled`: the samples without a label, held against all that have one.
        fold: number of the fold.
        kind: the kind of duplicate.
        rows: `(H,)` the part's samples.
        labels: `(H,)` theirs; none for the unlabelled ones.
        counts: `(H, C)` their twins by label.
    """

    part: str
    fold: int
    kind: str
    rows: Rows
    labels: Rows | None
    counts: NDArray[np.int64]

    @property
    def twins(self) -> NDArray[np.bool_]:
        """`(H,)` which samples have a twin."""
        return self.counts.sum(axis=1) > 0

    def totals(self) -> dict[str, int]:
        """Samples; those with a twin; those whose twins mostly have their label, and those of which any twin has."""
        found = {"samples": len(self.rows), "with_twin": int(self.twins.sum())}
        if self.labels is not None:
            found["twins_say_its_label"] = int((commonest(self.counts) == self.labels).sum())
            found["some_twin_has_its_label"] = int((self.counts[np.arange(len(self.rows)), self.labels] > 0).sum())
        return found


def find_leaks(dataset: Dataset, split: Split, groups: Mapping[str, Groups]) -> list[Leak]:
    """Every fold's leaks, of every part and kind of duplicate."""
    labels = np.array(dataset.labels, dtype=np.int64)
    leaks = []
    for kind, grouping in groups.items():
        for part in HELD_OUT if split.tested else HELD_OUT[:1]:
            for fold, rows in getattr(split, part).items():
                counts = twins(grouping, labels, split.train[fold], rows)
                leaks.append(Leak(part, fold, kind, rows, labels[rows], counts))
        unlabelled = np.arange(len(labels), len(dataset.samples))
        if len(unlabelled):
            counts = twins(grouping, labels, np.arange(len(labels)), unlabelled)
            leaks.append(Leak(UNLABELLED, 0, kind, unlabelled, None, counts))
    return leaks


def twins(groups: Groups, labels: Rows, train: Rows, rows: Rows) -> NDArray[np.int64]:
    """`(H, C)` how many training samples of each label are in the group of each of `rows`."""
    counts = np.zeros((len(groups), labels.max(initial=0) + 1), dtype=np.int64)
    np.add.at(counts, (groups[train], labels[train]), 1)
    return counts[groups[rows]]


def commonest(counts: NDArray[np.int64]) -> Rows:
    """`(H,)` the label of most twins, or `UNDECIDED`."""
    decided = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(decided, counts.argmax(axis=1), UNDECIDED)


@dataclass(frozen=True)
class Share:
    """A share of samples, with its 95 % Wilson interval; of no samples None."""

    samples: int
    share: float | None
    interval: list[float] | None

    @staticmethod
    def of(mean: float, samples: int) -> "Share":
        """Make one of a mean over `samples` samples."""
        return Share(samples, mean, wilson(mean, samples)) if samples else Share(0, None, None)


@dataclass(frozen=True)
class Accuracy:
    """How right a configuration is on validation samples by their twins in training, at each replicate's best epoch.

    Means over replicates; the intervals are Wilson's over the samples, since replicates share them.

    Attributes:
        kind: the kind of duplicate.
        every: all validation samples.
        alone: those without a twin.
        twins: those with one.
        agree: those whose twins' commonest label is their own.
        differ: those with twins where it is not, ties included.
    """

    kind: str
    every: Share
    alone: Share
    twins: Share
    agree: Share
    differ: Share


def check_sweep(store: Store, dataset: Dataset) -> None:
    """Raise InputError where a sweep is of other data."""
    if store.manifest.data_fingerprint != dataset.fingerprint:
        raise InputError(
            f"{store.folder} is a sweep of other data ({store.manifest.data}): its fingerprint is "
            f"{store.manifest.data_fingerprint[:12]}, that of {dataset.folder} {dataset.fingerprint[:12]}"
        )


def accuracies(
    store: Store, trial: str, dataset: Dataset, split: Split, groups: Mapping[str, Groups]
) -> list[Accuracy]:
    """How right a trial of a sweep on that split is on samples with and without twins, a line for each kind of duplicate."""
    outcome, labels = store.result(trial), np.array(dataset.labels, dtype=np.int64)
    there = outcome.rows != NO_ROW  # (R, N)
    right = outcome.best == labels[outcome.rows]
    folds = [one.fold for one in store.manifest.replicates]
    found = []
    for kind, grouping in groups.items():
        # (R, N, C)
        counts = np.stack(
            [twins(grouping, labels, split.train[fold], rows) for fold, rows in zip(folds, outcome.rows, strict=True)]
        )
        agree = np.stack([commonest(one) for one in counts]) == labels[outcome.rows]
        have = counts.any(axis=2)
        have, agree = have & there, agree & there
        masks = {"every": there, "alone": there & ~have, "twins": have, "agree": agree, "differ": have & ~agree}
        found.append(Accuracy(kind, **{name: _share(right, mask, outcome.rows) for name, mask in masks.items()}))
    return found


def _share(right: NDArray[np.bool_], mask: NDArray[np.bool_], rows: NDArray[np.int32]) -> Share:
    samples = len(np.unique(rows[mask]))
    return Share.of(float(right[mask].mean()) if samples else 0.0, samples)
