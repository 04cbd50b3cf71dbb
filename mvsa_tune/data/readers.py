"""The forms that a data set may have on disk, each with its reader, and which of them a folder has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mvsa_tune.data import release
from mvsa_tune.data import table as columns
from mvsa_tune.data.labels import LABELS
from mvsa_tune.data.listing import Line, Listing, check_guid, numbered_lines, read_pairs
from mvsa_tune.errors import InputError

TRAIN_LIST, UNLABELLED_LIST = "train.txt", "test_without_label.txt"
REFERENCE = (
    f"a folder with {TRAIN_LIST} (lines `guid,tag`; tag one of {', '.join(LABELS)}), optionally {UNLABELLED_LIST} "
    "(`guid,null`), and the pairs GUID.jpg and GUID.txt in its data/"
)
CHEEMA_LIST = "valid_pairlist.txt"
CHEEMA = (
    f"the files of Cheema et al.: {CHEEMA_LIST} (lines `file_id,multimodal,text,image`; 0 neutral, 1 positive, 2 negative), and "
    "the pairs ID.jpg and ID.txt in its data/, or in images/ and texts/"
)
CHEEMA_LABELS = {"0": "neutral", "1": "positive", "2": "negative"}


@dataclass(frozen=True)
class Layout:
    """A form.

    Attributes:
        expected: what it is made of, for a person.
        matches: whether a folder has it.
        read: reads it; the flag says whether labels are needed.
        source: what of a folder it is in: that folder, or a file.
    """

    expected: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], Listing]
    source: Callable[[Path], Path] = lambda folder: folder


def read_reference(folder: Path, needs_labels: bool) -> Listing:
    """Read the reference's lists. Unless labels are needed, the unlabelled list alone will do.

    Raises:
        InputError: a list is missing, empty or malformed, a guid listed twice or unsafe as a file name, a picture or text missing.
    """
    unlabelled = (folder / UNLABELLED_LIST).exists()
    alone = not needs_labels and unlabelled and not (folder / TRAIN_LIST).exists()
    listed: dict[str, Line] = {}
    if not alone:
        _read_list(folder / TRAIN_LIST, listed)
        if not listed:
            raise InputError(f"{folder / TRAIN_LIST} lists no samples: expected lines `guid,tag`")
    if unlabelled:
        _read_list(folder / UNLABELLED_LIST, listed)
    return Listing(read_pairs(folder, listed.values()), LABELS)


def _read_list(path: Path, listed: dict[str, Line]) -> None:
    """Add a list's lines to those `listed`, by guid."""
    before = {guid: line.where for guid, line in listed.items()}
    for where, line in numbered_lines(path, REFERENCE):
        if not line.strip() or (where.endswith(":1") and line.replace(" ", "") == "guid,tag"):
            continue
        guid, comma, tag = (part.strip() for part in line.partition(","))
        if not comma:
            raise InputError(f"{where}: {line!r} is not `guid,tag`")
        check_guid(guid, where, before)
        before[guid] = where
        if path.name == UNLABELLED_LIST and tag not in {"null", ""}:
            raise InputError(f"{where}: label {tag!r} in the unlabelled list; labelled samples belong in {TRAIN_LIST}")
        listed[guid] = Line(guid, None if path.name == UNLABELLED_LIST else tag, where)


def read_cheema(folder: Path, needs_labels: bool) -> Listing:
    """Read the files of Cheema et al. (2021, arXiv:2106.08829), whose split files count the lines of the list from 0: the
    multimodal label is the sample's, and every line is one, in order.

    Raises:
        InputError: the list is missing, empty or malformed, has a blank line within (from there on the count would be in doubt), an
            id listed twice or unsafe as a file name, an unknown label, or a picture or text missing.
    """
    lines: list[Line] = []
    seen: dict[str, str] = {}
    blank = ""
    for where, text in numbered_lines(folder / CHEEMA_LIST, CHEEMA):
        cells = [cell.strip() for cell in text.split(",")]
        if not text.strip():
            blank = blank or where
            continue
        if blank:
            raise InputError(f"{blank}: a blank line; the split files count lines, so take it out")
        if not lines and cells[0].casefold() == "file_id":
            continue
        if len(cells) != 4 or not set(cells[1:]) <= CHEEMA_LABELS.keys():
            raise InputError(f"{where}: {text!r} is not `file_id,multimodal,text,image` with labels 0, 1 or 2")
        check_guid(cells[0], where, seen)
        seen[cells[0]] = where
        lines.append(Line(cells[0], CHEEMA_LABELS[cells[1]], where))
    if not lines:
        raise InputError(f"{folder / CHEEMA_LIST} lists no samples: expected lines `file_id,multimodal,text,image`")
    return Listing(read_pairs(folder, lines), LABELS)


LAYOUTS: Mapping[str, Layout] = {
    "reference": Layout(
        REFERENCE,
        lambda folder: any((folder / name).exists() for name in (TRAIN_LIST, UNLABELLED_LIST)),
        read_reference,
    ),
    "mvsa": Layout(release.EXPECTED, release.matches, release.read),
    "cheema": Layout(CHEEMA, lambda folder: (folder / CHEEMA_LIST).is_file(), read_cheema),
    "table": Layout(
        columns.EXPECTED, lambda folder: bool(columns.tables(folder)), columns.read, source=columns.the_table
    ),
}


def find_layout(data: Path, asked: str | None) -> tuple[str, Path]:
    """Which form `--data` has, and the folder or file that it is in.

    Raises:
        InputError: there is nothing, it has none of the forms, or several and none is asked for.
    """
    if data.is_file():
        if asked not in (None, "table"):
            raise InputError(f"--data {data} is a file, --layout {asked} is {LAYOUTS[asked].expected}")
        return "table", columns.the_table(data)
    if not data.is_dir() and data.suffix.lower() in columns.SUFFIXES:
        raise InputError(f"no file {data}: expected {columns.EXPECTED}")
    if not data.is_dir():
        raise InputError(f"no data folder {data}: put MVSA-Single there ({REFERENCE}), or try --demo")
    found = [asked] if asked else [name for name, layout in LAYOUTS.items() if layout.matches(data)]
    if not found:
        forms = "; ".join(f"{name}: {layout.expected}" for name, layout in LAYOUTS.items())
        raise InputError(f"{data} has none of the known forms. {forms}")
    if len(found) > 1:
        raise InputError(
            f"{data} has several forms: choose one with {' or '.join(f'--layout {name}' for name in found)}"
        )
    return found[0], LAYOUTS[found[0]].source(data)
