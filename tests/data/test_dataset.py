from pathlib import Path

import pytest

from conftest import make_set
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.errors import InputError


@pytest.mark.parametrize("pairs", ["data", "data/pics_texts_pair", "."])
def test_pairs_are_found_where_copies_of_the_set_keep_them(tmp_path: Path, pairs: str) -> None:
    dataset = read_dataset(make_set(tmp_path, pairs=pairs))
    assert len(dataset.samples) == 44 and len(dataset.labels) == 40
    assert dataset.guids[:2] == ["100", "101"] and dataset.guids[-1] == "143"
    assert [sample.label for sample in dataset.samples[:4]] == [0, 1, 2, 0]
    assert dataset.samples[-1].label is None
    assert dataset.samples[3].picture == tmp_path / pairs / "103.jpg"


def test_text_is_utf8_else_gb18030_and_no_byte_is_lost(tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "data" / "100.txt").write_bytes("naïve 😀".encode())
    (tmp_path / "data" / "101.txt").write_bytes("天气很好…".encode("gb18030"))
    dataset = read_dataset(tmp_path)
    assert dataset.samples[0].text == "naïve 😀"
    assert dataset.samples[1].text == "天气很好…"
    assert dataset.not_utf8 == ["101"]
    for sample in dataset.samples:
        assert sample.text.encode(sample.encoding) == (tmp_path / "data" / f"{sample.guid}.txt").read_bytes()


def test_a_changed_label_changes_the_fingerprint_and_a_changed_text_both(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    before = read_dataset(folder)
    train = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(train.replace("100,negative", "100,positive"))
    relabelled = read_dataset(folder)
    assert relabelled.fingerprint != before.fingerprint
    assert relabelled.content_fingerprint == before.content_fingerprint
    (folder / "data" / "100.txt").write_text("another tweet")
    assert read_dataset(folder).content_fingerprint != before.content_fingerprint


def test_lists_may_have_a_mark_windows_line_ends_and_no_heading(tmp_path: Path) -> None:
    plain = read_dataset(make_set(tmp_path))
    lines = (tmp_path / "train.txt").read_text().splitlines()[1:]
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    assert read_dataset(tmp_path).fingerprint == plain.fingerprint


def replace_line(folder: Path, old: str, new: str, name: str = "train.txt") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


BAD = {
    "empty list": (lambda f: (f / "train.txt").write_text("guid,tag\n"), "has no labelled samples"),
    "no list": (lambda f: (f / "train.txt").unlink(), r"has no labelled samples: expected a folder with train\.txt"),
    "listed twice": (
        lambda f: replace_line(f, "101,neutral", "100,neutral"),
        r"train\.txt:3: guid 100 is listed twice",
    ),
    "in both lists": (
        lambda f: replace_line(f, "140,null", "100,null", "test_without_label.txt"),
        r"test_without_label\.txt:2: guid 100 is listed twice",
    ),
    "unknown label": (
        lambda f: replace_line(f, "101,neutral", "101,happy"),
        r"train\.txt:3: unknown label 'happy'",
    ),
    "null label": (lambda f: replace_line(f, "101,neutral", "101,null"), "unknown label 'null'"),
    "list of no text": (lambda f: (f / "train.txt").write_bytes(b"\xff\xff\xff"), "cannot be decoded: .*--encoding"),
    "no comma": (lambda f: replace_line(f, "101,neutral", "101 neutral"), "is not `guid,tag`"),
    "guid that climbs": (
        lambda f: replace_line(f, "101,neutral", "../../etc/passwd,neutral"),
        "may not leave the data folder",
    ),
    "guid that is absolute": (
        lambda f: replace_line(f, "101,neutral", "/etc/passwd,neutral"),
        "not a plain file name",
    ),
    "guid of dots": (lambda f: replace_line(f, "101,neutral", "..,neutral"), "not a plain file name"),
    "no picture": (
        lambda f: (f / "data" / "102.jpg").unlink(),
        r"1 of 44 samples has no picture in .*: 102\.jpg",
    ),
    "no text": (lambda f: (f / "data" / "102.txt").unlink(), r"1 of 44 samples has no text in .*: 102\.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_set_is_reported_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make_set(tmp_path)
    spoil, message = BAD[case]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_says_where_the_set_goes_and_that_a_demo_works(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)no data folder .*train\.txt.*GUID\.jpg.*--demo"):
        read_dataset(tmp_path / "nowhere")


def test_the_real_set_is_read_whole(real: Path) -> None:
    dataset = read_dataset(real)
    assert len(dataset.labels) == 4000 and len(dataset.samples) == 4511
    assert [dataset.labels.count(label) for label in range(3)] == [1193, 419, 2388]
    assert len(dataset.not_utf8) == 1061
    assert dataset.guids == (real / "embeddings" / "ids.txt").read_text().split()
    for sample in dataset.samples:
        assert sample.text.encode(sample.encoding) == sample.picture.with_suffix(".txt").read_bytes()
