"""Splits: what each part holds, that duplicates are never in two of them, and errors in split files."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import random_split

from conftest import make_set
from mvsa_tune.data import splits
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.duplicates import Duplicates
from mvsa_tune.data.splits import (
    Split,
    SplitKind,
    make_split,
    read_split,
    reference_finetune_split,
    reference_split,
    split_usage,
    write_split,
)
from mvsa_tune.errors import InputError


def word(number: int) -> str:
    """A text that normalisation leaves as it is: numbers it would take out."""
    return f"word{chr(97 + number // 26)}{chr(97 + number % 26)}"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Ninety labelled samples, among them two and three of one text, three of one picture, and a chain through both."""
    folder = make_set(tmp_path / "set", count=90, unlabelled=2)
    texts = [word(number) for number in range(92)]
    texts[10], texts[20] = texts[11].upper() + " http://t.co/x", texts[21]  # the same once they are normalised
    texts[40] = texts[41] = texts[42]
    texts[50], texts[60] = "@someone", "http://t.co/1"  # nothing is left of these: no duplicates
    for number, text in enumerate(texts):
        (folder / "data" / f"{100 + number}.txt").write_text(text)
    for copy, original in ((70, 71), (72, 71), (42, 43), (90, 80)):  # 90 is unlabelled
        (folder / "data" / f"{100 + copy}.jpg").write_bytes((folder / "data" / f"{100 + original}.jpg").read_bytes())
    return read_dataset(folder)


TOGETHER = [{10, 11}, {20, 21}, {40, 41, 42, 43}, {70, 71, 72}, {80, 90}]


def test_duplicates_share_their_text_or_their_picture_and_so_do_those_in_between(dataset: Dataset) -> None:
    numbers = Duplicates(dataset).by_any
    groups = [set(np.flatnonzero(numbers == number).tolist()) for number in np.unique(numbers)]
    assert [group for group in groups if len(group) > 1] == TOGETHER and len(numbers) == 92


def parts(split: Split, fold: int) -> list[set[int]]:
    return [set(part[fold].tolist()) for part in (split.train, split.validation, split.test)]


def holds(split: Split, dataset: Dataset) -> None:
    """Every sample is in one part of each fold, its duplicates with it, and the classes are spread evenly."""
    labels = np.array(dataset.labels)
    for fold in split.train:
        three = parts(split, fold)
        assert sorted(row for part in three for row in part) == list(range(90))
        for group in TOGETHER[:4]:
            assert any(group <= part for part in three)
        for part in filter(None, three):
            counts = np.bincount(labels[list(part)], minlength=3)
            assert np.ptp(counts) <= 3, counts


def test_the_reference_split_is_a_shuffled_tenth() -> None:
    labels = [0, 1, 2, 2] * 1000
    split = reference_split(labels)
    assert (len(split.train[0]), len(split.validation[0]), len(split.test[0])) == (3600, 400, 0)
    assert sorted([*split.train[0], *split.validation[0]]) == list(range(4000))
    for count in (20, 21, 4000, 4511):
        split = reference_split([0, 1, 2, *[2] * (count - 3)])
        train, validation = train_test_split(np.arange(count), test_size=0.1, random_state=42)
        assert np.array_equal(split.train[0], train) and np.array_equal(split.validation[0], validation)
        assert split.train[0].dtype == train.dtype


def test_the_split_of_the_references_fine_tuned_rows_is_torchs_random_split() -> None:
    for count in (20, 21, 403, 4000, 4511):
        split, sizes = reference_finetune_split([0] * count), (int(0.9 * count), count - int(0.9 * count))
        train, validation = random_split(range(count), sizes, generator=torch.Generator().manual_seed(42))
        assert split.train[0].tolist() == train.indices and split.validation[0].tolist() == validation.indices
        assert split.train[0].dtype == np.int64 and not len(split.test[0])
    frozen, finetuned = reference_split([0] * 4000), reference_finetune_split([0] * 4000)
    assert len(parts(frozen, 0)[1] & parts(finetuned, 0)[1]) == 45
    assert len(parts(frozen, 0)[1] & parts(finetuned, 0)[0]) == 355


def test_folds_take_turns_and_keep_duplicates_and_classes_together(dataset: Dataset) -> None:
    split = make_split("kfold:5", dataset, [42])
    holds(split, dataset)
    assert not split.tested and list(split.train) == [0, 1, 2, 3, 4] == list(split.folds_of(7))
    assert sorted(row for fold in range(5) for row in parts(split, fold)[1]) == list(range(90))
    assert make_split("kfold:5", dataset, [1, 2]).digest == split.digest != make_split("kfold:6", dataset, [42]).digest


def test_folds_are_the_same_whatever_the_versions_of_the_libraries(dataset: Dataset) -> None:
    """By scikit-learn's own shuffling they differed before its release 1.8, which Python 3.10 cannot have."""
    known = {
        "reference": "48395bb03f13",
        "reference-finetune": "6a86d3852c5e",
        "kfold:5": "2b19cc112df5",
        "kfold:10:test": "c68c5231ff74",
        "holdout:0.2": "75a28538e66e",
    }
    assert {name: make_split(name, dataset, [42]).digest[:12] for name in known} == known


def test_folds_with_a_test_part_train_eight_validate_one_and_test_one(dataset: Dataset) -> None:
    split = make_split("kfold:10:test", dataset, [42])
    holds(split, dataset)
    assert split.tested
    for fold in range(10):
        assert parts(split, fold)[1] == parts(split, (fold + 1) % 10)[2]
        assert 70 <= len(parts(split, fold)[0]) <= 74
    assert sorted(row for fold in range(10) for row in parts(split, fold)[2]) == list(range(90))


def test_a_holdout_has_a_fold_for_each_seed(dataset: Dataset) -> None:
    split = make_split("holdout:0.2", dataset, [42, 7])
    holds(split, dataset)
    assert split.folds_of(42) == (42,) and split.folds_of(7) == (7,)
    assert parts(split, 42)[1] != parts(split, 7)[1]
    assert all(14 <= len(parts(split, seed)[1]) <= 24 for seed in (42, 7))
    alone = make_split("holdout:0.2", dataset, [7])  # whoever else draws
    assert parts(alone, 7) == parts(split, 7)


FILES = {"train_1": range(20, 90), "val_1": range(10), "test_1": range(10, 20)}
FILES |= {"train_2": [*range(60), *range(80, 90)], "val_2": range(60, 70), "test_2": range(70, 80)}


def write(folder: Path, files: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))  # type: ignore[attr-defined]
    return folder


def test_split_files_are_folds_by_their_numbers(dataset: Dataset, tmp_path: Path) -> None:
    folder = write(tmp_path / "splits", FILES)
    split = make_split(f"files:{folder}", dataset, [42])
    assert split.name == "files:splits" and split.tested and split.folds_of(1) == (1, 2)
    for fold in (1, 2):
        assert parts(split, fold) == [set(FILES[f"{kind}_{fold}"]) for kind in ("train", "val", "test")]
    for k in (1, 2):
        (folder / f"test_{k}.txt").unlink()
    write(folder, {"val_1": range(20), "val_2": range(60, 80)})
    assert not make_split(f"files:{folder}", dataset, [42]).tested


BAD = {
    "out of range": (
        {"val_2": [*range(60, 69), 90]}, r"val_2\.txt:10: 90 is out of range; the 90 labelled samples are 0 to 89",
    ),
    "below 0": ({"val_1": [-1, *range(1, 10)]}, r"val_1\.txt:1: -1 is out of range"),
    "not a number": ({"train_1": [*range(20, 89), "8x"]}, r"train_1\.txt:70: '8x' is not a sample's number"),
    "not a whole number": ({"train_1": [*range(20, 89), "89.0"]}, r"train_1\.txt:70: '89\.0' is not"),
    "two parts": ({"test_1": [*range(10, 19), 5]}, r"test_1\.txt:10: 5 is in \S+val_1\.txt:6 already"),
    "twice": ({"val_1": [*range(9), 3]}, r"val_1\.txt:10: 3 is in \S+val_1\.txt:4 already"),
    "too few": (
        {"train_2": range(58), "val_2": range(60, 70)},
        r"test_2\.txt:10: the parts of fold 2 end here with 78 of the 90 labelled samples, "
        "without 58, 59, 80, 81, 82 and 7 more",
    ),
    "a lost file": ({"train_3": range(90), "val_3": []}, r"no test_3\.txt there"),
    "a lost fold": ({"train_4": [], "val_4": [], "test_4": []}, r"no train_3\.txt, val_3\.txt, test_3\.txt there"),
    "nothing to validate": (
        {"val_1": [], "train_1": [*range(10), *range(20, 90)]}, "fold 1: its validation part is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_split_file_is_named_with_its_line(case: str, dataset: Dataset, tmp_path: Path) -> None:
    change, message = BAD[case]
    folder = write(tmp_path / "splits", {**FILES, **change})
    with pytest.raises(InputError, match=message):
        make_split(f"files:{folder}", dataset, [42])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kfold", "write reference, reference-finetune, kfold:K"),
        ("kfold:x", "write reference, reference-finetune, kfold:K"),
        ("kfold:5:tests", "write reference, reference-finetune, kfold:K"),
        ("kfold:1", "from 2 to 30, the samples of the rarest class"),
        ("kfold:2:test", "from 3 to 30"),
        ("kfold:31", "from 2 to 30"),
        ("holdout:1.5", "write reference, reference-finetune, kfold:K"),
        ("holdout:0.01", "--split holdout:0.01: "),
        ("files:nowhere", "no such folder"),
        ("random", "write reference, reference-finetune, kfold:K"),
    ],
)
def test_an_impossible_split_is_an_error(text: str, message: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        make_split(text, dataset, [42])


def test_a_kind_of_split_is_one_entry_of_the_list(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_rows(match: re.Match[str], dataset: Dataset, seeds: Sequence[int]) -> Split:
        validation, train = np.split(np.arange(len(dataset.labels)), [int(match[1])])
        return Split(match[0], {0: train}, {0: validation}, {0: validation[:0]})

    kind = SplitKind("first:([0-9]+)", "first:N", first_rows)
    monkeypatch.setattr(splits, "SPLIT_KINDS", [*splits.SPLIT_KINDS, kind])
    split = make_split("first:10", dataset, [42])
    assert split.name == "first:10" and parts(split, 0)[1] == set(range(10))
    assert (
        split_usage() == "reference, reference-finetune, kfold:K, kfold:K:test, holdout:SHARE, files:FOLDER, or first:N"
    )
    with pytest.raises(InputError, match="or first:N"):
        make_split("first", dataset, [42])
    with pytest.raises(InputError, match="--split first:0, fold 0: its validation part is empty"):
        make_split("first:0", dataset, [42])


def test_too_few_samples_or_an_absent_class_are_an_error(tmp_path: Path) -> None:
    for make in (reference_split, reference_finetune_split):
        with pytest.raises(InputError, match="too few"):
            make([0, 1, 2])
    folder = make_set(tmp_path / "set")
    (folder / "train.txt").write_text((folder / "train.txt").read_text().replace("neutral", "positive"))
    with pytest.raises(InputError, match="no training sample is labelled neutral"):
        make_split("reference", read_dataset(folder), [42])


def test_a_split_comes_back_from_its_file_and_a_damaged_one_does_not(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "split.npz"
    for text in ("reference", "kfold:3:test", "holdout:0.3"):
        split = make_split(text, dataset, [42, 7]).without({0, 45})
        write_split(path, split)
        back = read_split(path, text)
        assert back is not None and back.digest == split.digest and back.name == text
        assert back.folds_of(7) == split.folds_of(7)
        assert all({0, 45}.isdisjoint(part) for fold in back.train for part in parts(back, fold))
    path.write_bytes(path.read_bytes()[:200])
    assert read_split(path, "reference") is None and read_split(tmp_path / "none", "reference") is None


def test_a_folds_digest_depends_on_its_rows_alone(dataset: Dataset) -> None:
    alone, both = make_split("holdout:0.2", dataset, [7]), make_split("holdout:0.2", dataset, [42, 7])
    assert list(both.fold_digests) == [42, 7] and both.fold_digests[7] == alone.fold_digests[7]
    assert len(set(both.fold_digests.values())) == 2
    reversed_rows = dataclasses.replace(alone, train={7: alone.train[7][::-1]})
    moved = dataclasses.replace(alone, validation=alone.test, test=alone.validation)
    assert len({split.fold_digests[7] for split in (alone, reversed_rows, moved)}) == 3


def test_a_union_has_the_folds_of_both_and_shared_folds_must_be_equal(dataset: Dataset) -> None:
    first, more = make_split("holdout:0.2", dataset, [42, 7]), make_split("holdout:0.2", dataset, [7, 5])
    union = first.union(more)
    assert union.digest == make_split("holdout:0.2", dataset, [42, 7, 5]).digest
    assert union.fold_digests == first.fold_digests | more.fold_digests and union.folds_of(5) == (5,)
    assert first.union(first).digest == first.digest
    with pytest.raises(ValueError, match="fold 7 differs in its rows"):
        first.union(more.without({int(more.train[7][0])}))
    with pytest.raises(ValueError, match=r"holdout:0\.2 and kfold:5 cannot be joined"):
        first.union(make_split("kfold:5", dataset, [42]))


@pytest.mark.long
def test_no_duplicates_are_in_two_parts_of_a_fold_of_the_real_set(real: Path) -> None:
    dataset = read_dataset(real)
    groups, labels = Duplicates(dataset).by_any[:4000], np.array(dataset.labels)
    texts = {}
    for row, sample in enumerate(dataset.samples[:4000]):
        texts.setdefault(sample.text.strip().lower(), []).append(row)
    split = make_split("kfold:10:test", dataset, [42])
    for fold in range(10):
        three = (split.train[fold], split.validation[fold], split.test[fold])
        part_of = np.full(4000, -1)
        for number, part in enumerate(three):
            part_of[part] = number
        assert all(len(set(part_of[rows])) == 1 for rows in texts.values() if len(rows) > 1)
        assert all(len(np.unique(part_of[groups == group])) == 1 for group in np.flatnonzero(np.bincount(groups) > 1))
        np.testing.assert_allclose([len(part) for part in three], [3200, 400, 400], atol=3)
        np.testing.assert_allclose(np.bincount(labels[split.test[fold]]), np.bincount(labels) / 10, atol=2)
