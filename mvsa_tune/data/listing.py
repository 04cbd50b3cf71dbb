"""What the reader of a form gives, and what readers share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvsa_tune.errors import InputError, some
from mvsa_tune.files import is_file_name

# Where copies of the set keep the pictures and the texts, below the folder that holds the lists.
PAIR_FOLDERS = (("data", "data"), ("data/pics_texts_pair",) * 2, (".", "."), ("images", "texts"))


@dataclass(frozen=True)
class Entry:
    """A pair as its form lists it.

    Attributes:
        guid: its name.
        tag: its label's name; None where the set does not tell.
        picture: path of the picture.
        text: the tweet, decoded.
        encoding: what it was decoded from: `utf-8` or `gb18030`.
        where: the line that lists it, as `FILE:LINE`.
    """

    guid: str
    tag: str | None
    picture: Path
    text: str
    encoding: str
    where: str


@dataclass(frozen=True)
class Listing:
    """All pairs of a set.

    Attributes:
        entries: those that are kept, in the order of their list.
        labels: the form's own labels in their order; empty where any will do.
        dropped: why the form's rules drop a pair, by its guid.
        called: what the form calls the set; empty for nothing.
    """

    entries: Sequence[Entry]
    labels: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    called: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a list that has been read, its pair not yet: `where` is `FILE:LINE`."""

    guid: str
    tag: str | None
    where: str


def numbered_lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """The lines of a list, each with its `FILE:LINE`.

    Raises:
        InputError: it is not there, or not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}: expected {expected}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: convert it") from None
    return ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1))


def check_guid(guid: str, where: str, before: Mapping[str, str], *, file_name: bool = True) -> None:
    """Check a name that a list gives to a pair; `before` holds the names so far, each with its line.

    Raises:
        InputError: it could leave its folder (where it is a `file_name`), is not one printable line, or is listed twice.
    """
    if file_name and not is_file_name(guid):
        raise InputError(f"{where}: guid {guid!r} is not a plain file name; it may not leave the data folder")
    if not guid or not guid.isprintable():
        raise InputError(f"{where}: {guid!r} is no name for a sample; it must be one printable line, and not empty")
    if guid in before:
        raise InputError(f"{where}: guid {guid} is listed twice ({before[guid]} has it too); keep one line of it")


def read_pairs(folder: Path, lines: Iterable[Line]) -> list[Entry]:
    """Find the pairs GUID.jpg and GUID.txt of a list, every one of them, and read the texts.

    Raises:
        InputError: a picture or a text is missing, or a text is in no known encoding.
    """
    lines = list(lines)
    pictures, texts = find_pairs(folder, [line.guid for line in lines])
    entries = []
    for line in lines:
        path = texts / f"{line.guid}.txt"
        text, encoding = decode(path.read_bytes(), path)
        entries.append(Entry(line.guid, line.tag, pictures / f"{line.guid}.jpg", text, encoding, line.where))
    return entries


def find_pairs(folder: Path, guids: Sequence[str]) -> tuple[Path, Path]:
    """Return the folder of the pictures and that of the texts: they hold those of all guids.

    Raises:
        InputError: a picture or a text is missing.
    """
    places = {name: folder / name for pair in PAIR_FOLDERS for name in pair}
    present = {name: _names(place) for name, place in places.items()}
    best = max(PAIR_FOLDERS, key=lambda pair: sum(f"{guid}.jpg" in present[pair[0]] for guid in guids))
    for kind, suffix, name in (("picture", ".jpg", best[0]), ("text", ".txt", best[1])):
        missing = [guid + suffix for guid in guids if guid + suffix not in present[name]]
        if missing:
            raise InputError(
                f"{len(missing):,} of {len(guids):,} samples have no {kind} in {places[name]}: {some(missing)}; "
                "add the files or take the guids off the list"
            )
    return places[best[0]], places[best[1]]


def decode(raw: bytes, path: Path) -> tuple[str, str]:
    """Decode a text as UTF-8, else GB18030 (the release holds both); InputError names the file if it is neither."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path} is neither UTF-8 nor GB18030: convert it to UTF-8")


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_file()} if folder.is_dir() else set()
