"""Any CSV or Parquet file with the columns `id`, `image`, `text` and `label`."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mvsa_tune.data.readers import Layout, Line, Listing, Pair, add_line, read_text
from mvsa_tune.errors import InputError, some

COLUMNS = ("id", "image", "text", "label")
SUFFIXES = (".csv", ".parquet")


class Row(NamedTuple):
    """A row's cells as texts, and where it is: `FILE:LINE`, or `FILE:row N` of a Parquet file."""

    position: str
    id: str
    image: str
    text: str
    label: str


def _find_table(data: Path) -> Path:
    """Return the file that `--data` means: itself, or the only table of that folder."""
    if data.is_file():
        if data.suffix.lower() not in SUFFIXES:
            raise InputError(f"--data {data}: expected a folder, or {LAYOUT.expected}")
        return data
    tables = _tables(data)
    if len(tables) != 1:
        count = f"{len(tables)} tables ({some([path.name for path in tables])})" if tables else "no table"
        raise InputError(f"{data} holds {count}: name one with --data FILE; expected {LAYOUT.expected}")
    return tables[0]


def _tables(folder: Path) -> list[Path]:
    tables = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            with suppress(InputError):
                if set(COLUMNS[:3]) <= {name.strip() for name in next(_records(path), ("", []))[1]}:
                    tables.append(path)
    return tables


def _read(path: Path) -> Listing:
    """Read a table's rows in their order."""
    rows = list(_rows(path))
    lines: dict[str, Line] = {}
    for row in rows:
        add_line(lines, Line(row.id, row.label or None, row.position), file_name=False)
    pairs = zip(lines.values(), _files(path, rows, "image", "picture"), _texts(path, rows), strict=True)
    return Listing([Pair(line, picture, *text) for line, picture, text in pairs])


def _texts(path: Path, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return each row's text and its encoding. If all values end in `.txt`, they are the paths of the texts' files."""
    named = [row for row in rows if row.text.strip().endswith(".txt")]
    if len(named) == len(rows):
        return [read_text(file) for file in _files(path, rows, "text", "text")]
    for row in named:
        with suppress(OSError):  # a text may be too long for a path
            if (path.parent / row.text.strip()).is_file():
                other = next(row for row in rows if row not in named)
                raise InputError(
                    f"{row.position}: the text is the path of a file, but that of {other.position} is not: a column "
                    "holds texts, or paths of .txt files in every row"
                )
    return [(row.text, "utf-8") for row in rows]


def _files(path: Path, rows: Sequence[Row], column: str, kind: str) -> list[Path]:
    """Return the files that a column names, after a check that all exist."""
    files, missing = [], []
    for row in rows:
        value = getattr(row, column).strip()
        parts = PurePosixPath(value)
        if not value.isprintable() or not parts.parts or parts.is_absolute() or ".." in parts.parts:
            raise InputError(
                f"{row.position}: {column} {value!r} is not a path below {path.parent}; it may not leave that folder"
            )
        files.append(path.parent / parts)
        if not files[-1].is_file():
            missing.append(f"{value} ({row.position})")
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(rows):,} samples have no {kind} in {path.parent}: {some(missing)}; add the "
            "files or take the rows out"
        )
    return files


def _rows(path: Path) -> Iterator[Row]:
    records = _records(path)
    header = [name.strip() for name in next(records, ("", []))[1]]
    for name in COLUMNS:
        if header.count(name) > 1 or (name not in header and name != "label"):
            problem = "is there twice" if name in header else "is missing"
            raise InputError(f"{path}:1: column {name} {problem} ({some(header, 12)}); expected {LAYOUT.expected}")
    for position, cells in records:
        if len(cells) != len(header):
            raise InputError(f"{position}: {len(cells)} cells, where the first line names {len(header)} columns")
        row = dict(zip(header, cells, strict=True))
        yield Row(position, row["id"].strip(), row["image"], row["text"], row.get("label", "").strip())


def _records(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Return an iterator over `(position, cells)`: first the column names, then the rows."""
    return _parquet_records(path) if path.suffix.lower() == ".parquet" else _csv_records(path)


# Not pandas: it knows neither the line that a record begins on nor whole numbers beside empty cells.
def _csv_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    first = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if cells:
                    yield f"{path}:{first}", cells
                first = reader.line_num + 1
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: convert it") from None
    except csv.Error as error:
        raise InputError(f"{path}:{first}: {error}") from None


def _parquet_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            yield str(path), names
            batches = file.iter_batches(columns=[name for name in names if name.strip() in COLUMNS])
            for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
                position = f"{path}:row {number}"
                yield position, [_text(row.get(name), f"{position}: column {name}") for name in names]
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _text(value: Any, position: str) -> str:
    """Return a cell as a CSV file would hold it: None and NaN are empty, and a whole number has no decimals."""
    if value is None or value != value:
        return ""
    if not isinstance(value, str | int | float):
        raise InputError(f"{position} holds {type(value).__name__}: expected texts or numbers")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


LAYOUT = Layout(
    "a .csv or .parquet file with the columns id, image (a path from the file's folder), text (texts, or paths of .txt "
    "files) and label (empty where it is not known)",
    lambda folder: bool(_tables(folder)),
    _read,
    _find_table,
)
