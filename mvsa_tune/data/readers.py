"""Labels and their order; what the readers of all layouts share; the layouts of the reference and of Cheema et al."""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mvsa_tune.data.lists import (
    LFS,
    UNDECODABLE,
    check_fetched,
    decode,
    find_columns,
    is_pointer,
    levels,
    read_records,
    read_table,
)  # fmt: skip
from mvsa_tune.errors import InputError, counted, some
from mvsa_tune.files import is_file_name

LABELS = ("negative", "neutral", "positive")  # the reference's, in its order
# Sentiments from one end to the other: labels that are all among these are put in this order.
SCALE = ("very negative", *LABELS, "very positive")
MAX_CLASSES = 256  # predicted classes are stored as bytes


def order_labels(
    requested: Sequence[str], layout_labels: Sequence[str], labels: Collection[str]
) -> tuple[tuple[str, ...], str]:
    """Return the classes in their order, and the name of that order.

    They are the `requested` labels, else the layout's (empty where it takes any), else the samples' `labels`, sorted.

    Raises:
        InputError: a label cannot be shown in tables or is there twice, or there are not 2 to 256 classes.
    """
    if requested:
        classes, order = tuple(requested), "the order of --labels"
    elif layout_labels:
        classes, order = tuple(layout_labels), "the layout's order"
    elif all(_plain(label) in SCALE for label in labels):
        classes, order = tuple(sorted(labels, key=lambda label: SCALE.index(_plain(label)))), "the usual order"
    elif all(_number(label) is not None for label in labels):
        classes, order = tuple(sorted(labels, key=lambda label: (_number(label), label))), "numerical order"
    else:
        classes, order = tuple(sorted(labels)), "alphabetical order"
    if classes:
        _check(classes)
    return classes, order


def is_label(label: str) -> bool:
    """Return whether a label fits into lists and tables: printable, not empty, no commas, bars or outer spaces."""
    return bool(label) and label.isprintable() and label == label.strip() and not set(label) & set(",|")


def unknown_labels(labels: Collection[str]) -> set[str]:
    """Return those of the labels that say that a label is not known: NaN, null and, beside known classes, None or -1.

    Beside other words None is a class; so is -1 beside numbers, unless these are 0, 1, 2 and so on.
    """
    unknown = {label for label in labels if label.casefold() in {"nan", "null", "none", "-1"}}
    others = {_plain(label) for label in labels} - {_plain(label) for label in unknown}
    counted = len(others) > 2 and others == set(map(str, range(len(others))))
    if not (others <= set(SCALE) or counted):
        unknown -= {label for label in unknown if label.casefold() == "none"}
    if not counted and any(_number(label) is not None for label in others):
        unknown.discard("-1")
    return unknown


def _check(classes: Sequence[str]) -> None:
    unfit = [repr(label) for label in classes if not is_label(label)]
    if unfit:
        raise InputError(f"labels {some(unfit)}: a label must be printable, without a comma or a bar")
    plain = [_plain(label) for label in classes]
    alike = [label for label in classes if plain.count(_plain(label)) > 1]
    if alike:
        raise InputError(f"labels {some(alike)} are one label twice, or differ in case alone: write them alike")
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise InputError(f"{len(classes)} labels ({some(list(classes))}): there must be from 2 to {MAX_CLASSES}")


def _plain(label: str) -> str:
    return label.casefold().replace("_", " ").replace("-", " ") if _number(label) is None else label


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


TRAIN_LIST, UNLABELLED_LIST, CHEEMA_LIST = "train.txt", "test_without_label.txt", "valid_pairlist.txt"
CHEEMA_LABELS = {"0": "neutral", "1": "positive", "2": "negative"}
LIST_FOLDERS = (".", "label", "labels", "lists")  # of a data set
PAIR_FOLDERS = ("data", "data/pics_texts_pair", ".")  # looked in first
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")


@dataclass(frozen=True)
class Reading:
    """How to read a data set, besides its layout."""

    encoding: str = ""  # of the files that are not UTF-8; empty to choose it for each
    merge: str = "majority"  # of the original release's labels, a name in `release.MERGES`
    labels: tuple[str, ...] = ()  # the classes that are requested


class Line(NamedTuple):
    """A line of a list: `label` is None where it has none, `position` is `FILE:LINE`."""

    guid: str
    label: str | None
    position: str


class Pair(NamedTuple):
    """A line of a list with the pair that it names; `encoding` is the text file's, as `decode` returns it."""

    line: Line
    picture: Path
    text: str
    encoding: str


@dataclass(frozen=True)
class Listing:
    """The pairs of a data set, as its layout lists them."""

    pairs: Sequence[Pair]  # in the order of the list
    labels: tuple[str, ...] = ()  # the layout's labels in its order; empty where it takes any
    dropped: Mapping[str, str] = field(default_factory=dict)  # by guid: why the layout's rules drop a pair
    name: str = ""  # of the data set, where the layout tells
    notes: Sequence[str] = ()  # what was not taken as it stands, a line each


@dataclass(frozen=True)
class Layout:
    """A way to store a data set on disk."""

    expected: str  # its files, in words
    matches: Callable[[Path], bool]  # whether a folder has it
    read: Callable[[Path, Reading], Listing]  # reads what `source` returns
    source: Callable[[Path], Path] = lambda folder: folder  # a folder → where its data is: itself, or a file in it


def read_lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Return an iterator over `(FILE:LINE, line)`; InputError if the file is missing (`expected` is)."""
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}: expected {expected}")
    return ((f"{path}:{number}", line) for number, line in enumerate(read_table(path).splitlines(), start=1))


def find_list(folder: Path, name: str) -> Path | None:
    """Return the path of a list in a data set's folder, or in that folder's `label/`; None if there is none."""
    return next((path for place in LIST_FOLDERS if (path := folder / place / name).is_file()), None)


def read_list(
    folder: Path, name: str, expected: str, encoding: str, separators: str = ",;\t"
) -> Iterator[tuple[str, list[str]]]:
    """Return an iterator over `(FILE:LINE, cells)` of a list; InputError if the file is missing (`expected` is)."""
    path = find_list(folder, name)
    if path is None:
        raise InputError(f"no {name} in {folder}: expected {expected}")
    records = read_records(path, encoding, separators)
    return ((position, [cell.strip().strip("\"'").strip() for cell in cells]) for position, cells in records)


def add_line(lines: dict[str, Line], line: Line, *, file_name: bool = True) -> None:
    """Add a line to those read so far, by guid.

    Raises:
        InputError: the guid or the label is malformed, or the guid is listed twice. A guid that is a `file_name` may
            not leave its folder.
    """
    guid, label, position = line
    if file_name and not is_file_name(guid):
        raise InputError(f"{position}: guid {guid!r} is not a plain file name; it may not leave the data folder")
    if not guid or not guid.isprintable():
        raise InputError(f"{position}: {guid!r} is no name for a sample; it must be one printable line, and not empty")
    if guid in lines:
        raise InputError(f"{position}: guid {guid} is listed twice ({lines[guid].position} has it too); keep one line")
    if label is not None and not is_label(label):
        raise InputError(f"{position}: label {label!r} must be printable and not empty, without a comma or a bar")
    lines[guid] = line


def read_pairs(folder: Path, lines: Iterable[Line], encoding: str = "") -> list[Pair]:
    """Return the pairs of a list's lines: a picture and a text, GUID.jpg and GUID.txt, in `folder` or below it.

    Raises:
        InputError: a picture or a text is missing, or a Git-LFS pointer.
    """
    lines = list(lines)
    first = [folder / name for name in PAIR_FOLDERS]
    pictures = _find_files(chain(first, chain.from_iterable(levels(folder))), lines, "picture", PICTURES)
    first = [pictures[0].parent, *first] if pictures else first
    texts = _find_files(chain(first, chain.from_iterable(levels(folder))), lines, "text", (".txt",))
    contents = [path.read_bytes() for path in texts]
    pointers = [path for path, content in zip(texts, contents, strict=True) if content.startswith(LFS)]
    check_fetched(pointers + [path for path in pictures if is_pointer(path)])
    read = (read_text(content, encoding) for content in contents)
    return [Pair(line, picture, *text) for line, picture, text in zip(lines, pictures, read, strict=True)]


def _find_files(folders: Iterable[Path], lines: Sequence[Line], kind: str, suffixes: Sequence[str]) -> list[Path]:
    """Return the file of each line in the first folder that has all of them; InputError if none has."""
    looked: dict[Path, dict[str, Path]] = {}
    for folder in folders:
        if folder not in looked:
            looked[folder] = _by_stem(folder, suffixes)
        if all(line.guid in looked[folder] for line in lines):
            return [looked[folder][line.guid] for line in lines]
    best = max(looked, key=lambda folder: sum(line.guid in looked[folder] for line in lines))
    missing = [line for line in lines if line.guid not in looked[best]]
    first_line = lines[0].position.endswith(":1")
    if first_line and missing[0] is lines[0] and Counter(line.label for line in lines)[lines[0].label] == 1:
        raise InputError(
            f"{lines[0].position}: there is no {kind} {lines[0].guid}{suffixes[0]}: if this line is a heading, call "
            "its columns guid and tag"
        )
    where = str(best) if len(missing) < len(lines) else f"any of {some(list(map(str, looked)), 12)}"
    raise InputError(
        f"{len(missing):,} of {counted(len(lines), 'sample')} {'has' if len(missing) == 1 else 'have'} no {kind} in "
        f"{where}: {some([line.guid + suffixes[0] for line in missing])}; add the files or take the guids off the list"
    )


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return a folder's files with these suffixes in any case, by their names without; the first suffix counts most."""
    files: dict[str, dict[str, Path]] = {suffix: {} for suffix in suffixes}
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(tuple(files)) and entry.is_file())
    for name in names:
        stem, _, suffix = name.rpartition(".")
        files[f".{suffix.lower()}"][stem] = folder / name
    return {stem: path for suffix in reversed(suffixes) for stem, path in files[suffix].items()}


def read_text(content: bytes, encoding: str = "") -> tuple[str, str]:
    """Return a text and its encoding as `decode` does; what cannot be decoded has signs replaced, and none."""
    try:
        return decode(content, encoding)
    except UnicodeDecodeError:
        return content.decode(errors="replace"), UNDECODABLE


def _read_reference(folder: Path, reading: Reading) -> Listing:
    """Read the two lists, or one of them if the other is missing; labels in the unlabelled list are not read."""
    lines: dict[str, Line] = {}
    notes = []
    names = [name for name in (TRAIN_LIST, UNLABELLED_LIST) if find_list(folder, name)]
    for name in names or [TRAIN_LIST]:
        labelled = name == TRAIN_LIST
        rows = _guids_and_tags(list(read_list(folder, name, REFERENCE.expected, reading.encoding)), labelled)
        for guid, label, position in rows:
            add_line(lines, Line(guid, label if labelled else None, position))
        filled = sum(bool(label) and label not in unknown_labels([label]) for _, label, _ in rows)
        if filled and not labelled:
            notes.append(f"{find_list(folder, name)}: {counted(filled, 'label')} in this list ignored")
    return Listing(read_pairs(folder, lines.values(), reading.encoding), LABELS, notes=notes)


def _guids_and_tags(records: Sequence[tuple[str, list[str]]], labelled: bool) -> list[tuple[str, str, str]]:
    """Return the guid, the label and the position of each line; a heading says which columns these are."""
    records = [(position, cells) for position, cells in records if cells]
    heading = records[0][1] if records else []
    columns, width = [0, 1], 2
    if guids := find_columns(heading, "id"):
        columns, width = [*guids[:1], *find_columns(heading, "label")[:1]], len(heading)
        if labelled and len(columns) < 2:
            raise InputError(f"{records[0][0]}: no column tag or label among {some(heading)}: expected guid,tag")
        records = records[1:]
    rows = []
    for position, cells in records:
        if labelled and len(cells) != width:
            raise InputError(
                f"{position}: {','.join(cells)!r} is not `guid,tag`"
                + (": name its columns in the first line" if len(cells) > width else "")
            )
        guid, label, *_ = *(cells[index] if index < len(cells) else "" for index in columns), ""
        rows.append((guid, label, position))
    # A spreadsheet or pandas wrote the guids as numbers.
    if all(re.fullmatch(r"\d+(\.0)?", guid) for guid, _, _ in rows):
        rows = [(guid.removesuffix(".0"), label, position) for guid, label, position in rows]
    return rows


def _read_cheema(folder: Path, reading: Reading) -> Listing:
    """Read the list, to whose lines split files refer by number, from 0. A pair's label is its multimodal one."""
    lines: dict[str, Line] = {}
    blank = ""
    for position, cells in read_list(folder, CHEEMA_LIST, CHEEMA.expected, reading.encoding):
        if not cells:
            blank = blank or position
            continue
        guid, *labels = cells
        if blank:
            raise InputError(f"{blank}: a blank line; the split files count lines, so take it out")
        if not lines and guid.casefold() == "file_id":
            continue
        if len(labels) != 3 or not set(labels) <= CHEEMA_LABELS.keys():
            raise InputError(
                f"{position}: {','.join(cells)!r} is not `file_id,multimodal,text,image` with labels 0, 1 or 2"
            )
        add_line(lines, Line(guid, CHEEMA_LABELS[labels[0]], position))
    return Listing(read_pairs(folder, lines.values(), reading.encoding), LABELS)


REFERENCE = Layout(
    f"a folder with {TRAIN_LIST} (lines `guid,tag`; tag one of {', '.join(LABELS)}), optionally {UNLABELLED_LIST} "
    "(`guid,null`), and the pairs GUID.jpg and GUID.txt in its data/",
    lambda folder: bool(find_list(folder, TRAIN_LIST) or find_list(folder, UNLABELLED_LIST)),
    _read_reference,
)
# Cheema et al. 2021, arXiv:2106.08829.
CHEEMA = Layout(
    f"the files of Cheema et al.: {CHEEMA_LIST} (lines `file_id,multimodal,text,image`; 0 neutral, 1 positive, 2 "
    "negative), and the pairs ID.jpg and ID.txt in its data/, or in images/ and texts/",
    lambda folder: bool(find_list(folder, CHEEMA_LIST)),
    _read_cheema,
)
