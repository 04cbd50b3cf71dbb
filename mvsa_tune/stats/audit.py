"""What a data set holds that whoever trusts numbers made with it should know. `audit_summary.py` writes it for a person."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import BITS, NEAR, Duplicates, Groups, members
from mvsa_tune.data.splits import SPLIT_SEED, Rows, Split, make_split
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.provenance import code_version
from mvsa_tune.results.store import Store
from mvsa_tune.stats.leaks import UNLABELLED, Accuracy, Leak, Share, accuracies, check_sweep, find_leaks
from mvsa_tune.stats.summary import choose

HOW = {
    "text": "the same words (letters and digits) after the reference's normalisation; a text without any is nobody's duplicate",
    "picture": "equal files, byte by byte",
    "near-picture": "pHashes that differ in at most near_distance bits, and equal files; transitively",
    "any": "joined by any of these, transitively",
    "twin": "a duplicate in training (of an unlabelled sample: any labelled duplicate)",
    "copying": "giving a sample the label of most of its twins, which at a tie is none",
    "at_most": "who remembers training alone can be right where some twin has the sample's label, and nowhere else",
    "intervals": "95 %, Wilson's score interval over the samples (Wilson 1927)",
    "accuracy": "at each replicate's best epoch, chosen on these samples; means over the replicates",
}


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        duplicates: the samples' duplicates, and what was seen in finding them.
        groups: each kind's grouping, by its name.
        split: the split's name.
        leaks: held-out samples with duplicates in training.
        swept: which sweep and configuration `accuracies` is of; empty without one.
        accuracies: how right it is on samples with and without duplicates in training, by kind.
    """

    duplicates: Duplicates
    groups: Mapping[str, Groups]
    split: str
    leaks: Sequence[Leak]
    swept: Mapping[str, str]
    accuracies: Sequence[Accuracy]

    @property
    def dataset(self) -> Dataset:
        """The samples."""
        return self.duplicates.dataset


def audit_data(
    dataset: Dataset, how: str = "reference", near: int = NEAR, sweep: Path | None = None, config: str = "best"
) -> Audit:
    """Look into a data set; where the split cannot be made of it, say why and go on without.

    Args:
        dataset: with labels or without.
        how: which samples train, as `--split` says it; of a `holdout` the draw of seed 42. A sweep's own split with `sweep`.
        near: the bits in which hashes of pictures that look the same may differ.
        sweep: the results folder of a sweep on it, to say where it is right; None for none.
        config: which configuration of the sweep, an id or `best`.

    Raises:
        InputError: the sweep is none, or of other data.
    """
    if not 0 <= near < BITS:
        raise InputError(f"--near {near}: give a number of bits from 0 to {BITS - 1}")
    store = Store(sweep) if sweep else None
    if store:
        check_sweep(store, dataset)
    chosen = (store, choose(store, config)) if store else None
    try:
        split = store.split() if store else make_split(how, dataset, [SPLIT_SEED])
    except InputError as error:
        print(f"without a split: {error}", file=sys.stderr)
        split = Split("none", {}, {}, {})
    return audit(dataset, near, split, chosen)


def audit(dataset: Dataset, near: int, split: Split, sweep: tuple[Store, Config] | None = None) -> Audit:
    """Look into a data set.

    Args:
        dataset: the samples.
        near: the bits in which hashes of pictures that look the same may differ.
        split: which samples train.
        sweep: a sweep on that split and one of its configurations, to say where it is right.

    Raises:
        InputError: the sweep is of other data.
    """
    duplicates = Duplicates(dataset, near)
    groups = duplicates.groups()
    leaks = find_leaks(dataset, split, groups)
    if not sweep:
        return Audit(duplicates, groups, split.name, leaks, {}, ())
    store, config = sweep
    swept = {"sweep": store.folder.name, "trial_id": config.id, "configuration": config.name}
    return Audit(duplicates, groups, split.name, leaks, swept, accuracies(store, config.id, dataset, split, groups))


def figures(found: Audit) -> dict[str, Any]:
    """Everything found, as JSON has it."""
    dataset, duplicates = found.dataset, found.duplicates
    hashes = duplicates.hashes
    names = [dataset.classes[sample.label] if sample.label is not None else UNLABELLED for sample in dataset.samples]
    lacking = [guid for guid, words in zip(dataset.guids, duplicates.words, strict=True) if not words]
    empty = [guid for guid, text in zip(dataset.guids, duplicates.normalised, strict=True) if not text]
    return {
        "data": str(dataset.folder),
        "data_fingerprint": dataset.fingerprint,
        "code": code_version(),
        "settings": {
            "near_distance": duplicates.near,
            "hash": f"imagehash {metadata.version('imagehash')} phash, {BITS} bits",
            "split": found.split,
        },
        "definitions": HOW,
        "samples": len(dataset.samples),
        "labels": {name: names.count(name) for name in (*dataset.classes, UNLABELLED)},
        "encodings": dict(sorted(Counter(sample.encoding for sample in dataset.samples).items(), reverse=True)),
        "not_utf8": dataset.not_utf8,
        "texts_empty_after_normalisation": empty,
        "texts_of_punctuation_alone": [guid for guid in lacking if guid not in set(empty)],
        "pictures_unreadable": {guid: value for guid, value in hashes.items() if isinstance(value, str)},
        "pictures_of_one_colour": [guid for guid, value in hashes.items() if value is None],
        "duplicates": {kind: _counts(groups, dataset) for kind, groups in found.groups.items()},
        "leaks": {part: _leaks(found, part) for part in dict.fromkeys(leak.part for leak in found.leaks)},
        "accuracy": {**found.swept, "by_kind": {one.kind: _shares(one) for one in found.accuracies}}
        if found.swept
        else None,
    }


def _counts(groups: Groups, dataset: Dataset) -> dict[str, int]:
    parts = members(groups)
    disagree = [part for part in parts if disagrees(part, dataset)]
    return {
        "groups": len(parts),
        "samples": sum(map(len, parts)),
        "pairs": sum(len(part) * (len(part) - 1) // 2 for part in parts),
        "largest": max(map(len, parts), default=0),
        "groups_whose_labels_disagree": len(disagree),
        "samples_in_them": sum(map(len, disagree)),
    }


def disagrees(part: Rows, dataset: Dataset) -> bool:
    """Whether samples carry different labels, those without one aside."""
    return len({dataset.samples[row].label for row in part} - {None}) > 1


def _leaks(found: Audit, part: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for kind in found.groups:
        leaks = [leak for leak in found.leaks if (leak.part, leak.kind) == (part, kind)]
        sums: Counter[str] = Counter()
        for leak in leaks:
            sums.update(leak.totals())
        kinds[kind] = {**sums, "share_with_twin": sums["with_twin"] / sums["samples"]}
        if part != UNLABELLED:
            right, of = sums["twins_say_its_label"], sums["with_twin"]
            kinds[kind]["copying"] = asdict(Share.of(right / of if of else 0.0, of))
            kinds[kind]["accuracy_from_copying"] = right / sums["samples"]
            kinds[kind]["accuracy_from_duplicates_at_most"] = sums["some_twin_has_its_label"] / sums["samples"]
        kinds[kind]["folds"] = [
            {"fold": leak.fold, **leak.totals(), "guids": [found.dataset.guids[row] for row in leak.rows[leak.twins]]}
            for leak in leaks
        ]
    return kinds


def _shares(one: Accuracy) -> dict[str, Any]:
    shares = asdict(one)
    del shares["kind"]
    return shares


def group_rows(found: Audit) -> Iterator[dict[str, Any]]:
    """A row a member of every group of every kind; the tweet is its last cell."""
    for kind, groups in found.groups.items():
        for number, part in enumerate(members(groups), start=1):
            for row in part:
                sample = found.dataset.samples[row]
                yield {
                    "kind": kind,
                    "group": number,
                    "members": len(part),
                    "labels_disagree": "yes" if disagrees(part, found.dataset) else "no",
                    "guid": sample.guid,
                    "label": found.dataset.classes[sample.label] if sample.label is not None else "",
                    "text": " ".join(sample.text.split()),
                }


def write_audit(found: Audit, folder: Path, *, texts: bool = False) -> dict[str, Any]:
    """Write `audit.json` and `groups.csv`, with the tweets if `texts`, into a folder; return the figures.

    Raises:
        InputError: it cannot be written.
    """
    said = figures(found)
    columns = ["kind", "group", "members", "labels_disagree", "guid", "label", *(["text"] if texts else [])]
    frame = pd.DataFrame(group_rows(found), columns=columns)
    try:
        write_whole(folder / "groups.csv", lambda file: frame.to_csv(file, index=False, lineterminator="\n"))
        write_text_whole(folder / "audit.json", json.dumps(said, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another --out") from None
    return said
