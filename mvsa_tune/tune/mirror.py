"""A results folder's copy elsewhere: a shared path, or any place that fsspec knows (s3://, gs://, …). For a driver whose disk may go.

Files are copied while the sweep runs, each whole or not at all, and `trials.csv` as it was before the others were: so a row there, too,
promises that its predictions are there. A driver on another machine begins with what is there.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.results.manifest import SweepManifest
from mvsa_tune.results.schema import csv_text, key_of, read_rows

EVERY = 30  # seconds between two copies: what the loss of the driver's disk can cost
ROWS, DESCRIPTION, PROBE = "trials.csv", "sweep.json", "may-be-deleted"


@contextmanager
def mirrored(folder: Path, storage: str | None) -> Iterator[None]:
    """Keep a copy of `folder` at `storage/NAME` for the time of a `with`; None keeps none.

    Raises:
        InputError: the place cannot be reached at the beginning, or not written at the end.
    """
    if storage is None:
        yield
        return
    mirror = Mirror(folder, storage)
    mirror.fetch()
    over = threading.Event()
    copying = threading.Thread(target=mirror.keep, args=(over,), daemon=True)
    copying.start()
    try:
        yield
    finally:
        over.set()
        copying.join()
        mirror.copy()


class Mirror:
    """Copies a results folder."""

    def __init__(self, folder: Path, storage: str) -> None:
        self.folder = folder
        self.where = f"{storage.rstrip('/')}/{folder.name}"
        self.copied: dict[str, tuple[int, int]] = {}  # size and time of what is there, by name
        try:
            import fsspec

            self.place: Any
            self.place, self.root = fsspec.core.url_to_fs(self.where)
        except (ImportError, ValueError) as error:
            raise InputError(f"--storage {storage}: {error}") from None

    def fetch(self) -> None:
        """Bring what is there and not here; of rows that are in both, those here count.

        Raises:
            InputError: the place cannot be read or written, or holds another sweep.
        """
        try:
            found = self.place.find(self.root) if self.place.exists(self.root) else []
            names = sorted(map(self._name, found), key=lambda name: Path(name).name == ROWS)  # rows come last
            self._check_same(names)
            for name in names:
                if not (self.folder / name).exists():
                    self._bring(name, self.folder / name)
                elif Path(name).name == ROWS:
                    self._join_rows(name)
            self._write(PROBE, b"")
            self.place.rm(f"{self.root}/{PROBE}")
        except InputError:
            raise
        except Exception as error:  # every kind of place has exceptions of its own
            raise InputError(f"--storage: {self.where} cannot be used: {_told(error)}") from None

    def _check_same(self, names: list[str]) -> None:
        here = self.folder / DESCRIPTION
        if DESCRIPTION in names and here.exists():
            there = SweepManifest.from_json(self.place.cat_file(f"{self.root}/{DESCRIPTION}").decode())
            if different := SweepManifest.from_json(here.read_text(encoding="utf-8")).conflicts(there):
                raise InputError(
                    f"--storage: {self.where} holds another sweep than {self.folder} ({'; '.join(different)}): choose another --name"
                )

    def keep(self, over: threading.Event) -> None:
        """Copy what has changed, time and again."""
        failing = False
        while not over.wait(EVERY):
            try:
                self._copy()
                failing = False
            except Exception as error:
                if not failing:
                    print(f"{self.where} cannot be written ({_told(error)}): tried again", file=sys.stderr)
                failing = True

    def copy(self) -> None:
        """Copy what has changed; InputError if that fails."""
        try:
            self._copy()
        except Exception as error:
            raise InputError(
                f"{self.where} cannot be written ({_told(error)}): the results are whole in {self.folder}, and the same command copies them"
            ) from None

    def _copy(self) -> None:
        files = [path for path in self.folder.rglob("*") if path.is_file() and not self._is_own(path)]
        rows = {path: path.read_bytes() for path in files if path.name == ROWS}
        for path in files:
            if path not in rows:
                with suppress(FileNotFoundError):  # a checkpoint that is done with
                    state = path.stat()
                    self._update(path, (state.st_size, state.st_mtime_ns), path.read_bytes)
        for path, content in rows.items():
            self._update(path, (len(content), hash(content)), partial(bytes, content))

    def _is_own(self, path: Path) -> bool:
        """Whether a file is of this machine alone: a lock, or one that is being written."""
        return any(part.startswith(".") for part in path.relative_to(self.folder).parts)

    def _update(self, path: Path, stamp: tuple[int, int], read: Callable[[], bytes]) -> None:
        name = path.relative_to(self.folder).as_posix()
        if self.copied.get(name) != stamp:
            self._write(name, read())
            self.copied[name] = stamp

    def _write(self, name: str, content: bytes) -> None:
        """Write a file there, whole or not at all: a place's own transaction gives it its name when it is complete."""
        path = f"{self.root}/{name}"
        self.place.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self.place.transaction, self.place.open(path, "wb") as file:
            file.write(content)

    def _bring(self, name: str, path: Path) -> None:
        content = self.place.cat_file(f"{self.root}/{name}")
        write_whole(path, lambda file: file.write(content))

    def _join_rows(self, name: str) -> None:
        """Put the rows that are there alone before those here. What is damaged here stays, to be told."""
        here, theirs = self.folder / name, self.folder / f".{ROWS}.there"
        self._bring(name, theirs)
        known = {key_of(row) for row in read_rows(here)[0]}
        rows = [row for row in read_rows(theirs)[0] if key_of(row) not in known]
        header, _, rest = here.read_text(encoding="utf-8").partition("\n")
        added = csv_text(header.split(","), rows)
        write_text_whole(here, f"{header}\n{added}{rest}")
        theirs.unlink()

    def _name(self, path: str) -> str:
        """A file's name below the root: one that leaves the folder is refused."""
        name = path.removeprefix(str(self.root)).strip("/")
        if ".." in Path(name).parts:
            raise ValueError(f"{path} lies outside")
        return name


def _told(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
