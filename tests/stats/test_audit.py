"""The audit: duplicates made on purpose, leaks counted by hand, and what it says of the real set."""

import io
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import make_set
from mvsa_tune.cli import main
from mvsa_tune.data import duplicates
from mvsa_tune.data.dataset import Dataset, Sample, read_dataset
from mvsa_tune.data.duplicates import Duplicates, connected, joined, near_pairs
from mvsa_tune.data.readers import LABELS
from mvsa_tune.data.splits import Split, reference_split
from mvsa_tune.results.store import Store
from mvsa_tune.stats.audit import COUNTED, accuracy_by_twins, audit_data, find_leaks
from mvsa_tune.stats.intervals import wilson
from mvsa_tune.stats.summary import choose


def scene(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A made-up photograph: soft patches of colour, other ones for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_set(folder: Path, samples: Mapping[str, tuple[str | None, str, bytes]]) -> Dataset:
    """Write samples: guid → tag or None, text, picture file."""
    (folder / "data").mkdir(parents=True)
    for guid, (_, text, picture) in samples.items():
        (folder / "data" / f"{guid}.txt").write_text(text, encoding="utf-8")
        (folder / "data" / f"{guid}.jpg").write_bytes(picture)
    for name, labelled in (("train.txt", True), ("test_without_label.txt", False)):
        lines = [f"{guid},{tag or 'null'}" for guid, (tag, _, _) in samples.items() if (tag is not None) == labelled]
        (folder / name).write_text("\n".join(["guid,tag", *lines]) + "\n")
    return read_dataset(folder)


@pytest.fixture
def made(tmp_path: Path) -> Dataset:
    """Known duplicates: a, b, u by text; b, d and a, v by picture; c looks like a; e and f, g and h have no words."""
    small = scene(1).resize((120, 90))
    return write_set(
        tmp_path / "made",
        {
            "a": ("negative", "Great day @x http://t.co/1", jpeg(scene(1))),
            "b": ("positive", "great day!! http://t.co/2", jpeg(scene(2))),
            "c": ("negative", "another one", jpeg(small, quality=40)),
            "d": ("positive", "a third", jpeg(scene(2))),
            "e": ("neutral", "http://t.co/a", jpeg(scene(3))),
            "f": ("neutral", "@someone http://t.co/b", jpeg(scene(4))),
            "g": ("positive", "...", jpeg(scene(5))),
            "h": ("negative", "... @b", jpeg(scene(6))),
            "u": (None, "GREAT day", jpeg(scene(7))),
            "v": (None, "a fifth", jpeg(scene(1))),
        },
    )


def members(groups: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each group of two or more, in order of their first."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]


def named(groups: np.ndarray, dataset: Dataset) -> list[str]:
    return ["".join(dataset.guids[row] for row in part) for part in members(groups)]


def test_every_kind_of_duplicate_is_found_and_nothing_else(made: Dataset) -> None:
    result = {kind: named(groups, made) for kind, groups in Duplicates(made).groups().items()}
    assert result == {"text": ["abu"], "picture": ["av", "bd"], "near-picture": ["acv", "bd"], "any": ["abcduv"]}


def test_each_kind_can_be_joined_with_any_other(made: Dataset) -> None:
    kinds = Duplicates(made)
    assert named(joined(kinds.by_text, kinds.by_picture), made) == ["abduv"]
    assert named(joined(np.arange(10)), made) == []
    assert len(kinds.by_any) == len(made.samples)


def test_a_copy_is_found_however_it_was_saved_and_unrelated_pictures_are_kept_apart(tmp_path: Path) -> None:
    samples = {}
    for seed in range(25):
        picture = scene(100 + seed)
        copies = {
            "whole": jpeg(picture),
            "poor": jpeg(picture, quality=25),
            "half": jpeg(picture.resize((120, 90))),
            "grey": jpeg(picture.convert("L")),
            "large": jpeg(picture.resize((1920, 1440))),
        }
        samples |= {f"{seed:02d} {how}": ("positive", f"word{seed}{how}", file) for how, file in copies.items()}
    dataset = write_set(tmp_path / "copies", samples)
    parts = members(Duplicates(dataset).by_near_picture)
    assert [{dataset.guids[row][:2] for row in part} for part in parts] == [{f"{seed:02d}"} for seed in range(25)]
    assert {len(part) for part in parts} == {5}


def test_what_has_no_shape_or_cannot_be_read_looks_like_nothing_else(tmp_path: Path) -> None:
    dataset = write_set(
        tmp_path / "odd",
        {
            "red": ("positive", "one", jpeg(Image.new("RGB", (40, 40), "red"))),
            "blue": ("positive", "two", jpeg(Image.new("RGB", (40, 40), "blue"))),
            "cut": ("positive", "three", jpeg(scene(1))[:2000]),
            "cut again": ("positive", "four", jpeg(scene(1))[:2000]),
            "empty": ("positive", "five", b""),
        },
    )
    hashes = Duplicates(dataset).hashes
    assert [guid for guid, value in hashes.items() if value is None] == ["red", "blue"]
    assert [guid for guid, value in hashes.items() if isinstance(value, str)] == ["cut", "cut again", "empty"]
    assert "empty" in hashes["empty"]
    assert named(Duplicates(dataset).by_near_picture, dataset) == ["cutcut again"]  # equal files they are


def test_near_pairs_are_those_found_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 60, dtype=np.uint64)
    hashes[30:] = hashes[:30]
    for row in range(30, 60):
        for bit in generator.choice(64, row % 12, replace=False):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    for distance in (0, 6, 11):
        wanted = {
            (i, j)
            for i, j in itertools.combinations(range(60), 2)
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
        }
        result = near_pairs(hashes, distance)
        assert set(zip(*result.tolist(), strict=True)) == wanted and wanted
        assert result.shape[1] == len(wanted)


def test_a_chain_is_one_group_named_by_its_first_row() -> None:
    hashes = np.array([0, 2**40 - 1, 0b111111, 0b111111_111111, 2**40 - 2], dtype=np.uint64)
    groups = connected(5, near_pairs(hashes, 6))
    assert groups.tolist() == [0, 1, 0, 0, 1]
    assert joined(groups, np.array([0, 1, 2, 1, 4])).tolist() == [0, 0, 0, 0, 0]
    assert joined(np.arange(3)).tolist() == [0, 1, 2]


def bare(labels: list[int | None]) -> Dataset:
    """Samples of which only the labels matter."""
    return Dataset(Path(), tuple(Sample(str(row), label, Path(), "", "utf-8") for row, label in enumerate(labels)))


def test_leaks_are_those_counted_by_hand() -> None:
    #        row 0  1  2  3  4  5  6  7  8  9 | 10  11 (unlabelled)
    labels = [0, 0, 1, 1, 2, 2, 0, 1, 2, 1, None, None]
    groups = np.array([0, 0, 0, 3, 3, 5, 5, 3, 8, 9, 0, 11])
    folds = Split(
        "two",
        {0: np.array([0, 1, 3, 5, 6, 8]), 1: np.array([2, 4, 7, 9])},
        {0: np.array([2, 4, 7, 9]), 1: np.array([0, 3, 5, 8])},
        {0: np.arange(0), 1: np.arange(0)},
    )
    leaks = find_leaks(bare(labels), folds, {"made": groups})
    first, unlabelled, second = (
        leaks[(leaks["part"] == part) & (leaks["fold"] == fold)]
        for part, fold in (("validation", 0), ("unlabelled", 0), ("validation", 1))
    )
    # Fold 0: 2 (label 1) has 0 and 1 (0, 0); 4 (2) and 7 (1) have 3 (1); 9 is alone. Fold 1: 0 (0) has 2 (1); 3 (1)
    # has 4 (2) and 7 (1), a tie; 5's only twin is in no part; 8 is alone.
    assert first.loc[first["with_twin"] == 1, "row"].tolist() == [2, 4, 7]
    assert second.loc[second["with_twin"] == 1, "row"].tolist() == [0, 3]
    assert first[COUNTED].sum().tolist() == [4, 3, 1, 1] and second[COUNTED].sum().tolist() == [4, 2, 0, 1]
    assert unlabelled[COUNTED[:2]].sum().tolist() == [2, 1] and unlabelled[COUNTED[2:]].isna().all(axis=None)


def test_accuracy_on_twins_is_what_a_plain_count_gives(swept: Path, demo: Dataset) -> None:
    store = Store(swept)
    config = choose(store, "best")
    # Any groups will do, of one to a dozen: the demo set has no duplicates of its own.
    groups = np.sort(np.random.default_rng(3).integers(0, 300, len(demo.samples)))
    np.random.default_rng(4).shuffle(groups)
    split = reference_split(demo.labels)
    result = accuracy_by_twins(store, config.id, demo, split, {"made": groups})["made"]
    kept = store.result(config.id)
    tally: dict[str, list[bool]] = {"every": [], "alone": [], "twins": [], "agree": [], "differ": []}
    for rows, predicted in zip(kept.rows, kept.best, strict=True):
        for row, answer in zip(rows, predicted, strict=True):
            right = bool(answer == demo.labels[row])
            twins = [demo.labels[other] for other in split.train[0] if groups[other] == groups[row]]
            most = pd.Series(twins, dtype=int).mode().tolist()
            tally["every"].append(right)
            tally["twins" if twins else "alone"].append(right)
            if twins:
                tally["agree" if most == [demo.labels[row]] else "differ"].append(right)
    for name, answers in tally.items():
        share = result[name]
        assert answers and share["samples"] == len(answers) / 3, name
        assert share["share"] == pytest.approx(np.mean(answers))
        assert share["interval"] == pytest.approx(wilson(np.mean(answers), len(answers) // 3))


def test_the_command_writes_what_it_prints_and_no_tweet(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    assert main(["audit", "--data", str(made.folder)]) == 0
    page, warned = capsys.readouterr()
    assert "without a split: 8 labelled samples are too few" in warned
    folder = Path("results/audit-made")
    assert str(folder) in page
    figures = json.loads((folder / "audit.json").read_text())
    assert figures["labels"] == {"negative": 3, "neutral": 2, "positive": 3, "unlabelled": 2}
    assert figures["texts_empty_after_normalisation"] == ["e", "f"] and figures["texts_of_punctuation_alone"] == [
        "g",
        "h",
    ]
    assert figures["data_fingerprint"] == made.fingerprint and figures["settings"]["near_distance"] == 6
    assert [figures["duplicates"][kind]["groups"] for kind in ("text", "picture", "near-picture", "any")] == [
        1,
        2,
        2,
        1,
    ]
    assert figures["duplicates"]["any"] == {
        "groups": 1, "samples": 6, "pairs": 15, "largest": 6, "groups_whose_labels_disagree": 1, "samples_in_them": 6,
    }  # fmt: skip
    assert figures["leaks"]["unlabelled"]["any"]["with_twin"] == 2 and figures["accuracy"] is None
    rows = pd.read_csv(folder / "groups.csv", keep_default_na=False)
    assert rows["kind"].value_counts().to_dict() == {"any": 6, "near-picture": 5, "picture": 4, "text": 3}
    text = rows[rows["kind"] == "text"]
    assert text["guid"].tolist() == ["a", "b", "u"] and text["label"].tolist() == ["negative", "positive", ""]
    assert set(text["labels_disagree"]) == {"yes"}
    assert set(rows.loc[rows["kind"] == "picture", "labels_disagree"]) == {"no"}
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(written) == ["audit.json", "groups.csv"]
    assert "great" not in (page + b"".join(written.values()).decode()).lower()
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before
    # the same again, and with the tweets when asked
    assert main(["audit", "--data", str(made.folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    assert main(["audit", "--data", str(made.folder), "--out", "asked", "--texts"]) == 0
    assert "Great day @x http://t.co/1" in pd.read_csv("asked/groups.csv")["text"].tolist()
    assert "great" not in capsys.readouterr().out.lower()


def test_a_sweep_says_where_it_is_right(
    swept: Path, demo: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "--data", str(demo.folder), "--out", str(tmp_path / "out"), "--sweep", str(swept)]
    assert main(command) == 0
    figures = json.loads((tmp_path / "out" / "audit.json").read_text())
    config = choose(Store(swept), "best")
    assert figures["accuracy"]["trial_id"] == config.id and f"Accuracy of small {config.id}" in capsys.readouterr().out
    mean = pd.read_csv(swept / "trials.csv").query("trial_id == @config.id")["val_acc_best"].mean()
    assert figures["accuracy"]["by_kind"]["any"]["every"]["share"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--data", "nowhere"], "no data folder nowhere"),
        (["--data", "tiny", "--out", "tiny/audit"], "is in the data folder"),
        (["--data", "tiny", "--near", "64"], "--near 64"),
        (["--data", "tiny", "--out", "tiny.txt/a"], "cannot write tiny.txt/a"),
        (["--data", "tiny", "--sweep", "nowhere"], "no sweep in nowhere"),
    ],
)
def test_wrong_input_ends_with_a_line(
    flags: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_set(tmp_path / "tiny")
    Path("tiny.txt").touch()
    assert main(["audit", *flags]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_a_sweep_of_other_data_raises(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_set(tmp_path / "tiny")
    assert main(["audit", "--data", str(folder), "--sweep", str(swept), "--out", str(tmp_path / "out")]) == 2
    assert "is a sweep of other data" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pictures_that_cannot_be_read_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_set(tmp_path / "tiny")
    assert main(["audit", "--data", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "44 unreadable (100, 101, 102, 103, 104 and 39 more)" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "audit.json").read_text())["pictures_unreadable"]) == 44


@pytest.mark.long
def test_the_real_set(real: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert main(["audit", "--data", str(real), "--out", str(tmp_path)]) == 0
    assert time.monotonic() - began < 60
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert figures["labels"] == {"negative": 1193, "neutral": 419, "positive": 2388, "unlabelled": 511}
    assert figures["encodings"] == {"utf-8": 3450, "gb18030": 1061} and len(figures["not_utf8"]) == 1061
    assert len(figures["texts_empty_after_normalisation"]) == 136 and not figures["pictures_unreadable"]
    counts = {
        kind: (counts["groups"], counts["groups_whose_labels_disagree"])
        for kind, counts in figures["duplicates"].items()
    }
    assert counts["text"] == (192, 42) and counts["picture"] == (40, 6)
    assert counts["near-picture"] == (172, 28) and counts["any"] == (204, 42)
    leak = figures["leaks"]["validation"]["any"]
    assert (leak["samples"], leak["with_twin"], leak["twins_say_its_label"]) == (400, 30, 20)
    assert (leak["accuracy_from_copying"], leak["accuracy_from_duplicates_at_most"]) == (20 / 400, 23 / 400)
    assert leak["copying"]["share"] == 20 / 30 and leak["copying"]["samples"] == 30


def test_figures_and_groups_tell_the_same(made: Dataset) -> None:
    result = audit_data(made)
    rows = result.groups
    for kind, counts in result.figures["duplicates"].items():
        of_kind = rows[rows["kind"] == kind]
        assert (of_kind["group"].nunique(), len(of_kind)) == (counts["groups"], counts["samples"])
        assert (
            of_kind.loc[of_kind["labels_disagree"] == "yes", "group"].nunique()
            == counts["groups_whose_labels_disagree"]
        )
    assert set(rows["label"]) <= {*LABELS, ""}
