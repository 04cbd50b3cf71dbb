"""Properties of a data set that affect how far its accuracies can be trusted: duplicates, and what leaks from training through them.

`audit_summary.py` writes the figures for a person.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import BITS, NEAR, Duplicates, Groups, members
from mvsa_tune.data.splits import SPLIT_SEED, Rows, Split, make_split
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.provenance import code_version
from mvsa_tune.results.store import Store
from mvsa_tune.stats.intervals import wilson
from mvsa_tune.stats.summary import choose
from mvsa_tune.training.result import NO_ROW

UNLABELLED = "unlabelled"
DEFINITIONS = {
    "text": "the same words (letters and digits) after the reference's normalisation; a text without words has no duplicate",
    "picture": "equal files, byte by byte",
    "near-picture": "pHashes that differ in at most near_distance bits, and equal files; transitively",
    "any": "joined by any of these, transitively",
    "twin": "a duplicate in training (of an unlabelled sample: any labelled duplicate)",
    "copying": "giving a sample the label of most of its twins; at a tie none",
    "at_most": "a model that only remembers training can be correct where some twin has the sample's label, and nowhere else",
    "intervals": "95 %, Wilson's score interval over the samples (Wilson 1927)",
    "accuracy": "at each replicate's best epoch, chosen on these samples; means over the replicates",
}
Share = dict[str, Any]


@dataclass(frozen=True)
class Leak:
    """The held-out samples of one part of one fold, and how many duplicates of one kind (twins) each has in training.

    Attributes:
        part: `validation` or `test`; or `unlabelled`, whose twins are all labelled samples.
        fold: number of the fold.
        kind: the kind of duplicate.
        rows: `(H,)` row numbers of the samples.
        labels: `(H,)` their labels; None for the unlabelled ones.
        counts: `(H, C)` number of twins by label.
    """

    part: str
    fold: int
    kind: str
    rows: Rows
    labels: Rows | None
    counts: NDArray[np.int64]

    @property
    def twins(self) -> NDArray[np.bool_]:
        """Whether each sample has a twin, `(H,)`."""
        return self.counts.sum(axis=1) > 0

    def totals(self) -> dict[str, int]:
        """Return the numbers of samples: all, with a twin, whose twins mostly have their label, and of which some twin has it."""
        totals = {"samples": len(self.rows), "with_twin": int(self.twins.sum())}
        if self.labels is not None:
            totals["twins_say_its_label"] = int((commonest(self.counts) == self.labels).sum())
            totals["some_twin_has_its_label"] = int((self.counts[np.arange(len(self.rows)), self.labels] > 0).sum())
        return totals


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        dataset: the samples.
        groups: by kind of duplicate, the group of each sample.
        figures: all figures, as they are written to `audit.json`.
    """

    dataset: Dataset
    groups: Mapping[str, Groups]
    figures: Mapping[str, Any]


def audit_data(
    dataset: Dataset, how: str = "reference", near: int = NEAR, sweep: Path | None = None, config: str = "best"
) -> Audit:
    """Audit a data set; if the split cannot be made of it, print why and go on without.

    Args:
        dataset: with labels or without.
        how: which samples train, as `--split` takes it; of a `holdout` the draw of seed 42. A sweep brings its own split.
        near: the bits in which the hashes of pictures that look the same may differ.
        sweep: the results folder of a sweep on these samples, to see where it is correct; None for none.
        config: which configuration of the sweep, an id or `best`.

    Raises:
        InputError: `near` is out of range, there is no such sweep, or it is of other data.
    """
    if not 0 <= near < BITS:
        raise InputError(f"--near {near}: give a number of bits from 0 to {BITS - 1}")
    store = Store(sweep) if sweep else None
    if store and store.manifest.data_fingerprint != dataset.fingerprint:
        raise InputError(
            f"{store.folder} is a sweep of other data ({store.manifest.data}): its fingerprint is "
            f"{store.manifest.data_fingerprint[:12]}, that of {dataset.folder} {dataset.fingerprint[:12]}"
        )
    chosen = choose(store, config) if store else None
    try:
        split = store.split() if store else make_split(how, dataset, [SPLIT_SEED])
    except InputError as error:
        print(f"without a split: {error}", file=sys.stderr)
        split = Split("none", {}, {}, {})
    duplicates = Duplicates(dataset, near)
    groups = duplicates.groups()
    names = [dataset.classes[sample.label] if sample.label is not None else UNLABELLED for sample in dataset.samples]
    empty = [guid for guid, text in zip(dataset.guids, duplicates.normalised, strict=True) if not text]
    wordless = [guid for guid, words in zip(dataset.guids, duplicates.words, strict=True) if not words]
    figures = {
        "data": str(dataset.folder),
        "data_fingerprint": dataset.fingerprint,
        "code": code_version(),
        "settings": {
            "near_distance": near,
            "hash": f"imagehash {metadata.version('imagehash')} phash, {BITS} bits",
            "split": split.name,
        },
        "definitions": DEFINITIONS,
        "samples": len(dataset.samples),
        "labels": {name: names.count(name) for name in (*dataset.classes, UNLABELLED)},
        "encodings": dict(sorted(Counter(sample.encoding for sample in dataset.samples).items(), reverse=True)),
        "not_utf8": dataset.not_utf8,
        "texts_empty_after_normalisation": empty,
        "texts_of_punctuation_alone": [guid for guid in wordless if guid not in set(empty)],
        "pictures_unreadable": {guid: value for guid, value in duplicates.hashes.items() if isinstance(value, str)},
        "pictures_of_one_colour": [guid for guid, value in duplicates.hashes.items() if value is None],
        "duplicates": {kind: _sizes(grouping, dataset) for kind, grouping in groups.items()},
        "leaks": _leaks(find_leaks(dataset, split, groups), dataset),
        "accuracy": _accuracy(store, chosen, dataset, split, groups) if store and chosen else None,
    }
    return Audit(dataset, groups, figures)


def find_leaks(dataset: Dataset, split: Split, groups: Mapping[str, Groups]) -> list[Leak]:
    """Return the leaks of every part, fold and kind of duplicate."""
    labels = np.array(dataset.labels, dtype=np.int64)
    labelled, unlabelled = np.split(np.arange(len(dataset.samples)), [len(labels)])
    leaks = []
    for kind, grouping in groups.items():
        for part in ("validation", "test") if split.tested else ("validation",):
            for fold, rows in getattr(split, part).items():
                counts = count_twins(grouping, labels, split.train[fold], rows)
                leaks.append(Leak(part, fold, kind, rows, labels[rows], counts))
        if len(unlabelled):
            counts = count_twins(grouping, labels, labelled, unlabelled)
            leaks.append(Leak(UNLABELLED, 0, kind, unlabelled, None, counts))
    return leaks


def count_twins(groups: Groups, labels: Rows, train: Rows, rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many training samples of each label are in the group of each of `rows`, `(…, C)`."""
    counts = np.zeros((len(groups), labels.max(initial=0) + 1), dtype=np.int64)
    np.add.at(counts, (groups[train], labels[train]), 1)
    return counts[groups[rows]]


def commonest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label of most twins from their counts `(…, C)`; −1 where there are none, or at a tie."""
    decided = (counts == counts.max(axis=-1, keepdims=True)).sum(axis=-1) == 1
    return np.where(decided, counts.argmax(axis=-1), -1)


def _sizes(groups: Groups, dataset: Dataset) -> dict[str, int]:
    parts = members(groups)
    disagreeing = [part for part in parts if _disagree(part, dataset)]
    return {
        "groups": len(parts),
        "samples": sum(map(len, parts)),
        "pairs": sum(len(part) * (len(part) - 1) // 2 for part in parts),
        "largest": max(map(len, parts), default=0),
        "groups_whose_labels_disagree": len(disagreeing),
        "samples_in_them": sum(map(len, disagreeing)),
    }


def _disagree(rows: Rows, dataset: Dataset) -> bool:
    """Whether samples have different labels, apart from those without one."""
    return len({dataset.samples[row].label for row in rows} - {None}) > 1


def _leaks(leaks: list[Leak], dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return the figures by part and kind of duplicate."""
    figures: dict[str, dict[str, Any]] = {}
    for leak in leaks:
        kind = figures.setdefault(leak.part, {}).setdefault(leak.kind, {"folds": []})
        twins = [dataset.guids[row] for row in leak.rows[leak.twins]]
        kind["folds"].append({"fold": leak.fold, **leak.totals(), "guids": twins})
    for part, kinds in figures.items():
        for kind, of_kind in kinds.items():
            folds = of_kind["folds"]
            sums = {name: sum(fold[name] for fold in folds) for name in folds[0] if name not in ("fold", "guids")}
            samples, twins = sums["samples"], sums["with_twin"]
            kinds[kind] = {**sums, "share_with_twin": twins / samples}
            if part != UNLABELLED:
                copied = sums["twins_say_its_label"]
                kinds[kind]["copying"] = _share(copied / twins if twins else 0.0, twins)
                kinds[kind]["accuracy_from_copying"] = copied / samples
                kinds[kind]["accuracy_from_duplicates_at_most"] = sums["some_twin_has_its_label"] / samples
            kinds[kind]["folds"] = folds
    return figures


def _accuracy(
    store: Store, config: Config, dataset: Dataset, split: Split, groups: Mapping[str, Groups]
) -> dict[str, Any]:
    by_kind = accuracy_by_twins(store, config.id, dataset, split, groups)
    return {"sweep": store.folder.name, "trial_id": config.id, "configuration": config.name, "by_kind": by_kind}


def accuracy_by_twins(
    store: Store, trial: str, dataset: Dataset, split: Split, groups: Mapping[str, Groups]
) -> dict[str, dict[str, Share]]:
    """Return a trial's accuracy on validation samples with and without twins, at each replicate's best epoch.

    Returns:
        By kind of duplicate: `every` sample, those `alone` (without a twin), with `twins`, and of these those that `agree` (the commonest
        label of their twins is theirs) or `differ`. Means over replicates; Wilson's intervals over the samples, which replicates share.
    """
    result, labels = store.result(trial), np.array(dataset.labels, dtype=np.int64)
    rows, true = result.rows, labels[result.rows]
    present, correct = rows != NO_ROW, result.best == true
    folds = [replicate.fold for replicate in store.replicates(trial)]
    shares = {}
    for kind, grouping in groups.items():
        of_each = zip(folds, rows, strict=True)
        counts = np.stack([count_twins(grouping, labels, split.train[fold], own) for fold, own in of_each])  # (R, N, C)
        twins, agree = counts.any(axis=2) & present, (commonest(counts) == true) & present
        masks = {"every": present, "alone": present & ~twins, "twins": twins, "agree": agree, "differ": twins & ~agree}
        shares[kind] = {
            name: _share(float(correct[mask].mean()) if mask.any() else 0.0, len(np.unique(rows[mask])))
            for name, mask in masks.items()
        }
    return shares


def _share(mean: float, samples: int) -> Share:
    """Return a share of so many samples with its 95 % interval; None where there are no samples."""
    return {
        "samples": samples,
        "share": mean if samples else None,
        "interval": wilson(mean, samples) if samples else None,
    }


def group_rows(audit: Audit) -> Iterator[dict[str, Any]]:
    """Yield a row for each member of each group of each kind; the tweet is its last cell."""
    dataset = audit.dataset
    for kind, groups in audit.groups.items():
        for number, part in enumerate(members(groups), start=1):
            for sample in (dataset.samples[row] for row in part):
                yield {
                    "kind": kind,
                    "group": number,
                    "members": len(part),
                    "labels_disagree": "yes" if _disagree(part, dataset) else "no",
                    "guid": sample.guid,
                    "label": dataset.classes[sample.label] if sample.label is not None else "",
                    "text": " ".join(sample.text.split()),
                }


def write_audit(audit: Audit, folder: Path, *, texts: bool = False) -> None:
    """Write `audit.json` and `groups.csv`, with the tweets if `texts`, into a folder.

    Raises:
        InputError: they cannot be written.
    """
    columns = ["kind", "group", "members", "labels_disagree", "guid", "label", *(["text"] if texts else [])]
    frame = pd.DataFrame(group_rows(audit), columns=columns)
    try:
        write_whole(folder / "groups.csv", lambda file: frame.to_csv(file, index=False, lineterminator="\n"))
        write_text_whole(folder / "audit.json", json.dumps(audit.figures, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another --out") from None
