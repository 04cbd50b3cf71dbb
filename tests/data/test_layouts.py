"""Layouts: which a folder has, and the reference's and Cheema et al.'s. The release and tables have their own files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import make_set
from mvsa_tune.config import Parser
from mvsa_tune.data.dataset import add_data_flags, read_data, read_dataset
from mvsa_tune.data.readers import LABELS
from mvsa_tune.errors import InputError


def write_pairs(folder: Path, guids: list[str], pictures: str = "data", texts: str = "data") -> None:
    """Write GUID.jpg, which is no picture, and GUID.txt."""
    for name in {pictures, texts}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for guid in guids:
        (folder / pictures / f"{guid}.jpg").write_bytes(b"picture " + guid.encode())
        (folder / texts / f"{guid}.txt").write_text(f"tweet {guid}", encoding="utf-8")


# An order that is neither the ids' nor the files'.
CHEEMA_LINES = ["17,1,1,0", "3,0,0,0", "250,2,0,2", "4,1,0,1"]


def make_cheema(folder: Path, pictures: str = "data", texts: str = "data", heading: str = "") -> Path:
    """Write four pairs as Cheema et al. have them, with one fold's split files."""
    write_pairs(folder, [line.split(",")[0] for line in CHEEMA_LINES], pictures, texts)
    (folder / "valid_pairlist.txt").write_text(heading + "\n".join(CHEEMA_LINES) + "\n", encoding="utf-8")
    (folder / "splits").mkdir()
    for name, rows in {"train_1": [3, 0], "val_1": [2], "test_1": [1]}.items():
        (folder / "splits" / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    return folder


@pytest.mark.parametrize("heading", ["", "file_id,multimodal,text,image\n"])
@pytest.mark.parametrize("folders", [("data", "data"), ("images", "texts")])
def test_cheemas_rows_are_the_lines_that_the_split_files_count(
    tmp_path: Path, folders: tuple[str, str], heading: str
) -> None:
    dataset = read_dataset(make_cheema(tmp_path, *folders, heading=heading))
    assert dataset.layout == "cheema" and dataset.classes == LABELS
    rows = np.loadtxt(tmp_path / "splits" / "train_1.txt", dtype=int)
    assert [dataset.samples[row].guid for row in rows] == ["4", "17"]
    assert dataset.guids == ["17", "3", "250", "4"]
    # 0 is neutral, 1 positive, 2 negative; the first of the three labels is the pair's
    assert [LABELS[label] for label in dataset.labels] == ["positive", "neutral", "negative", "positive"]
    assert dataset.samples[2].picture == tmp_path / folders[0] / "250.jpg" and dataset.samples[2].text == "tweet 250"


def edit(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


BAD = {
    "label 3": (edit("valid_pairlist.txt", "3,0,0,0", "3,3,0,0"), r"pairlist\.txt:2: '3,3,0,0' is not `file_id"),
    "a word for a label": (edit("valid_pairlist.txt", "17,1,1,0", "17,positive,1,0"), r"pairlist\.txt:1: '17,pos"),
    "unknown label of a modality": (edit("valid_pairlist.txt", "3,0,0,0", "3,0,0,9"), r"pairlist\.txt:2"),
    "three cells": (edit("valid_pairlist.txt", "3,0,0,0", "3,0,0"), r"pairlist\.txt:2"),
    "blank line": (edit("valid_pairlist.txt", "3,0,0,0\n", "\n3,0,0,0\n"), r"pairlist\.txt:2: a blank line"),
    "listed twice": (
        edit("valid_pairlist.txt", "3,0,0,0", "17,0,0,0"),
        r":2: guid 17 is listed twice.*pairlist\.txt:1",
    ),
    "id that climbs": (edit("valid_pairlist.txt", "3,0,0,0", "../3,0,0,0"), "may not leave the data folder"),
    "empty list": (
        lambda folder: (folder / "valid_pairlist.txt").write_text("file_id,multimodal,text,image\n"),
        "no samples",
    ),
    "no picture": (lambda folder: (folder / "data" / "250.jpg").unlink(), r"1 of 4 samples has no picture.*250\.jpg"),
    "no text": (lambda folder: (folder / "data" / "4.txt").unlink(), r"1 of 4 samples has no text.*4\.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_of_cheema_et_al_is_reported_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make_cheema(tmp_path)
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_two_layouts_in_one_folder_are_an_error_unless_one_is_named(tmp_path: Path) -> None:
    folder = make_cheema(make_set(tmp_path))
    with pytest.raises(InputError, match="--layout reference or --layout cheema"):
        read_dataset(folder)
    assert read_dataset(folder, layout="cheema").guids == ["17", "3", "250", "4"]
    assert len(read_dataset(folder, layout="reference").guids) == 44


def test_a_layout_that_a_folder_lacks_is_an_error_that_names_what_is_missing(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    for layout, lacks in {
        "mvsa": r"labelResultAll\.txt",
        "cheema": r"valid_pairlist\.txt",
        "table": r"a \.csv",
    }.items():
        with pytest.raises(InputError, match=f"has not the layout {layout}: expected .*{lacks}.*Looked in"):
            read_dataset(folder, layout=layout)
    (tmp_path / "empty").mkdir()
    known = r"none of the known layouts.*train\.txt.*labelResultAll.*valid_pairlist.*\.csv"
    with pytest.raises(InputError, match=known):
        read_dataset(tmp_path / "empty")


def test_the_references_lists_may_have_other_labels_if_they_are_named(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    text = (folder / "train.txt").read_text().replace("neutral", "mixed")
    (folder / "train.txt").write_text(text)
    with pytest.raises(InputError, match=r"train\.txt:3: unknown label 'mixed'.*--labels"):
        read_dataset(folder)
    parser = Parser()
    add_data_flags(parser)
    dataset = read_data(parser.parse_args(["--data", str(folder), "--labels", "positive, mixed,negative"]))
    assert dataset.classes == ("positive", "mixed", "negative") and dataset.labels[:4] == [2, 1, 0, 2]
    assert dataset.flags == " --labels positive,mixed,negative"


def test_the_order_of_the_labels_is_part_of_the_fingerprint_and_not_of_the_contents(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    usual, named = read_dataset(folder), read_dataset(folder, layout="reference", labels=LABELS)
    reordered = read_dataset(folder, labels=LABELS[::-1])
    more = read_dataset(folder, labels=(*LABELS, "mixed"))
    assert usual.fingerprint == named.fingerprint
    assert len({usual.fingerprint, reordered.fingerprint, more.fingerprint}) == 3
    assert usual.content_fingerprint == reordered.content_fingerprint == more.content_fingerprint


def test_fingerprints_match_those_of_caches_and_sweeps_before_there_were_layouts(tmp_path: Path) -> None:
    dataset = read_dataset(make_set(tmp_path))
    assert dataset.fingerprint.startswith("b0318046c28986b8") and dataset.content_fingerprint.startswith(
        "45f006ec38a03066"
    )


def test_the_real_set_has_the_references_layout(real: Path) -> None:
    dataset = read_dataset(real)
    assert dataset.layout == "reference" and dataset.classes == LABELS and not dataset.dropped
    assert dataset.label_counts == (1193, 419, 2388) and len(dataset.samples) - len(dataset.labels) == 511
    assert dataset.fingerprint == "c659b9b1809e6d9a04cd9455725c26092cf9e0f12d1e0e31a0d1ca3d9d6aef31"
    assert dataset.content_fingerprint == "563419f78952317dfa343016c7fbfa364d7c9516084aded8660c8edf2c997410"


@pytest.mark.long
def test_the_real_set_is_the_same_data_in_every_layout(real: Path, tmp_path: Path) -> None:
    reference = read_dataset(real)
    for name in ("table", "paths", "cheema", "release"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(real / "data")
    labels = ["" if sample.label is None else LABELS[sample.label] for sample in reference.samples]
    rows = [(sample.guid, f"data/{sample.guid}.jpg", sample.text) for sample in reference.samples]
    frame = pd.DataFrame(rows, columns=["id", "image", "text"]).assign(label=labels)
    frame.to_csv(tmp_path / "table" / "set.csv", index=False)
    frame.assign(text="data/" + frame["id"] + ".txt").to_parquet(tmp_path / "paths" / "set.parquet")
    labelled = frame[frame["label"] != ""]
    numbers = labelled["label"].map({"neutral": "0", "positive": "1", "negative": "2"})
    pd.concat([labelled["id"], numbers, numbers, numbers], axis=1).to_csv(
        tmp_path / "cheema" / "valid_pairlist.txt", header=False, index=False
    )
    lines = labelled["id"] + "\t" + labelled["label"] + "," + labelled["label"]
    (tmp_path / "release" / "labelResultAll.txt").write_text("\n".join(["ID\ttext,image", *lines]))
    for name in ("table", "paths"):
        dataset = read_dataset(tmp_path / name)
        assert dataset.layout == "table" and dataset.fingerprint == reference.fingerprint
        assert dataset.content_fingerprint == reference.content_fingerprint
    assert read_dataset(tmp_path / "paths").not_utf8 == reference.not_utf8
    labelled_alone = replace(reference, samples=reference.samples[:4000]).fingerprint
    for name in ("cheema", "release"):
        assert read_dataset(tmp_path / name).fingerprint == labelled_alone
