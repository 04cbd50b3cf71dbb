"""Any CSV or Parquet file with the columns `id`, `image`, `text` and `label`."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from mvsa_tune.data.labels import is_label
from mvsa_tune.data.listing import Entry, Listing, check_guid, decode
from mvsa_tune.errors import InputError, some

NEEDED, LABEL = ("id", "image", "text"), "label"
SUFFIXES = (".csv", ".parquet")
EXPECTED = (
    "a .csv or .parquet file with the columns id, image (a path from the file's folder), text (texts, or paths of .txt files) and "
    "label (empty where it is not known)"
)


@dataclass(frozen=True)
class Row:
    """A row as it stands in the file: its place, and its cells as texts."""

    where: str
    id: str
    image: str
    text: str
    label: str


def tables(folder: Path) -> list[Path]:
    """The files of a folder that have the columns."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            with suppress(InputError):
                if set(NEEDED) <= set(_header(path)):
                    found.append(path)
    return found


def the_table(data: Path) -> Path:
    """The file that `--data` means: itself, or the only one of that folder.

    Raises:
        InputError: it is no CSV or Parquet file, or the folder holds none, or several.
    """
    if data.is_file():
        if data.suffix.lower() not in SUFFIXES:
            raise InputError(f"--data {data}: expected a folder, or {EXPECTED}")
        return data
    found = tables(data)
    if len(found) != 1:
        named = f"{len(found)} tables ({some([path.name for path in found])})" if found else "no table"
        raise InputError(f"{data} holds {named}: name one with --data FILE; expected {EXPECTED}")
    return found[0]


def read(path: Path, needs_labels: bool = True) -> Listing:
    """Read a table's rows in their order.

    The texts are those of the `.txt` files that the column names if every value of it ends in `.txt`, else the values themselves.

    Raises:
        InputError: a column is missing, the file is damaged or has no rows, an id is listed twice, a path leaves the folder of
            the file, a picture or text is missing, or the column of texts holds paths in some rows alone.
    """
    labelled = LABEL in _checked_header(path)
    if needs_labels and not labelled:
        raise InputError(f"{path} has no column {LABEL}: expected {EXPECTED}")
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path} has no rows: expected {EXPECTED}")
    seen: dict[str, str] = {}
    for row in rows:
        check_guid(row.id, row.where, seen, file_name=False)
        seen[row.id] = row.where
        if row.label and not is_label(row.label):
            raise InputError(f"{row.where}: label {row.label!r} must be printable, without a comma or a bar")
    pictures = _files(path, rows, "image", "picture")
    texts = _texts(path, rows)
    if needs_labels and not any(row.label for row in rows):
        raise InputError(f"{path} has no labelled row: the column {LABEL} is empty throughout")
    return Listing(
        [
            Entry(row.id, row.label or None, picture, text, encoding, row.where)
            for row, picture, (text, encoding) in zip(rows, pictures, texts, strict=True)
        ]
    )


def _texts(path: Path, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each row's text and encoding."""
    named = [row for row in rows if row.text.strip().endswith(".txt")]
    if len(named) == len(rows):
        return [decode(file.read_bytes(), file) for file in _files(path, rows, "text", "text")]
    for row in named:
        with suppress(OSError):  # a text may be too long for a path
            if (path.parent / row.text.strip()).is_file():
                other = next(row for row in rows if row not in named)
                raise InputError(
                    f"{row.where}: the text is the path of a file, but that of {other.where} is not: a column holds texts, or paths "
                    "of .txt files in every row"
                )
    return [(row.text, "utf-8") for row in rows]


def _files(path: Path, rows: Sequence[Row], column: str, kind: str) -> list[Path]:
    """The files that a column names, every one of them there."""
    files, missing = [], []
    for row in rows:
        value = getattr(row, column).strip()
        parts = PurePosixPath(value)
        if not value.isprintable() or not parts.parts or parts.is_absolute() or ".." in parts.parts:
            raise InputError(
                f"{row.where}: {column} {value!r} is not a path below {path.parent}; it may not leave that folder"
            )
        files.append(path.parent / parts)
        if not files[-1].is_file():
            missing.append(f"{value} ({row.where})")
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(rows):,} samples have no {kind} in {path.parent}: {some(missing)}; add the files or take "
            "the rows out"
        )
    return files


def _checked_header(path: Path) -> list[str]:
    header = _header(path)
    for name in (*NEEDED, LABEL):
        if header.count(name) > 1 or (name not in header and name != LABEL):
            has = "has the column twice" if name in header else "has no such column"
            raise InputError(f"{path}:1: column {name}: the file {has} ({some(header, 12)}); expected {EXPECTED}")
    return header


def _header(path: Path) -> list[str]:
    if path.suffix.lower() == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    return [name.strip() for name in next(_csv(path), ("", []))[1]]


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path)
        return
    header = _header(path)
    for where, cells in islice(_csv(path), 1, None):
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, where the first line names {len(header)} columns")
        values = dict(zip(header, cells, strict=True))
        yield Row(where, values["id"].strip(), values["image"], values["text"], values.get(LABEL, "").strip())


def _csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file, the heading first, each with the line that it begins on; blank lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader, first = csv.reader(file, strict=True), 1
            for cells in reader:
                if cells:
                    yield f"{path}:{first}", cells
                first = reader.line_num + 1
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: convert it") from None
    except csv.Error as error:
        raise InputError(f"{path}:{first}: {error}") from None


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException

    file = _parquet(path)
    names = [name for name in (*NEEDED, LABEL) if name in file.schema_arrow.names]
    try:
        columns = file.read(columns=names).to_pydict()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        where = f"{path}:row {number}"
        values = {name: _cell(value, f"{where}: column {name}") for name, value in zip(columns, cells, strict=True)}
        yield Row(where, values["id"].strip(), values["image"], values["text"], values.get(LABEL, "").strip())


def _cell(value: Any, where: str) -> str:
    """A cell as a CSV file would hold it: nothing is empty, and a whole number has no decimals."""
    if value is None or value != value:  # not a number
        return ""
    if not isinstance(value, str | int | float):
        raise InputError(f"{where} holds {type(value).__name__}: expected texts or numbers")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
