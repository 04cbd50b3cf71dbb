"""Any CSV, JSON or Parquet file with the columns `id`, `image`, `text` and `label`."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mvsa_tune.data.lists import (
    COLUMNS,
    check_fetched,
    find_columns,
    is_pointer,
    read_heading,
    read_objects,
    read_records,
)
from mvsa_tune.data.readers import (
    PICTURES,
    Layout,
    Line,
    Listing,
    Pair,
    Reading,
    add_line,
    read_text,
    unknown_labels,
)  # fmt: skip
from mvsa_tune.errors import InputError, counted, some

SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
NO_TEXT = re.compile(r"\S*[/\\]\S+|\S+\.\w{1,4}")  # a path


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
                heading = next(_records(path))[1] if path.suffix.lower() == ".parquet" else read_heading(path)
                if all(find_columns(heading, name) for name in COLUMNS if name != "label"):
                    tables.append(path)
    return tables


def _read(path: Path, reading: Reading) -> Listing:
    """Read a table's rows in their order."""
    rows = list(_rows(path, reading.encoding))
    _check_columns(path, rows)
    unknown = unknown_labels({row.label for row in rows} - {""}) - set(reading.labels)
    lines: dict[str, Line] = {}
    for row in rows:
        label = None if row.label in {"", *unknown} else row.label
        add_line(lines, Line(row.id, label, row.position), file_name=False)
    pictures, texts = _files(path, rows, "image", "picture"), _texts(path, rows, reading.encoding)
    check_fetched([picture for picture in pictures if is_pointer(picture)])
    pairs = [Pair(line, picture, *text) for line, picture, text in zip(lines.values(), pictures, texts, strict=True)]
    return Listing(pairs, notes=[*_unknown_note(rows, unknown), *_path_note(rows)])


def _check_columns(path: Path, rows: Sequence[Row]) -> None:
    """Raise InputError if the pictures' column has the texts, or the other way round."""
    images, texts = ([getattr(row, name).strip().lower() for row in rows] for name in ("image", "text"))
    if rows and (all(image.endswith(".txt") for image in images) or all(text.endswith(PICTURES) for text in texts)):
        raise InputError(
            f"{path}: the column image has {rows[0].image.strip()!r}, the column text {rows[0].text.strip()!r}: swap "
            "their names in the first line"
        )


def _unknown_note(rows: Sequence[Row], unknown: set[str]) -> list[str]:
    count = sum(row.label in unknown for row in rows)
    how = "read as not known; --labels A,B,… with it among them makes it a class"
    return [f"{counted(count, 'label')} {', '.join(sorted(unknown))}: {how}"] if count else []


def _path_note(rows: Sequence[Row]) -> list[str]:
    texts = [row.text.strip() for row in rows]
    if not texts or any(text.endswith(".txt") for text in texts) or not all(map(NO_TEXT.fullmatch, texts)):
        return []
    return [f"warning: every text is a path ({texts[0]}) and read as a text: only paths that end in .txt name files"]


def _texts(path: Path, rows: Sequence[Row], encoding: str) -> list[tuple[str, str]]:
    """Return each row's text and its encoding. If all values end in `.txt`, they are the paths of the texts' files."""
    named = [row for row in rows if row.text.strip().endswith(".txt")]
    if len(named) == len(rows):
        files = _files(path, rows, "text", "text")
        check_fetched([file for file in files if is_pointer(file)])
        return [read_text(file.read_bytes(), encoding) for file in files]
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
        if "\\" in value and not (path.parent / value).is_file():  # a path of Windows
            value = value.replace("\\", "/")
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
            f"{len(missing):,} of {counted(len(rows), 'sample')} {'has' if len(missing) == 1 else 'have'} no {kind} in "
            f"the folder of {path}: {some(missing)}; add the files or take the rows out"
        )
    return files


def _rows(path: Path, encoding: str) -> Iterator[Row]:
    records = _records(path, encoding)
    header = [name.strip() for name in next(records, ("", []))[1]]
    columns = _columns(path, header, needs_label=False)
    for position, cells in records:
        if len(cells) != len(header):
            raise InputError(f"{position}: {len(cells)} cells, where the first line names {len(header)} columns")
        row = {name: cells[places[0]] if places else "" for name, places in columns.items()}
        yield Row(position, row["id"].strip(), row["image"], row["text"], row["label"].strip())


def _columns(path: Path, header: Sequence[str], *, needs_label: bool) -> dict[str, list[int]]:
    """Return where each of `COLUMNS` is in a table; InputError if one is missing or there twice."""
    columns = {name: find_columns(header, name) for name in COLUMNS}
    for name, places in columns.items():
        if len(places) > 1 or (not places and (needs_label or name != "label")):
            problem = "is there twice" if places else "is missing"
            raise InputError(
                f"{path}:1: column {name} {problem} (columns: {some(list(header), 12)}); expected {LAYOUT.expected}"
            )
    return columns


def check_label_column(path: Path, encoding: str) -> None:
    """Raise InputError if a table has no column of labels, which it need not have where pairs are to be labelled."""
    _columns(path, next(_records(path, encoding))[1], needs_label=True)


def _records(path: Path, encoding: str = "") -> Iterator[tuple[str, list[str]]]:
    """Return an iterator over `(position, cells)`: first the column names, then the rows."""
    if path.suffix.lower() == ".parquet":
        check_fetched([path] if is_pointer(path) else [])
        return _parquet_records(path)
    if path.suffix.lower() in (".json", ".jsonl"):
        return _json_records(path, encoding)
    # Not pandas: it knows neither the line that a record begins on nor whole numbers beside empty cells.
    return (record for record in read_records(path, encoding) if record[1])


def _json_records(path: Path, encoding: str) -> Iterator[tuple[str, list[str]]]:
    objects = read_objects(path, encoding)
    names = list(dict.fromkeys(name for _, value in objects for name in value))
    yield str(path), names
    wanted = {names[index] for name in COLUMNS for index in find_columns(names, name)}
    for position, value in objects:
        cells = {name: _text(value.get(name), f"{position}: {name}") for name in wanted}
        yield position, [cells.get(name, "") for name in names]


def _parquet_records(path: Path) -> Iterator[tuple[str, list[str]]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            yield str(path), names
            wanted = {names[index] for name in COLUMNS for index in find_columns(names, name)}
            batches = file.iter_batches(columns=[name for name in names if name in wanted])
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
    "a .csv, .json, .jsonl or .parquet file with the columns id, image (a path from the file's folder), text (texts, "
    "or paths of .txt files) and label (empty where it is not known)",
    lambda folder: bool(_tables(folder)),
    _read,
    _find_table,
)
