"""Data as it lies on people's disks: the same pairs in other folders, under other headings, in other encodings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import TAGS, make_set
from mvsa_tune.cli import main
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.readers import LABELS, unknown_labels
from mvsa_tune.errors import InputError

TRAIN, TEST = "train.txt", "test_without_label.txt"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


@pytest.mark.parametrize("label", ["NaN", "nan", "None", "NULL", "null", ""])
def test_an_unlabelled_list_may_say_in_any_word_that_it_has_no_label(tmp_path: Path, label: str) -> None:
    plain = read_dataset(make_set(tmp_path))
    (tmp_path / TEST).write_text((tmp_path / TEST).read_text().replace(",null", f",{label}"))
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint and not dataset.notes


@pytest.mark.parametrize("lines", ["guid\n140\n141\n142\n143\n", "140\n141\n142\n143\n"])
def test_an_unlabelled_list_may_have_guids_alone(tmp_path: Path, lines: str) -> None:
    plain = read_dataset(make_set(tmp_path))
    (tmp_path / TEST).write_text(lines)
    assert read_dataset(tmp_path).fingerprint == plain.fingerprint


def test_labels_that_somebody_predicted_are_ignored_with_a_line_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = read_dataset(make_set(tmp_path))
    lines = ["guid,tag,score", "140,positive,0.9", "141,negative,0.5", "142,,", "143,neutral,0.4"]
    (tmp_path / TEST).write_text("\n".join(lines))
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint
    line = f"{tmp_path / TEST}: 3 labels in this list ignored"
    assert dataset.description()[-1] == line
    assert main(["embed", "--data", str(tmp_path), "--encoder", "demo-words"]) == 0
    assert line in capsys.readouterr().out


def rows(form: str, heading: str = "") -> Callable[[str], str]:
    """Return a function that writes a list's lines in a form of `row`, `guid` and `tag`."""

    def write(text: str) -> str:
        pairs = [line.split(",") for line in text.splitlines()[1:]]
        lines = [form.format(row=row, guid=guid, tag=tag) for row, (guid, tag) in enumerate(pairs)]
        return "\n".join([heading, *lines] if heading else lines) + "\n"

    return write


LISTS = {
    "heading with a space": rows("{guid}, {tag}", "guid, tag"),
    "label": rows("{guid},{tag}", "guid,label"),
    "capitals": rows("{guid},{tag}", "GUID,TAG"),
    "id": rows("{guid},{tag}", "id,label"),
    "quotes": rows('"{guid}","{tag}"', '"guid","tag"'),
    "quotes after a space": rows('"{guid}", "{tag}"', '"guid", "tag"'),
    "single quotes": rows("'{guid}','{tag}'"),
    "tabs": rows("{guid}\t{tag}", "guid\ttag"),
    "tabs and no heading": rows("{guid}\t{tag}"),
    "semicolons": rows("{guid};{tag}", "guid;tag"),
    "an index": rows("{row},{guid},{tag}", ",guid,tag"),
    "an index with a name": rows("{row},{guid},{tag}", "Unnamed: 0,guid,tag"),
    "the other order": rows("{tag},{guid}", "tag,guid"),
    "more columns": rows("{guid},x,{tag},y", "guid,a,tag,b"),
    "decimals": rows("{guid}.0,{tag}", "guid,tag"),
    "some decimals": lambda text: text.replace("01,", "01.0,"),
    "blank lines": rows("{guid},{tag}\n\n", "guid,tag"),
    "empty cells at the end": rows("{guid},{tag},", "guid,tag,"),
    "labels in capitals": lambda text: text.replace("negative", "Negative").replace("neutral", "NEUTRAL"),
}


@pytest.mark.parametrize("form", LISTS)
def test_a_list_is_read_whatever_wrote_it(tmp_path: Path, form: str) -> None:
    plain = read_dataset(make_set(tmp_path))
    for name in (TRAIN, TEST):
        (tmp_path / name).write_text(LISTS[form]((tmp_path / name).read_text()))
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint and dataset.guids == plain.guids


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030", "cp1252"])
def test_a_list_may_be_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    guid = "天气很好" if encoding != "cp1252" else "é"
    folder = make_set(tmp_path)
    for suffix in ("jpg", "txt"):
        (folder / "data" / f"101.{suffix}").rename(folder / "data" / f"{guid}.{suffix}")
    text = (folder / TRAIN).read_text().replace("101,", f"{guid},").replace("\n", "\r\n")
    (folder / TRAIN).write_bytes(text.encode(encoding))
    assert read_dataset(folder).guids[:3] == ["100", guid, "102"]


BAD_LISTS = {
    "an unknown heading": (rows("{guid},{tag}", "name,class"), r"train\.txt:1: there is no picture name\.jpg: .*head"),
    "no label": (rows("{guid},{tag}", "guid,split"), r"train\.txt:1: no column tag or label among guid, split"),
    "an index and no heading": (rows("{row},{guid},{tag}"), r"train\.txt:1: '0,100,neg.*: name its columns in the f"),
    "guids alone": (rows("{guid}"), r"train\.txt:1: '100' is not `guid,tag`"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_what_a_list_lacks_is_said_of_its_heading(tmp_path: Path, case: str) -> None:
    folder = make_set(tmp_path)
    write, message = BAD_LISTS[case]
    (folder / TRAIN).write_text(write((folder / TRAIN).read_text()))
    with pytest.raises(InputError, match=message):
        read_dataset(folder)


def moved(folder: Path, pictures: str, texts: str, lists: str = ".", suffix: str = ".jpg") -> None:
    """Put a set's files elsewhere in its folder."""
    (folder / "data").rename(folder / "before")
    for name in {pictures, texts, lists}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in (folder / "before").iterdir():
        name = path.stem + (suffix if path.suffix == ".jpg" else ".txt")
        path.rename(folder / (pictures if path.suffix == ".jpg" else texts) / name)
    (folder / "before").rmdir()
    for name in (TRAIN, TEST):
        (folder / name).rename(folder / lists / name)


FOLDERS = {
    "img and text below data": ("data/img", "data/text"),
    "images and texts": ("images", "texts"),
    "pictures and tweets": ("pictures", "tweets"),
    "lists in label": ("data", "data", "label"),
    "two levels down": ("MVSA/data", "MVSA/data"),
    "capitals": ("data", "data", ".", ".JPG"),
    "jpeg": ("data", "data", ".", ".jpeg"),
    "png": ("data", "data", ".", ".png"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_the_pairs_are_found_in_the_folders_below(tmp_path: Path, case: str) -> None:
    fingerprint = read_dataset(make_set(tmp_path)).fingerprint
    moved(tmp_path, *FOLDERS[case])
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == fingerprint and dataset.folder == tmp_path
    assert dataset.samples[0].picture.parent == tmp_path / FOLDERS[case][0]


@pytest.mark.parametrize("below", ["实验五数据", "实验五数据/实验五数据"])
def test_a_set_one_or_two_levels_down_is_found_beside_what_macs_leave(tmp_path: Path, below: str) -> None:
    plain = read_dataset(make_set(tmp_path / below))
    litter = tmp_path / "__MACOSX" / below
    (litter / "data").mkdir(parents=True)
    (litter / "train.txt").write_text("guid,tag\n1,positive\n")
    for folder in (litter / "data", tmp_path / below / "data"):
        (folder / "._100.jpg").write_bytes(b"\0\5\x16\7")
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint and dataset.folder == tmp_path / below
    assert dataset.samples[0].picture.name == "100.jpg"


def test_the_first_of_two_files_of_a_pair_is_the_jpg(tmp_path: Path) -> None:
    folder = make_set(tmp_path)
    (folder / "data" / "100.png").write_bytes(b"another")
    assert read_dataset(folder).samples[0].picture.name == "100.jpg"


def test_every_place_that_was_looked_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match="none of the known layouts") as caught:
        read_dataset(tmp_path)
    assert str(caught.value).endswith(f"Looked in {tmp_path}, {tmp_path / 'a'}, {tmp_path / 'a' / 'b'}")
    make_set(tmp_path / "a", pairs="elsewhere/too/deep")
    with pytest.raises(InputError, match=r"44 of 44 samples have no picture in any of .*a/data, .*a/elsewhere/too: "):
        read_dataset(tmp_path)


def test_of_two_sets_below_one_must_be_named(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_set(tmp_path / name)
    with pytest.raises(InputError, match=r"several data sets: name one with --data \(.*first, .*second\)"):
        read_dataset(tmp_path)


def records(folder: Path, *, image: str = "data/{}.jpg", unknown: object = None) -> list[dict[str, object]]:
    """Return the pairs of `make_set` as objects, their texts among them."""
    dataset = read_dataset(make_set(folder))
    for name in (TRAIN, TEST):
        (folder / name).unlink()
    labels = [unknown if sample.label is None else LABELS[sample.label] for sample in dataset.samples]
    return [
        {"guid": sample.guid, "text": sample.text, "label": label, "img": image.format(sample.guid)}
        for sample, label in zip(dataset.samples, labels, strict=True)
    ]


def as_json(pairs: list[dict[str, object]]) -> bytes:
    return json.dumps(pairs, ensure_ascii=False, indent=1).encode()


def as_lines(pairs: list[dict[str, object]]) -> bytes:
    return "\n".join(json.dumps(pair) for pair in pairs).encode()


def as_csv(pairs: list[dict[str, object]], separator: str = ",", heading: str = "guid,text,label,img") -> bytes:
    lines = [heading.replace(",", separator)]
    lines += [separator.join("" if value is None else str(value) for value in pair.values()) for pair in pairs]
    return "\n".join(lines).encode()


TABLES = {
    "set.json": as_json,
    "set.jsonl": as_lines,
    "lines.json": as_lines,
    "marked.json": lambda pairs: b"\xef\xbb\xbf" + as_json(pairs),
    "set.csv": as_csv,
    "marked.csv": lambda pairs: b"\xef\xbb\xbf" + as_csv(pairs),
    "semicolons.csv": lambda pairs: as_csv(pairs, ";"),
    "tabs.tsv": lambda pairs: as_csv(pairs, "\t"),
    "capitals.csv": lambda pairs: as_csv(pairs, heading="ID,Text,Label,Image"),
    "utf16.csv": lambda pairs: as_csv(pairs).decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("image", ["data/{}.jpg", "data\\{}.jpg", "./data/{}.jpg"])
def test_a_table_is_read_whatever_wrote_it(tmp_path: Path, name: str, image: str) -> None:
    plain = read_dataset(make_set(tmp_path))
    pairs = records(tmp_path, image=image)
    (tmp_path / name).write_bytes(TABLES[name](pairs))
    dataset = read_dataset(tmp_path / name)
    assert dataset.layout == "table" and dataset.fingerprint == plain.fingerprint and not dataset.notes
    if name != "utf16.csv":
        assert read_dataset(tmp_path).folder == tmp_path / name


def test_a_csv_of_gbk_is_read(tmp_path: Path) -> None:
    pairs = records(tmp_path)
    pairs[0]["text"] = "天气很好"
    (tmp_path / "set.csv").write_bytes(as_csv(pairs).decode().encode("gbk"))
    assert read_dataset(tmp_path).samples[0].text == "天气很好"


def test_a_row_of_json_may_lack_its_label_and_a_broken_one_is_named(tmp_path: Path) -> None:
    pairs = records(tmp_path)
    del pairs[-1]["label"]
    path = tmp_path / "set.json"
    path.write_bytes(as_json(pairs))
    assert read_dataset(path).samples[-1].label is None
    for content, message in {
        as_lines(pairs)[:-3]: r"set\.json:44 is not JSON .*expected a list of objects, or an object a line",
        as_json(pairs)[:-3]: r"set\.json is not JSON",
        b"[1, 2]": r"set\.json:row 1 is not an object",
        b"[" * 200_000: r"set\.json is not JSON",
        as_lines([{**pairs[0], "img": ["a"]}]): r"set\.json:1: img holds list: expected texts",
    }.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_dataset(path)


UNKNOWN = {
    ("negative", "positive", "-1"): {"-1"},
    ("0", "1", "2", "-1"): {"-1"},
    ("-1", "0", "1"): set(),
    ("-2", "-1", "0", "1", "2"): set(),
    ("irony", "none", "NaN"): {"NaN"},
    ("negative", "None", "null"): {"None", "null"},
    ("0", "1", "2", "None"): {"None"},
}


@pytest.mark.parametrize("labels", UNKNOWN)
def test_which_labels_say_that_a_label_is_not_known(labels: tuple[str, ...]) -> None:
    assert unknown_labels(labels) == UNKNOWN[labels]


def test_minus_one_is_not_known_beside_words_unless_it_is_requested(tmp_path: Path) -> None:
    plain = read_dataset(make_set(tmp_path))
    (tmp_path / "set.jsonl").write_bytes(as_lines(records(tmp_path, unknown=-1)))
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint
    assert dataset.notes == ["4 labels -1: read as not known; --labels A,B,… with it among them makes it a class"]
    assert read_dataset(tmp_path, labels=[*TAGS, "-1"]).labels[-4:] == [3] * 4


def test_swapped_columns_are_named_and_a_column_of_paths_is_a_warning(tmp_path: Path) -> None:
    pairs = records(tmp_path)
    path = tmp_path / "set.csv"
    path.write_bytes(as_csv(pairs, heading="guid,img,label,text"))
    with pytest.raises(InputError, match=r"column image has 'tweet 100', the column text 'data/100\.jpg': swap"):
        read_dataset(path)
    texts = [{**pair, "text": f"data/{pair['guid']}.txt"} for pair in pairs]
    path.write_bytes(as_csv(texts, heading="guid,img,label,text"))
    with pytest.raises(InputError, match=r"image has 'data/100\.txt', the column text 'data/100\.jpg': swap"):
        read_dataset(path)
    path.write_bytes(as_csv([{**pair, "text": f"data/{pair['guid']}.text"} for pair in pairs]))
    assert [note[:45] for note in read_dataset(path).notes] == ["warning: every text is a path (data/100.text)"]
    path.write_bytes(as_csv(texts))
    assert not read_dataset(path).notes and read_dataset(path).samples[0].text == "tweet 100"


LFS = {
    "lists": ([TRAIN], r"1 Git-LFS pointer instead.*git lfs pull.*train\.txt"),
    "a text": (["data/103.txt"], r"1 Git-LFS pointer instead.*git lfs pull.*103\.txt"),
    "pictures": (["data/101.jpg", "data/102.jpg"], r"2 Git-LFS pointers instead.*data \(101\.jpg, 102\.jpg\)"),
}


@pytest.mark.parametrize("case", LFS)
def test_what_git_lfs_has_not_fetched_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make_set(tmp_path)
    names, message = LFS[case]
    for name in names:
        (folder / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["set.csv", "set.json", "set.parquet", "data/100.jpg"])
def test_a_table_that_git_lfs_has_not_fetched_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    pairs = records(tmp_path)
    (tmp_path / "set.csv").write_bytes(as_csv(pairs))
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(InputError, match="1 Git-LFS pointer instead"):
        read_dataset(tmp_path / (name if "/" not in name else "set.csv"))


def test_the_real_set_is_the_same_in_other_folders(real: Path, tmp_path: Path) -> None:
    plain = read_dataset(real)
    below = tmp_path / "实验五数据" / "实验五数据"
    (below / "label").mkdir(parents=True)
    (below / "data").symlink_to(real / "data")
    shutil.copy(real / TRAIN, below / "label")
    predicted = (real / TEST).read_text().replace("null", "positive")
    (below / "label" / TEST).write_text(predicted)
    dataset = read_dataset(tmp_path)
    assert dataset.fingerprint == plain.fingerprint
    assert dataset.notes[0].endswith("511 labels in this list ignored")
