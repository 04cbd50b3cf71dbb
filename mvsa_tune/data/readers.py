"""Labels and their order; what the readers of all layouts share; the layouts of the reference and of Cheema et al."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mvsa_tune.errors import InputError, some
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


# Where copies of MVSA keep the pictures and the texts, below the folder of the lists.
PAIR_FOLDERS = (("data", "data"), ("data/pics_texts_pair",) * 2, (".", "."), ("images", "texts"))
TRAIN_LIST, UNLABELLED_LIST, CHEEMA_LIST = "train.txt", "test_without_label.txt", "valid_pairlist.txt"
CHEEMA_LABELS = {"0": "neutral", "1": "positive", "2": "negative"}


class Line(NamedTuple):
    """A line of a list: `label` is None where it has none, `position` is `FILE:LINE`."""

    guid: str
    label: str | None
    position: str


class Pair(NamedTuple):
    """A line of a list with the pair that it names; `encoding` is the text file's, `utf-8` or `gb18030`."""

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


@dataclass(frozen=True)
class Layout:
    """A way to store a data set on disk."""

    expected: str  # its files, in words
    matches: Callable[[Path], bool]  # whether a folder has it
    read: Callable[[Path], Listing]  # reads what `source` returns
    source: Callable[[Path], Path] = lambda folder: folder  # a folder → where its data is: itself, or a file in it


def read_lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Return an iterator over `(FILE:LINE, line)`; InputError if the file is missing (`expected` is), or not UTF-8."""
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}: expected {expected}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: convert it") from None
    return ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1))


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


def read_pairs(folder: Path, lines: Iterable[Line]) -> list[Pair]:
    """Return the pairs GUID.jpg and GUID.txt of a list's lines; InputError if one is missing or cannot be decoded."""
    lines = list(lines)
    folders = {name: folder / name for names in PAIR_FOLDERS for name in names}
    files = {name: _file_names(path) for name, path in folders.items()}
    best = max(PAIR_FOLDERS, key=lambda names: sum(f"{line.guid}.jpg" in files[names[0]] for line in lines))
    for kind, suffix, name in (("picture", ".jpg", best[0]), ("text", ".txt", best[1])):
        missing = [line.guid + suffix for line in lines if line.guid + suffix not in files[name]]
        if missing:
            raise InputError(
                f"{len(missing):,} of {len(lines):,} samples have no {kind} in {folders[name]}: {some(missing)}; "
                "add the files or take the guids off the list"
            )
    pictures, texts = (folders[name] for name in best)
    return [Pair(line, pictures / f"{line.guid}.jpg", *read_text(texts / f"{line.guid}.txt")) for line in lines]


def _file_names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_file()} if folder.is_dir() else set()


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's text and its encoding: UTF-8, else GB18030 (MVSA has both); InputError if it is neither."""
    content = path.read_bytes()
    for encoding in ("utf-8", "gb18030"):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path} is neither UTF-8 nor GB18030: convert it to UTF-8")


def _read_reference(folder: Path) -> Listing:
    """Read the two lists, or one of them if the other is missing."""
    lines: dict[str, Line] = {}
    names = [name for name in (TRAIN_LIST, UNLABELLED_LIST) if (folder / name).exists()]
    for name in names or [TRAIN_LIST]:
        labelled = name == TRAIN_LIST
        for position, text in read_lines(folder / name, REFERENCE.expected):
            if not text.strip() or (position.endswith(":1") and text.replace(" ", "") == "guid,tag"):
                continue
            guid, comma, label = (part.strip() for part in text.partition(","))
            if not comma:
                raise InputError(f"{position}: {text!r} is not `guid,tag`")
            if not labelled and label not in {"null", ""}:
                raise InputError(
                    f"{position}: label {label!r} in the unlabelled list; labelled samples belong in {TRAIN_LIST}"
                )
            add_line(lines, Line(guid, label if labelled else None, position))
    return Listing(read_pairs(folder, lines.values()), LABELS)


def _read_cheema(folder: Path) -> Listing:
    """Read the list, to whose lines split files refer by number, from 0. A pair's label is its multimodal one."""
    lines: dict[str, Line] = {}
    blank = ""
    for position, text in read_lines(folder / CHEEMA_LIST, CHEEMA.expected):
        guid, *labels = (cell.strip() for cell in text.split(","))
        if not text.strip():
            blank = blank or position
            continue
        if blank:
            raise InputError(f"{blank}: a blank line; the split files count lines, so take it out")
        if not lines and guid.casefold() == "file_id":
            continue
        if len(labels) != 3 or not set(labels) <= CHEEMA_LABELS.keys():
            raise InputError(f"{position}: {text!r} is not `file_id,multimodal,text,image` with labels 0, 1 or 2")
        add_line(lines, Line(guid, CHEEMA_LABELS[labels[0]], position))
    return Listing(read_pairs(folder, lines.values()), LABELS)


REFERENCE = Layout(
    f"a folder with {TRAIN_LIST} (lines `guid,tag`; tag one of {', '.join(LABELS)}), optionally {UNLABELLED_LIST} "
    "(`guid,null`), and the pairs GUID.jpg and GUID.txt in its data/",
    lambda folder: (folder / TRAIN_LIST).exists() or (folder / UNLABELLED_LIST).exists(),
    _read_reference,
)
# Cheema et al. 2021, arXiv:2106.08829.
CHEEMA = Layout(
    f"the files of Cheema et al.: {CHEEMA_LIST} (lines `file_id,multimodal,text,image`; 0 neutral, 1 positive, 2 "
    "negative), and the pairs ID.jpg and ID.txt in its data/, or in images/ and texts/",
    lambda folder: (folder / CHEEMA_LIST).is_file(),
    _read_cheema,
)
