"""Splits: which labelled samples train, validate and test, by fold. A new kind of split is a line of `SPLIT_KINDS`."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import Duplicates
from mvsa_tune.data.readers import read_lines
from mvsa_tune.errors import InputError, counted, some
from mvsa_tune.files import write_whole

Rows = NDArray[np.int64]
PARTS = ("train", "validation", "test")
SPLIT_SEED = 42  # of the folds, whatever the replicates' seeds: every sweep has the same folds


@dataclass(frozen=True)
class Split:
    """Row numbers of labelled samples, by part and fold; no row is in two parts of a fold."""

    name: str  # how it was made, as `--split` takes it
    train: Mapping[int, Rows]
    validation: Mapping[int, Rows]
    test: Mapping[int, Rows]  # empty arrays if the split has no test part
    by_seed: bool = False  # whether each seed has a fold of its own, whose number is the seed

    def folds_of(self, seed: int) -> tuple[int, ...]:
        """Return the folds that a seed trains on: all, or its own."""
        return (seed,) if self.by_seed else tuple(self.train)

    @property
    def tested(self) -> bool:
        """Whether there is a test part."""
        return any(map(len, self.test.values()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the rows of every part and fold, in order."""
        return _digest(self.arrays())

    @cached_property
    def fold_digests(self) -> dict[int, str]:
        """By fold: SHA-256 over its rows of every part, in order."""
        return {fold: _digest({part: getattr(self, part)[fold] for part in PARTS}) for fold in self.train}

    def union(self, other: "Split") -> "Split":
        """Return a split with the folds of both; ValueError if their names or a fold that both have differ."""
        if (self.name, self.by_seed) != (other.name, other.by_seed):
            raise ValueError(f"splits {self.name} and {other.name} cannot be joined: they were made in different ways")
        for fold in self.fold_digests.keys() & other.fold_digests.keys():
            if self.fold_digests[fold] != other.fold_digests[fold]:
                raise ValueError(f"two splits {self.name} cannot be joined: fold {fold} differs in its rows")
        return _from_arrays(self.name, self.arrays() | other.arrays(), self.by_seed)

    def without(self, rows: Collection[int]) -> "Split":
        """Return the split without some rows."""
        arrays = {key: part[~np.isin(part, list(rows))] for key, part in self.arrays().items()}
        return _from_arrays(self.name, arrays, self.by_seed)

    def whole(self) -> "Split":
        """Return one fold that trains on every row of any part; one of them is its validation part, unused."""
        rows = np.unique(np.concatenate(list(self.arrays().values())))
        return Split("all labelled samples", {0: rows}, {0: rows[:1]}, {0: rows[:0]})

    def arrays(self) -> dict[str, Rows]:
        """Return the rows of every part of every fold by name: `train 0`, `validation 0`, `test 0`, …"""
        return {f"{part} {fold}": rows for part in PARTS for fold, rows in getattr(self, part).items()}


def _from_arrays(name: str, arrays: Mapping[str, NDArray[Any]], by_seed: bool) -> Split:
    parts: dict[str, dict[int, Rows]] = {part: {} for part in PARTS}
    for key, rows in arrays.items():
        part, fold = key.split()
        parts[part][int(fold)] = rows
    return Split(name, **parts, by_seed=by_seed)


def _digest(arrays: Mapping[str, Rows]) -> str:
    digest = hashlib.sha256()
    for name, rows in arrays.items():
        digest.update(f"{name} {len(rows)}\0".encode() + rows.astype("<i8").tobytes())
    return digest.hexdigest()


def write_split(path: Path, split: Split) -> None:
    """Write a split's rows as `.npz`, whole or not at all."""
    arrays: dict[str, Any] = {"by_seed": np.array(split.by_seed), **split.arrays()}
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def read_split(path: Path, name: str) -> Split | None:
    """Return the split that `write_split` wrote, with its name; None if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file}
        return _from_arrays(name, arrays, bool(arrays.pop("by_seed")))
    except Exception:  # a damaged file makes zipfile, zlib and NumPy raise errors of their own
        return None


def largest_fold(part: Mapping[int, Rows]) -> int:
    """Return the number of samples in a part's largest fold."""
    return max(map(len, part.values()))


def make_split(text: str, dataset: Dataset, seeds: Sequence[int]) -> Split:
    """Return the split that the text of `--split` names, made by one of `SPLIT_KINDS`.

    Raises:
        InputError: the text names none, the samples cannot be split so, or a split file is wrong.
    """
    for kind in SPLIT_KINDS:
        if match := re.fullmatch(kind.pattern, text, re.DOTALL):
            split = kind.make(match, dataset, seeds)
            _check(split, np.array(dataset.labels, dtype=np.int64), dataset.classes)
            return split
    raise InputError(f"--split {text}: write {split_usage()}")


def split_usage() -> str:
    """Return what `--split` takes, in words."""
    *usages, last = (kind.usage for kind in SPLIT_KINDS)
    return f"{', '.join(usages)}, or {last}"


def _check(split: Split, labels: Rows, classes: Sequence[str]) -> None:
    for fold, rows in split.train.items():
        absent = [name for label, name in enumerate(classes) if label not in labels[rows]]
        if absent:
            raise InputError(f"--split {split.name}, fold {fold}: no training sample is labelled {some(absent)}")
        for part in ("validation", "test") if split.tested else ("validation",):
            if not len(getattr(split, part)[fold]):
                raise InputError(f"--split {split.name}, fold {fold}: its {part} part is empty")


def unvalidated(split: Split, labels: Rows, classes: Sequence[str]) -> str:
    """Return a note on the classes of which no fold has a validation sample; empty if there are none."""
    validated = set(labels[np.concatenate(list(split.validation.values()))].tolist())
    absent = [name for label, name in enumerate(classes) if label not in validated]
    folds = min(5, np.bincount(labels).min())
    how = f": --split kfold:{folds} scores every sample" if folds > 1 else ""
    return f"no {' or '.join(absent)} sample validates{how}" if absent else ""


def reference_split(labels: Sequence[int]) -> Split:
    """Return the split of the reference's frozen rows, one fold: a shuffled tenth validates, not stratified."""
    # What scikit-learn's `train_test_split(test_size=0.1, random_state=42)` gives, without a second for its import.
    shuffled = np.random.RandomState(42).permutation(_enough(labels)).astype(np.int64)
    size = -(-len(labels) // 10)
    return Split("reference", {0: shuffled[size:]}, {0: shuffled[:size]}, {0: shuffled[:0]})


def reference_finetune_split(labels: Sequence[int]) -> Split:
    """Return the split of the reference's fine-tuned rows: another shuffled tenth validates, not stratified."""
    # What torch's `random_split` gives with `torch.Generator().manual_seed(42)`, without a second for its import: a
    # Fisher-Yates shuffle by the same Mersenne Twister.
    shuffled = np.arange(_enough(labels))
    draws = np.random.RandomState(42).randint(2**32, size=len(labels), dtype=np.uint32)
    for start, draw in enumerate(draws.tolist()):
        other = start + draw % (len(labels) - start)
        shuffled[[start, other]] = shuffled[[other, start]]
    size = int(0.9 * len(labels))
    return Split("reference-finetune", {0: shuffled[:size]}, {0: shuffled[size:]}, {0: shuffled[:0]})


def _enough(labels: Sequence[int]) -> int:
    """Return the number of labels; InputError if they are too few to split."""
    if len(labels) < 20:
        raise InputError(f"{len(labels)} labelled samples are too few to split; at least 20 are needed")
    return len(labels)


def _labels_and_groups(dataset: Dataset) -> tuple[Rows, Rows]:
    """Return each labelled sample's label, and the group of its duplicates, which are never in two parts of a fold."""
    return np.array(dataset.labels, dtype=np.int64), Duplicates(dataset).by_any[: len(dataset.labels)]


def _k_folds(match: re.Match[str], dataset: Dataset, seeds: Sequence[int]) -> Split:
    """Split into K stratified folds: fold k validates on the k-th, or tests on it and validates on the next."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = _labels_and_groups(dataset)
    count, tested = int(match[1]), bool(match[2])
    least, most = 3 if tested else 2, np.bincount(labels).min()
    if not least <= count <= most:
        raise InputError(
            f"--split {match[0]}: the number of folds must be from {least} to {most}, the samples of the rarest class"
        )
    # Groups are shuffled by drawing their numbers: scikit-learn's own shuffling separated the classes worse before 1.8,
    # which Python 3.10 cannot have. RandomState draws the same numbers with every version of NumPy.
    _, groups = np.unique(groups, return_inverse=True)
    if groups.max() + 1 < count:
        raise InputError(
            f"--split {match[0]}: duplicates are never separated, and only {counted(groups.max() + 1, 'sample')} would "
            "be left without them; `mvsa-tune audit` lists them"
        )
    shuffled = np.random.RandomState(SPLIT_SEED).permutation(groups.max() + 1)[groups]
    held = [rows for _, rows in StratifiedGroupKFold(count).split(labels, labels, shuffled)]
    train, validation, test = {}, {}, {}
    for k in range(count):
        test[k], validation[k] = (held[k], held[(k + 1) % count]) if tested else (held[k][:0], held[k])
        train[k] = np.setdiff1d(np.arange(len(labels)), np.concatenate([test[k], validation[k]]))
    return Split(match[0], train, validation, test)


def _holdouts(match: re.Match[str], dataset: Dataset, seeds: Sequence[int]) -> Split:
    """Draw a share of the groups to validate for each seed, stratified by the commonest label of a group."""
    from sklearn.model_selection import train_test_split

    labels, groups = _labels_and_groups(dataset)
    votes = np.zeros((groups.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(votes, (groups, labels), 1)
    present = np.flatnonzero(votes.sum(axis=1))
    commonest = votes[present].argmax(axis=1)
    train, validation = {}, {}
    for seed in seeds:
        try:
            drawn = train_test_split(present, test_size=float(match[1]), random_state=seed, stratify=commonest)[1]
        except ValueError as error:  # a share too small or too large for so few samples
            raise InputError(f"--split {match[0]}: {error}") from None
        held = np.isin(groups, drawn)
        train[seed], validation[seed] = np.flatnonzero(~held), np.flatnonzero(held)
    return Split(match[0], train, validation, {seed: rows[:0] for seed, rows in train.items()}, by_seed=True)


def _from_files(match: re.Match[str], dataset: Dataset, seeds: Sequence[int]) -> Split:
    """Read `train_K.txt`, `val_K.txt` and, if one exists, `test_K.txt` as fold K, from 1 (Cheema et al. 2021)."""
    folder, count = Path(match[1]), len(dataset.labels)
    if not folder.is_dir():
        raise InputError(f"--split files:{folder}: no such folder")
    names = {path.name for path in folder.iterdir()}
    files = [file for name in names if (file := re.fullmatch(r"(train|val|test)_([0-9]{1,4})\.txt", name))]
    tested = any(file[1] == "test" for file in files)
    kinds = {"train": "train", "val": "validation", **({"test": "test"} if tested else {})}
    folds = range(1, 1 + max((int(file[2]) for file in files), default=1))
    missing = [name for fold in folds for kind in kinds if (name := f"{kind}_{fold}.txt") not in names]
    if missing:
        raise InputError(f"--split files:{folder}: no {some(missing)} there")
    arrays: dict[str, Rows] = {}
    for fold in folds:
        positions: dict[int, str] = {}
        arrays[f"test {fold}"] = np.zeros(0, dtype=np.int64)
        for kind, part in kinds.items():
            arrays[f"{part} {fold}"] = _read_rows(folder / f"{kind}_{fold}.txt", count, positions)
        if len(positions) < count:
            absent = [str(row) for row in range(count) if row not in positions]
            raise InputError(
                f"{list(positions.values())[-1]}: the parts of fold {fold} end here with {len(positions):,} of the "
                f"{count:,} labelled samples, without {some(absent)}: they were made for another list"
            )
    return _from_arrays(f"files:{folder.name}", arrays, by_seed=False)


def _read_rows(path: Path, count: int, positions: dict[int, str]) -> Rows:
    """Return the row numbers in a file; add their `FILE:LINE` to `positions`, which the files of a fold share."""
    rows = []
    for position, line in read_lines(path, "one row number a line"):
        if not (text := line.strip()):
            continue
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise InputError(f"{position}: {text[:40]!r} is not a sample's number; write one a line, from 0")
        row = int(text)
        if not 0 <= row < count:
            raise InputError(f"{position}: {row} is out of range; the {count:,} labelled samples are 0 to {count - 1}")
        if row in positions:
            raise InputError(f"{position}: {row} is in {positions[row]} already; a fold has each sample once")
        positions[row] = position
        rows.append(row)
    return np.array(rows, dtype=np.int64)


class SplitKind(NamedTuple):
    """A way to split."""

    pattern: str  # a regular expression that the whole text of `--split` matches
    usage: str  # how it is written, for help and messages
    make: Callable[[re.Match[str], Dataset, Sequence[int]], Split]  # the match, the samples, the seeds → the split


SPLIT_KINDS = [
    SplitKind("reference", "reference", lambda match, dataset, seeds: reference_split(dataset.labels)),
    SplitKind(
        "reference-finetune",
        "reference-finetune",
        lambda match, dataset, seeds: reference_finetune_split(dataset.labels),
    ),
    SplitKind(r"kfold:([0-9]{1,3})(:test)?", "kfold:K, kfold:K:test", _k_folds),
    SplitKind(r"holdout:(0?\.[0-9]{1,6})", "holdout:SHARE", _holdouts),
    SplitKind("files:(.+)", "files:FOLDER", _from_files),
]
