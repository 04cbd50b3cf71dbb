"""Tables: any CSV or Parquet file."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from conftest import add_cache
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.embeddings.cache import default_folder, how_to_make
from mvsa_tune.errors import InputError
from test_layouts import edit

# Texts as tweets are: with commas, quotes and line breaks; a label for all but two.
TEXTS = ["so happy, today", 'she said "no"', "line one\nline two", "…天气", "", "plain", "more", "last"]
TAGS = ["good", "bad", "good", "", "bad", "good", "", "bad"]


def make_frame(folder: Path) -> pd.DataFrame:
    (folder / "images" / "deep").mkdir(parents=True)
    images = [f"images/{'deep/' * (number % 2)}{number}.{'png' if number % 3 else 'jpeg'}" for number in range(8)]
    for image in images:
        (folder / image).write_bytes(b"picture " + image.encode())
    ids = [f"tweet {number}/a" for number in range(8)]
    return pd.DataFrame({"extra": range(8), "label": TAGS, "id": ids, "text": TEXTS, "image": images})


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    path = path.with_suffix(".parquet")
    frame.replace({"label": {"": None}}).to_parquet(path, index=False)
    return path


Writer = Callable[[pd.DataFrame, Path], Path]
both = pytest.mark.parametrize("write", [write_csv, write_parquet])


def check(dataset: Dataset, folder: Path) -> None:
    order = [0, 1, 2, 4, 5, 7, 3, 6]  # the labelled first, each part in the file's order
    assert dataset.layout == "table" and dataset.classes == ("bad", "good") and "alphabetical" in dataset.class_order
    assert dataset.guids == [f"tweet {number}/a" for number in order]
    assert [sample.text for sample in dataset.samples] == [TEXTS[number] for number in order]
    assert dataset.labels == [1, 0, 1, 0, 1, 0]
    assert all(sample.picture.read_bytes().startswith(b"picture images/") for sample in dataset.samples)
    assert dataset.samples[1].picture == folder / "images" / "deep" / "1.png"


@both
def test_a_table_is_read_by_its_name_and_by_its_folders(write: Writer, tmp_path: Path) -> None:
    path = write(make_frame(tmp_path), tmp_path / "tweets.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")  # no such columns: not the table that is meant
    check(read_dataset(path), tmp_path)
    check(read_dataset(tmp_path), tmp_path)
    assert read_dataset(tmp_path).folder == path
    assert read_dataset(path).fingerprint == read_dataset(tmp_path).fingerprint


def test_csv_and_parquet_of_the_same_rows_are_the_same_data(tmp_path: Path) -> None:
    frame = make_frame(tmp_path)
    paths = [write(frame, tmp_path / "tweets.csv") for write in (write_csv, write_parquet)]
    assert len({read_dataset(path).fingerprint for path in paths}) == 1
    with pytest.raises(InputError, match=r"2 tables \(tweets\.csv, tweets\.parquet\): name one with --data FILE"):
        read_dataset(tmp_path)


@both
def test_a_column_of_texts_may_hold_paths_instead(write: Writer, tmp_path: Path) -> None:
    frame = make_frame(tmp_path)
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number}.txt").write_bytes(text.encode("gb18030" if number == 3 else "utf-8"))
    paths = frame.assign(text=[f"texts/{number}.txt" for number in range(8)])
    dataset = read_dataset(write(paths, tmp_path / "tweets.csv"))
    check(dataset, tmp_path)
    assert dataset.not_utf8 == ["tweet 3/a"]
    for value, message in {
        "texts/9.txt": "has no text in .*texts/9.txt .*tweets",
        "../out.txt": "may not leave that folder",
        "a tweet": "the text is the path of a file, but that of .* is not",
    }.items():
        bad = paths.assign(text=[*paths["text"][:7], value])
        with pytest.raises(InputError, match=message):
            read_dataset(write(bad, tmp_path / "tweets.csv"))


def test_a_text_that_only_looks_like_a_path_is_a_text(tmp_path: Path) -> None:
    frame = make_frame(tmp_path)
    frame["text"] = [*TEXTS[:6], "look at readme.txt", "x" * 5000 + ".txt"]
    assert read_dataset(write_csv(frame, tmp_path / "t.csv")).samples[-1].text == "look at readme.txt"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pd.array([2, 0, 1, None, 0, 1, None, 2], dtype="Int64"), ("0", "1", "2")),
        ([2.0, 0.0, 1.0, None, 0.0, 1.0, None, 2.0], ("0", "1", "2")),
        ([True, False, True, None, True, True, False, False], ("False", "True")),
        (pd.Categorical(["positive", "negative", *["positive"] * 6]), ("negative", "positive")),
    ],
)
def test_parquets_own_types_are_labels_too(tmp_path: Path, labels: object, classes: tuple[str, ...]) -> None:
    frame = make_frame(tmp_path).assign(label=labels, id=range(8))
    frame.to_parquet(tmp_path / "t.parquet")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == classes and dataset.guids[0] == "0"
    expected = [
        str(int(label) if isinstance(label, float) else label) for label in frame["label"] if not pd.isna(label)
    ]
    assert [classes[label] for label in dataset.labels] == expected


def test_a_typo_in_a_label_is_a_note_unless_the_labels_are_named(tmp_path: Path) -> None:
    frame = pd.concat([make_frame(tmp_path)] * 10, ignore_index=True)
    frame = frame.assign(id=range(80), label=["negatve", *["negative", "positive"] * 39, ""])
    path = write_csv(frame, tmp_path / "t.csv")
    assert read_dataset(path).description()[-1] == "label 'negatve' (1 sample) is nearly 'negative' (39): a typo?"
    assert not read_dataset(path, labels=["negative", "positive", "negatve"]).notes


def test_without_labels_a_table_is_new_pairs(tmp_path: Path) -> None:
    frame = make_frame(tmp_path).drop(columns="label")
    path = write_csv(frame, tmp_path / "new.csv")
    dataset = read_dataset(path, needs_labels=False)
    assert dataset.labels == [] and dataset.classes == () and len(dataset.samples) == 8
    with pytest.raises(InputError, match=r"new\.csv:1: column label is missing \(columns: extra, id, text, image\)"):
        read_dataset(path)
    with pytest.raises(InputError, match="no labelled samples"):
        read_dataset(write_csv(frame.assign(label=""), tmp_path / "new.csv"))


def test_only_the_requested_labels_are_known(tmp_path: Path) -> None:
    path = write_csv(make_frame(tmp_path), tmp_path / "t.csv")
    assert read_dataset(path, labels=("good", "bad")).labels == [0, 1, 0, 1, 0, 1]
    with pytest.raises(InputError, match=r"t\.csv:3: unknown label 'bad'; known are good, ugly"):
        read_dataset(path, labels=("good", "ugly"))


def test_each_table_of_a_folder_has_its_own_caches(tmp_path: Path) -> None:
    frame = make_frame(tmp_path)
    first, second = write_csv(frame, tmp_path / "first.csv"), write_csv(frame[::-1], tmp_path / "second.csv")
    for path in (first, second):
        add_cache(read_dataset(path), "eye", "image")
        assert default_folder(path) == path.with_suffix(".embeddings") and (default_folder(path) / "eye").is_dir()
    dataset = read_dataset(first, labels=["good", "bad"])
    made = how_to_make(dataset, default_folder(first), "demo-words", "text")
    assert made == f"mvsa-tune embed --data {first} --labels good,bad --encoder demo-words"


def spoiled(column: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        frame = pd.read_csv(folder / "t.csv", keep_default_na=False, dtype=str)
        frame.loc[1, column] = value
        write_csv(frame, folder / "t.csv")

    return change


def rewrite(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "t.csv").write_bytes(content)


BAD = {
    "image that climbs": (spoiled("image", "images/../../x.png"), r"t\.csv:3: image .* may not leave that folder"),
    "image that is absolute": (spoiled("image", "/etc/passwd"), r"t\.csv:3: image .* may not leave that folder"),
    "no image": (spoiled("image", ""), r"t\.csv:3: image '' is not a path"),
    "missing image": (
        spoiled("image", "images/9.png"),
        r"1 of 8 samples has no picture in the folder of .*t\.csv: images/9\.png \(.*t\.csv:3\)",
    ),
    "a folder for an image": (spoiled("image", "images"), "1 of 8 samples has no picture"),
    "listed twice": (spoiled("id", "tweet 0/a"), r"t\.csv:3: guid tweet 0/a is listed twice \(.*t\.csv:2"),
    "no id": (spoiled("id", " "), r"t\.csv:3: '' is no name"),
    "id of two lines": (spoiled("id", "a\nb"), r"t\.csv:3: 'a\\nb' is no name"),
    "label with a comma": (spoiled("label", "good, bad"), r"t\.csv:3: label 'good, bad' must be"),
    "labels but for case": (spoiled("label", "Good"), "differ in case alone"),
    "column id is missing": (edit("t.csv", "image", "picture"), r"t\.csv:1: column image is missing .*picture"),
    "column twice": (edit("t.csv", "extra", "text"), r"t\.csv:1: column text is there twice"),
    "a cell too many": (edit("t.csv", "plain,", "plain,more,"), r"t\.csv:8: 6 cells, .* 5 columns"),
    "a quote left open": (edit("t.csv", '"so happy, today"', '"so happy, today'), r"t\.csv:2: .*"),
    "no rows": (rewrite(b"id,image,text,label\n"), "has no samples"),
    "nothing": (rewrite(b""), "column id is missing"),
    "no text": (rewrite(b"\xff\xff\xff"), "cannot be decoded: .*--encoding"),
    "another suffix": (lambda folder: (folder / "t.csv").rename(folder / "t.xlsx"), r"no file .*t\.csv"),
    "one label": (edit("t.csv", "bad", "good"), "1 labels"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_reported_in_one_line(tmp_path: Path, case: str) -> None:
    path = write_csv(make_frame(tmp_path), tmp_path / "t.csv")
    spoil, message = BAD[case]
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(path)
    assert "\n" not in str(caught.value)


def test_what_is_odd_in_a_parquet_file_is_named(tmp_path: Path) -> None:
    frame = make_frame(tmp_path)
    path = write_parquet(frame.assign(image=[*frame["image"][:7], "/x"]), tmp_path / "t")
    with pytest.raises(InputError, match=r"t\.parquet:row 8: image '/x'"):
        read_dataset(path)
    frame.assign(image=[b"bytes"] * 8).to_parquet(path)
    with pytest.raises(InputError, match=r"row 1: column image holds bytes: expected texts"):
        read_dataset(path)
    nan = pa.table({"id": ["a", "b"], "image": list(frame["image"][:2]), "text": ["x", "y"], "label": [1.0, math.nan]})
    parquet.write_table(nan, path)
    assert [sample.label for sample in read_dataset(path, labels=["1", "2"]).samples] == [0, None]
    whole = path.read_bytes()
    parquet.write_table(nan, path, compression="none", use_dictionary=False)
    no_text = path.read_bytes().replace(b"image", b"ima\xd6e")
    for content in (whole[: len(whole) // 2], b"", whole[:100] + b"\0" * 200 + whole[300:], no_text):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.parquet (cannot be read|is damaged)"):
            read_dataset(path)
    (tmp_path / "t.txt").write_text("no table")
    with pytest.raises(InputError, match=r"expected a folder, or a \.csv"):
        read_dataset(tmp_path / "t.txt")
    with pytest.raises(InputError, match=r"no train\.txt in .*t\.parquet: expected a folder"):
        read_dataset(path, layout="reference")
