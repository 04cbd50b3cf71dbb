"""How far the accuracies on a data set can be trusted: duplicates, and what leaks from training through them.

`audit_data` finds the figures, `write_audit` writes them as files, `summary` as a page for a person.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import BITS, NEAR, Duplicates, Groups
from mvsa_tune.data.splits import SPLIT_SEED, Rows, Split, make_split
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.manifest import code_version
from mvsa_tune.results.store import Store
from mvsa_tune.stats.intervals import wilson
from mvsa_tune.stats.summary import choose
from mvsa_tune.training.result import NO_ROW

UNLABELLED = "unlabelled"
COUNTED = ["samples", "with_twin", "twins_say_its_label", "some_twin_has_its_label"]
DEFINITIONS = {
    "text": "the same words (letters and digits) after the reference's normalisation; a text without words has none",
    "picture": "equal files, byte by byte",
    "near-picture": "pHashes that differ in at most near_distance bits, and equal files; transitively",
    "any": "joined by any of these, transitively",
    "twin": "a duplicate in training (of an unlabelled sample: any labelled duplicate)",
    "copying": "giving a sample the label of most of its twins; none at a tie",
    "at_most": "a model that only remembers training can be correct only where some twin has the sample's label",
    "intervals": "95 %, Wilson's score interval over the samples (Wilson 1927)",
    "accuracy": "at each replicate's best epoch, chosen on these samples; means over the replicates",
}


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    groups: pd.DataFrame  # of `group_rows`: what `groups.csv` holds
    figures: Mapping[str, Any]  # what `audit.json` holds


def audit_data(
    dataset: Dataset, how: str = "reference", near: int = NEAR, sweep: Path | None = None, config: str = "best"
) -> Audit:
    """Audit a data set; if the split cannot be made of it, print why and go on without.

    Args:
        dataset: with labels or without.
        how: which samples train, as `--split` takes it; of a `holdout` the draw of seed 42. A sweep brings its own.
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
    rows = group_rows(dataset, groups)
    names = [dataset.classes[sample.label] if sample.label is not None else UNLABELLED for sample in dataset.samples]
    empty = [guid for guid, text in zip(dataset.guids, duplicates.normalised, strict=True) if not text]
    wordless = [guid for guid, words in zip(dataset.guids, duplicates.words, strict=True) if not words]
    figures: dict[str, Any] = {
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
        "duplicates": {kind: _sizes(rows[rows["kind"] == kind]) for kind in groups},
        "leaks": _leaks(find_leaks(dataset, split, groups), dataset),
        "accuracy": None,
    }
    if store and chosen:
        by_kind = accuracy_by_twins(store, chosen.id, dataset, split, groups)
        swept = {"sweep": store.folder.name, "trial_id": chosen.id, "configuration": chosen.name}
        figures["accuracy"] = {**swept, "by_kind": by_kind}
    return Audit(rows, figures)


def group_rows(dataset: Dataset, groups: Mapping[str, Groups]) -> pd.DataFrame:
    """Return a row for each member of each group of two or more samples, for each kind of duplicate."""
    samples, frames = dataset.samples, []
    known = pd.DataFrame({"guid": dataset.guids, "text": [" ".join(sample.text.split()) for sample in samples]})
    known["label"] = [dataset.classes[sample.label] if sample.label is not None else None for sample in samples]
    for kind, grouping in groups.items():
        frame = known.assign(kind=kind, group=grouping)
        by_group = frame.groupby("group")
        frame["members"] = by_group["guid"].transform("size")
        frame["labels_disagree"] = np.where(by_group["label"].transform("nunique") > 1, "yes", "no")
        frame = frame[frame["members"] > 1].sort_values("group", kind="stable")
        frames.append(frame.assign(group=frame["group"].rank(method="dense").astype(int)))
    columns = ["kind", "group", "members", "labels_disagree", "guid", "label", "text"]
    return pd.concat(frames)[columns].fillna({"label": ""})


def _sizes(rows: pd.DataFrame) -> dict[str, int]:
    disagreeing = rows[rows["labels_disagree"] == "yes"]
    return {
        "groups": rows["group"].nunique(),
        "samples": len(rows),
        "pairs": int((rows["members"] - 1).sum()) // 2,
        "largest": int(rows["members"].max()) if len(rows) else 0,
        "groups_whose_labels_disagree": disagreeing["group"].nunique(),
        "samples_in_them": len(disagreeing),
    }


def find_leaks(dataset: Dataset, split: Split, groups: Mapping[str, Groups]) -> pd.DataFrame:
    """Return a row per kind of duplicate, fold and held-out sample: what its duplicates in training (twins) give away.

    Columns: `part` (`validation`, `test`, or `unlabelled`, whose twins are any labelled samples), `kind`, `fold`,
    `row`, and `COUNTED`, with 0 or 1 to be summed; the last two of these are NaN for unlabelled samples.
    """
    labels = np.array(dataset.labels, dtype=np.int64)
    labelled, unlabelled = np.split(np.arange(len(dataset.samples)), [len(labels)])
    parts = ("validation", "test") if split.tested else ("validation",)
    held_out = [(part, fold, rows, split.train[fold]) for part in parts for fold, rows in getattr(split, part).items()]
    held_out += [(UNLABELLED, 0, unlabelled, labelled)] if len(unlabelled) else []
    frames = []
    for kind, grouping in groups.items():
        for part, fold, rows, train in held_out:
            counts = count_twins(grouping, labels, train, rows)
            frame = pd.DataFrame({"part": part, "kind": kind, "fold": fold, "row": rows, "samples": 1})
            frame["with_twin"] = counts.any(axis=1).astype(int)
            if part != UNLABELLED:
                frame["twins_say_its_label"] = (commonest(counts) == labels[rows]).astype(int)
                frame["some_twin_has_its_label"] = counts[np.arange(len(rows)), labels[rows]].clip(max=1)
            frames.append(frame)
    return pd.concat(frames) if frames else pd.DataFrame(columns=["part", "kind", "fold", "row", *COUNTED])


def count_twins(groups: Groups, labels: Rows, train: Rows, rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many training samples of each label are in the group of each of `rows`, `(…, C)`."""
    counts = np.zeros((len(groups), labels.max(initial=0) + 1), dtype=np.int64)
    np.add.at(counts, (groups[train], labels[train]), 1)
    return counts[groups[rows]]


def commonest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the label of most twins from their counts `(…, C)`; −1 without twins, or at a tie."""
    decided = (counts == counts.max(axis=-1, keepdims=True)).sum(axis=-1) == 1
    return np.where(decided, counts.argmax(axis=-1), -1)


def _leaks(leaks: pd.DataFrame, dataset: Dataset) -> dict[Any, dict[Any, Any]]:
    """Return the figures by part and kind of duplicate."""
    figures: dict[Any, dict[Any, Any]] = {}
    for (part, kind), rows in leaks.groupby(["part", "kind"], sort=False):
        counted = COUNTED if part != UNLABELLED else COUNTED[:2]
        samples, twins, *labels = totals = [int(total) for total in rows[counted].sum()]
        figure: dict[str, Any] = {**dict(zip(counted, totals, strict=True)), "share_with_twin": twins / samples}
        if labels:
            figure["copying"] = _share(labels[0] / twins if twins else 0.0, twins)
            figure["accuracy_from_copying"] = labels[0] / samples
            figure["accuracy_from_duplicates_at_most"] = labels[1] / samples
        figure["folds"] = [
            {
                "fold": fold,
                **{name: int(total) for name, total in of_fold[counted].sum().items()},
                "guids": [dataset.guids[row] for row in of_fold.loc[of_fold["with_twin"] > 0, "row"]],
            }
            for fold, of_fold in rows.groupby("fold", sort=False)
        ]
        figures.setdefault(part, {})[kind] = figure
    return figures


def accuracy_by_twins(
    store: Store, trial: str, dataset: Dataset, split: Split, groups: Mapping[str, Groups]
) -> dict[str, dict[str, Any]]:
    """Return a trial's accuracy on validation samples with and without twins, at each replicate's best epoch.

    Returns:
        By kind of duplicate the share of correct predictions on `every` sample, those `alone` (without a twin), those
        with `twins`, and of these on those whose twins' commonest label is theirs (`agree`) or is not (`differ`). Means
        over replicates, and Wilson's intervals over the samples, which the replicates share.
    """
    result, labels = store.result(trial), np.array(dataset.labels, dtype=np.int64)
    rows, true = result.rows, labels[result.rows]
    present, correct = rows != NO_ROW, result.best == true
    folds = [replicate.fold for replicate in store.replicates(trial)]
    shares = {}
    for kind, grouping in groups.items():
        replicates = zip(folds, rows, strict=True)
        counts = np.stack([count_twins(grouping, labels, split.train[fold], r) for fold, r in replicates])  # (R, N, C)
        twins, agree = counts.any(axis=2) & present, (commonest(counts) == true) & present
        masks = {"every": present, "alone": present & ~twins, "twins": twins, "agree": agree, "differ": twins & ~agree}
        shares[kind] = {
            name: _share(float(correct[mask].mean()) if mask.any() else 0.0, len(np.unique(rows[mask])))
            for name, mask in masks.items()
        }
    return shares


def _share(mean: float, samples: int) -> dict[str, Any]:
    """Return a share of so many samples with its 95 % interval; None for both where there are no samples."""
    interval = wilson(mean, samples) if samples else None
    return {"samples": samples, "share": mean if samples else None, "interval": interval}


def write_audit(audit: Audit, folder: Path, *, texts: bool = False) -> None:
    """Write `audit.json` and `groups.csv`, the latter with the tweets if `texts`; raise InputError if that fails."""
    rows = audit.groups.drop(columns=[] if texts else ["text"])
    try:
        write_whole(folder / "groups.csv", lambda file: rows.to_csv(file, index=False, lineterminator="\n"))
        write_text_whole(folder / "audit.json", json.dumps(audit.figures, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another --out") from None


Figures = Mapping[str, Any]
# Headings of the page's columns, and the figure of each kind of duplicate that they show.
SIZES = {
    "groups": "groups", "samples": "samples", "largest": "largest", "labels disagree": "groups_whose_labels_disagree",
}  # fmt: skip
LEAKS = {
    "samples": "with_twin", "share": "share_with_twin", "most have its label": "twins_say_its_label",
    "some have it": "some_twin_has_its_label",
}  # fmt: skip
ACCURACIES = {
    "with one, 95 %": "twins", "of its label": "agree", "of another": "differ", "without one, 95 %": "alone",
}  # fmt: skip


def summary(figures: Figures) -> str:
    """Return the page on `Audit.figures`."""
    parts = [_data(figures), _table("duplicates", figures["duplicates"], SIZES)]
    parts += [_leaks_text(leaks, part, figures["settings"]["split"]) for part, leaks in figures["leaks"].items()]
    return "\n\n".join([*parts, *([_accuracy(figures["accuracy"])] if figures["accuracy"] else [])])


def _data(figures: Figures) -> str:
    labelled = figures["samples"] - figures["labels"][UNLABELLED]
    labels = [
        f"{name} {count:,}" + (f" ({100 * count / labelled:.1f} %)" if name != UNLABELLED and labelled else "")
        for name, count in figures["labels"].items()
    ]
    unreadable, plain = figures["pictures_unreadable"], figures["pictures_of_one_colour"]
    named = [f" ({some(list(guids))})" if guids else "" for guids in (unreadable, plain)]
    empty, wordless = figures["texts_empty_after_normalisation"], figures["texts_of_punctuation_alone"]
    return (
        f"{figures['data']}: {figures['samples']:,} samples, fingerprint {figures['data_fingerprint'][:12]}\n"
        f"labels     {', '.join(labels)}\n"
        f"encodings  {', '.join(f'{name} {count:,}' for name, count in figures['encodings'].items())}\n"
        f"texts      {len(empty):,} empty after normalisation, {len(wordless):,} more with punctuation alone\n"
        f"pictures   {len(unreadable):,} unreadable{named[0]}, {len(plain):,} of a single colour{named[1]}"
    )


def _leaks_text(leaks: Figures, part: str, split: str) -> str:
    total, folds = leaks["any"], len(leaks["any"]["folds"])
    if part == UNLABELLED:
        columns = {heading: LEAKS[heading] for heading in ("samples", "share")}
        title = f"The {total['samples']:,} unlabelled samples, against all labelled ones:"
        return f"{title}\n{_table('duplicate labelled', leaks, columns)}"
    together = f", {folds} folds together" if folds > 1 else ""
    return (
        f"The {total['samples']:,} {part} samples of the {split} split{together}:\n"
        f"{_table('duplicate in training', leaks, LEAKS)}\n"
        f"Copying the label of its duplicates in training is correct for {total['twins_say_its_label']:,} samples, "
        f"{100 * total['accuracy_from_copying']:.1f} points of accuracy; at most "
        f"{100 * total['accuracy_from_duplicates_at_most']:.1f} points can come from duplicates."
    )


def _accuracy(accuracy: Figures) -> str:
    kinds = accuracy["by_kind"]
    total, alone = kinds["any"]["every"], kinds["any"]["alone"]["share"]
    end = f"All {total['samples']:,}: {total['share']:.3f}"
    if alone is not None:
        end += f", which is {100 * (total['share'] - alone):+.1f} points from the accuracy on those without a duplicate"
    which = f"{accuracy['sweep']} {accuracy['trial_id']} ({accuracy['configuration']})"
    table = _table("duplicate in training", kinds, ACCURACIES)
    return f"Accuracy of {which}, and number of samples:\n{table}\n{end}."


def _table(title: str, kinds: Figures, columns: Mapping[str, str]) -> str:
    """Return a table with a line per kind of duplicate."""
    rows = [[title, *columns]]
    rows += [[kind, *(_cell(heading, of[name]) for heading, name in columns.items())] for kind, of in kinds.items()]
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[kind.ljust(first), *map(str.rjust, cells, widths)] for kind, *cells in rows]
    return "\n".join("  ".join(cells) for cells in lines)


def _cell(heading: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    if value["share"] is None:
        return "–"
    interval = " [{:.3f}, {:.3f}]".format(*value["interval"]) if "95 %" in heading else ""
    return f"{value['share']:.3f} of {value['samples']:,}{interval}"
