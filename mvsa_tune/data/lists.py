"""Lists and tables as people have them, in any usual encoding, with or without a heading and quotes → cells."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvsa_tune.errors import InputError, counted, some

# What people call the columns, in lower case; the first is ours.
COLUMNS = {"id": ("id", "guid"), "image": ("image", "img"), "text": ("text",), "label": ("label", "tag")}
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # a file's first bytes
UNDECODABLE = "unknown"  # the encoding of a text that cannot be decoded
LFS = b"version https://git-lfs.github.com/spec/"
MOST_FOLDERS = 200  # looked in on each level: somebody's home folder is no data set


def decode(content: bytes, encoding: str = "") -> tuple[str, str]:
    """Return a file's text and its encoding: UTF-8, or UTF-16 with a mark, else the given one, or a guess.

    Raises:
        UnicodeDecodeError: it is in none of them.
    """
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return content.decode(name), name.removesuffix("-sig")
    with suppress(UnicodeDecodeError):
        return content.decode(), "utf-8"
    *others, last = [encoding] if encoding else _guesses(content)
    for name in others:
        with suppress(UnicodeDecodeError):
            return content.decode(name), name
    return content.decode(last), last


def _guesses(content: bytes) -> list[str]:
    """Return the encodings of a text that is not UTF-8, the likelier one first.

    In Western texts most bytes beyond ASCII stand alone, as quotation marks and letters with accents do. Characters of
    GB18030 are mostly two such bytes. Those with an ASCII letter as their second are rare but for signs such as the
    dash, whose first byte is A1 to A9.
    """
    runs = re.findall(rb"[\x80-\xff]+", content)
    alone = sum(len(run) == 1 and not b"\xa1" <= run <= b"\xa9" for run in runs)
    if alone > len(runs) / 2:
        return ["cp1252", "gb18030"]
    return ["gb18030", "cp1252"] if all(len(run) < 3 for run in runs) else ["gb18030"]


def read_table(path: Path, encoding: str = "") -> str:
    """Return the text of a list or table; InputError if it cannot be decoded, or Git has not fetched it."""
    content = path.read_bytes()
    check_fetched([path] if content.startswith(LFS) else [])
    try:
        return decode(content, encoding)[0]
    except UnicodeDecodeError:
        raise InputError(
            f"{path} cannot be decoded: name its encoding with --encoding, or convert it to UTF-8"
        ) from None


def is_pointer(path: Path) -> bool:
    """Return whether a file is a Git-LFS pointer, which stands in a clone for the file itself."""
    if path.stat().st_size > 1024:
        return False
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def check_fetched(pointers: Sequence[Path]) -> None:
    """Raise InputError if there are Git-LFS pointers, all files in one line."""
    if pointers:
        raise InputError(
            f"{counted(len(pointers), 'Git-LFS pointer')} instead of the files themselves: run `git lfs pull` in "
            f"{pointers[0].parent} ({some([path.name for path in pointers])})"
        )


def read_records(path: Path, encoding: str = "", separators: str = ",;\t") -> Iterator[tuple[str, list[str]]]:
    """Return an iterator over `(FILE:LINE, cells)`; a blank line has none.

    The separator is the one of `separators` that is most frequent in the first line.
    """
    text = read_table(path, encoding)
    return _split(text, _separator(text.partition("\n")[0], separators), path)


def _split(text: str, separator: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    reader, first = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1
    try:
        for cells in reader:
            yield f"{path}:{first}", cells if any(map(str.strip, cells)) else []
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{first}: {error}") from None


def read_objects(path: Path, encoding: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return `(position, object)` of a JSON list of objects, or of a file with one a line."""
    text, position = read_table(path, encoding).strip(), str(path)
    try:
        if text.startswith("["):
            objects = [(f"{path}:row {number}", value) for number, value in enumerate(json.loads(text), start=1)]
        else:
            objects = []
            for number, line in enumerate(text.split("\n"), start=1):
                position = f"{path}:{number}"
                if line.strip():
                    objects.append((position, json.loads(line)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{position} is not JSON ({error}): expected a list of objects, or an object a line") from None
    for position, value in objects:
        if not isinstance(value, dict):
            raise InputError(f"{position} is not an object: expected a list of objects, or an object a line")
    return objects


def read_heading(path: Path) -> list[str]:
    """Return the first line's cells, or the names in the first object; none where these are over 64 KiB long."""
    with path.open("rb") as file:
        text = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").decode(errors="replace").lstrip()
    if path.suffix.lower() in (".json", ".jsonl"):
        with suppress(ValueError, RecursionError):
            return list(json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip())[0])
        return []
    line = text.partition("\n")[0]
    return next((cells for _, cells in _split(line, _separator(line), path)), [])


def _separator(line: str, separators: str = ",;\t") -> str:
    return max(separators, key=line.count)


def find_columns(heading: Sequence[str], name: str) -> list[int]:
    """Return where a heading has a column of `COLUMNS`: written exactly so, else in capitals or by another name."""
    exact = [index for index, cell in enumerate(heading) if cell.strip() == name]
    return exact or [index for index, cell in enumerate(heading) if cell.strip().casefold() in COLUMNS[name]]


def levels(folder: Path, depth: int = 2) -> Iterator[list[Path]]:
    """Yield lists of folders: the folder, those in it, those in these; without hidden ones and `__MACOSX`."""
    level = [folder]
    for _ in range(depth):
        yield level
        level = [child for parent in level for child in _folders(parent)][:MOST_FOLDERS]
    yield level


def _folders(parent: Path) -> Iterable[Path]:
    with suppress(OSError), os.scandir(parent) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))]
        return [parent / name for name in sorted(names)]
    return []
