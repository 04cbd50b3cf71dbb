"""Which labelled samples train, which validate, and which test: by fold."""

import hashlib
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.duplicates import duplicate_groups
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import write_whole

Rows = NDArray[np.int64]
PARTS = ("train", "validation", "test")
KINDS = "reference, kfold:K, kfold:K:test, holdout:SHARE, or files:FOLDER"
# How the parts are called in the names of split files (Cheema et al. 2021): train_1.txt, val_1.txt, test_1.txt, …
FILES = {"train": "train", "val": "validation", "test": "test"}
# The folds themselves are drawn once, whatever the replicates' seeds: they are the same for every sweep.
DRAW = 42


@dataclass(frozen=True)
class Split:
    """Row numbers into the labelled samples, by part and fold.

    Attributes:
        name: how the split was made, as its flag says it.
        train: by fold, the rows to train on.
        validation: the same; no row is in two parts of a fold.
        test: the same; empty arrays in a split that tests nothing.
        by_seed: whether a replicate's fold is its seed's own draw, numbered as the seed is.
    """

    name: str
    train: Mapping[int, Rows]
    validation: Mapping[int, Rows]
    test: Mapping[int, Rows]
    by_seed: bool = False

    def folds_of(self, seed: int) -> tuple[int, ...]:
        """The folds that a seed trains on: all, or its own draw."""
        return (seed,) if self.by_seed else tuple(self.train)

    @property
    def tested(self) -> bool:
        """Whether there is a test part."""
        return any(map(len, self.test.values()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the rows of every part and fold, in order."""
        digest = hashlib.sha256()
        for name, rows in self.arrays().items():
            digest.update(f"{name} {len(rows)}\0".encode() + rows.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def fold_digests(self) -> dict[int, str]:
        """By fold: SHA-256 over its rows to train on, to validate on and to test on, in order."""
        digests = {}
        for fold in self.train:
            digest = hashlib.sha256()
            for part in PARTS:
                rows = getattr(self, part)[fold]
                digest.update(f"{part} {len(rows)}\0".encode() + rows.astype("<i8").tobytes())
            digests[fold] = digest.hexdigest()
        return digests

    def union(self, other: "Split") -> "Split":
        """Return a split with the folds of both, this one's first.

        Raises:
            ValueError: the splits were made in different ways, or a fold that both have differs in its rows.
        """
        if (self.name, self.by_seed) != (other.name, other.by_seed):
            raise ValueError(f"splits {self.name} and {other.name} cannot be joined: they were made in different ways")
        shared = self.fold_digests.keys() & other.fold_digests.keys()
        different = sorted(fold for fold in shared if self.fold_digests[fold] != other.fold_digests[fold])
        if different:
            raise ValueError(f"split {self.name}: fold {different[0]} has other rows in one than in the other")
        return _from_arrays(self.name, self.arrays() | other.arrays(), self.by_seed)

    def without(self, rows: Collection[int]) -> "Split":
        """The same split, some rows left out of every part."""
        arrays = {name: part[~np.isin(part, list(rows))] for name, part in self.arrays().items()}
        return _from_arrays(self.name, arrays, self.by_seed)

    def whole(self) -> "Split":
        """One fold that trains on every row of any part; nothing is chosen by its validation part, a single row."""
        rows = np.unique(np.concatenate(list(self.arrays().values())))
        return Split("all labelled samples", {0: rows}, {0: rows[:1]}, {0: rows[:0]})

    def arrays(self) -> dict[str, Rows]:
        """Every part of every fold, by name: `train 0`, `validation 0`, `test 0`, …"""
        return {f"{part} {fold}": rows for part in PARTS for fold, rows in getattr(self, part).items()}


def _from_arrays(name: str, arrays: Mapping[str, NDArray[Any]], by_seed: bool) -> Split:
    parts: dict[str, dict[int, Rows]] = {part: {} for part in PARTS}
    for key, rows in arrays.items():
        part, fold = key.split()
        parts[part][int(fold)] = rows
    return Split(name, parts["train"], parts["validation"], parts["test"], by_seed)


def write_split(path: Path, split: Split) -> None:
    """Write a split's rows as `.npz`, whole or not at all."""
    kept: dict[str, Any] = {"by_seed": np.array(split.by_seed), **split.arrays()}
    write_whole(path, lambda file: np.savez_compressed(file, **kept))


def read_split(path: Path, name: str) -> Split | None:
    """Read what `write_split` wrote, under the name that the split had; None if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {key: kept[key] for key in kept}
        return _from_arrays(name, arrays, bool(arrays.pop("by_seed")))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def most(part: Mapping[int, Rows]) -> int:
    """The samples of a part's largest fold."""
    return max(map(len, part.values()))


def make_split(text: str, dataset: Dataset, seeds: Sequence[int]) -> Split:
    """Make the split that a flag's text asks for.

    Args:
        text: `reference`; `kfold:K`, where fold k validates on the k-th of K parts, or `kfold:K:test`, where it tests on that
            one and validates on the next; `holdout:SHARE`, a draw for each seed; `files:FOLDER`.
        dataset: the samples. Duplicates are in one part of each fold of a `kfold` or `holdout`.
        seeds: the replicates'.

    Raises:
        InputError: the text says none of these, the samples cannot be split so, or a split file is wrong.
    """
    kind, _, rest = text.partition(":")
    labels = np.array(dataset.labels, dtype=np.int64)
    if kind in ("kfold", "holdout"):
        groups = duplicate_groups(dataset)[: len(labels)]
    if text == "reference":
        split = reference_split(dataset.labels)
    elif kind == "kfold" and re.fullmatch(r"[0-9]{1,3}(:test)?", rest):
        split = _k_folds(text, int(rest.partition(":")[0]), labels, groups)
    elif kind == "holdout" and re.fullmatch(r"0?\.[0-9]{1,6}", rest):
        split = _holdouts(text, float(rest), labels, groups, seeds)
    elif kind == "files" and rest:
        split = _from_files(Path(rest), len(labels))
    else:
        raise InputError(f"--split {text}: write {KINDS}")
    _check(split, labels, dataset.classes)
    return split


def _check(split: Split, labels: Rows, classes: Sequence[str]) -> None:
    for fold, rows in split.train.items():
        absent = [name for label, name in enumerate(classes) if label not in labels[rows]]
        if absent:
            raise InputError(
                f"--split {split.name}, fold {fold}: no training sample is labelled {', '.join(absent)}; every class needs some"
            )
        for part in ("validation", "test") if split.tested else ("validation",):
            if not len(getattr(split, part)[fold]):
                raise InputError(f"--split {split.name}, fold {fold}: its {part} part is empty")


def reference_split(labels: Sequence[int]) -> Split:
    """The reference's split: a plain shuffled tenth for validation, `random_state=42`, over list order; one fold.

    Raises:
        InputError: too few samples to hold a tenth back and still train.
    """
    if len(labels) < 20:
        raise InputError(f"{len(labels)} labelled samples are too few to split; at least 20 are needed")
    # Step for step scikit-learn's `train_test_split(test_size=0.1, random_state=42)`, which takes most of a second to import.
    shuffled = np.random.RandomState(42).permutation(len(labels)).astype(np.int64)
    held = -(-len(labels) // 10)
    train, validation = shuffled[held:], shuffled[:held]
    return Split("reference", {0: train}, {0: validation}, {0: train[:0]})


def _k_folds(text: str, count: int, labels: Rows, groups: Rows) -> Split:
    from sklearn.model_selection import StratifiedGroupKFold

    tested = text.endswith(":test")
    rarest = np.bincount(labels).min()
    if not (3 if tested else 2) <= count <= rarest:
        raise InputError(
            f"--split {text}: the number of folds must be from {3 if tested else 2} to {rarest}, the samples of the rarest class"
        )
    # Groups are shuffled by drawing their numbers: scikit-learn's own shuffling parted the classes worse before 1.8, which Python 3.10
    # cannot have. RandomState's draws are those of every NumPy.
    _, own = np.unique(groups, return_inverse=True)
    drawn = np.random.RandomState(DRAW).permutation(own.max() + 1)[own]
    folds = StratifiedGroupKFold(count).split(labels, labels, drawn)
    held = [rows for _, rows in folds]
    train, validation, test = {}, {}, {}
    for k in range(count):
        test[k], validation[k] = (held[k], held[(k + 1) % count]) if tested else (held[k][:0], held[k])
        train[k] = np.setdiff1d(np.arange(len(labels)), np.concatenate([test[k], validation[k]]))
    return Split(text, train, validation, test)


def _holdouts(text: str, share: float, labels: Rows, groups: Rows, seeds: Sequence[int]) -> Split:
    """Draw a share of the groups for each seed, stratified by the label that most of a group's samples have."""
    from sklearn.model_selection import train_test_split

    votes = np.zeros((groups.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(votes, (groups, labels), 1)
    present = np.flatnonzero(votes.sum(axis=1))
    train, validation = {}, {}
    for seed in seeds:
        try:
            drawn = train_test_split(
                present, test_size=share, random_state=seed, stratify=votes[present].argmax(axis=1)
            )[1]
        except ValueError as error:  # a share too small or too large for so few samples
            raise InputError(f"--split {text}: {error}") from None
        held = np.isin(groups, drawn)
        train[seed], validation[seed] = np.flatnonzero(~held), np.flatnonzero(held)
    return Split(text, train, validation, {seed: rows[:0] for seed, rows in train.items()}, by_seed=True)


def _from_files(folder: Path, count: int) -> Split:
    """Read `train_K.txt`, `val_K.txt` and, if there are any, `test_K.txt`: a fold for each K from 1, by that number."""
    if not folder.is_dir():
        raise InputError(f"--split files:{folder}: no such folder")
    found = [re.fullmatch(r"(train|val|test)_([0-9]{1,4})\.txt", path.name) for path in sorted(folder.iterdir())]
    names = {match[0]: match[1] for match in found if match}
    last = max((int(match[2]) for match in found if match), default=0)
    kinds = [kind for kind in FILES if kind != "test" or kind in names.values()]
    missing = [name for k in range(1, last + 1) for kind in kinds if (name := f"{kind}_{k}.txt") not in names]
    if missing or not last:
        raise InputError(f"--split files:{folder}: no {some(missing or ['train_1.txt'])} there")
    parts: dict[str, dict[int, Rows]] = {part: {} for part in PARTS}
    for k in range(1, last + 1):
        seen: dict[int, str] = {}
        for kind, part in FILES.items():
            rows = _read_part(folder / f"{kind}_{k}.txt", count, seen) if kind in kinds else []
            parts[part][k] = np.array(rows, dtype=np.int64)
        if len(seen) < count:
            absent = [str(row) for row in range(count) if row not in seen]
            raise InputError(
                f"{list(seen.values())[-1]}: the parts of fold {k} end here with {len(seen):,} of the {count:,} labelled samples, "
                f"without {some(absent)}: they were made for another list"
            )
    return Split(f"files:{folder.name}", parts["train"], parts["validation"], parts["test"])


def _read_part(path: Path, count: int, seen: dict[int, str]) -> list[int]:
    """Read a part's row numbers, and note in `seen` where each of the fold's stands."""
    rows = []
    for where, text in _lines(path):
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise InputError(f"{where}: {text[:40]!r} is not a sample's number; write one a line, from 0")
        row = int(text)
        if not 0 <= row < count:
            raise InputError(f"{where}: {row} is out of range; the {count:,} labelled samples are 0 to {count - 1}")
        if row in seen:
            raise InputError(f"{where}: {row} stands in {seen[row]} already; a sample is in one part of a fold, once")
        seen[row] = where
        rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where, and what: the lines of a text file that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return ((f"{path}:{number}", line.strip()) for number, line in enumerate(lines, start=1) if line.strip())
