"""Files written whole or not at all, what identifies their content, and names that are safe as files'."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` holds all of it or is as it was: temporary file, fsync, rename.

    Args:
        path: where it goes; its folder is made if need be.
        write: called with the open temporary file.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """`write_whole` for text, as UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


def append_synced(path: Path, text: str) -> None:
    """Append text in one write and wait until it is on the disk."""
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX: the folder has to be synced too)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sizes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the sizes, for people, of those files that exist, and of all files in folders, by absolute path."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return {str(file.absolute()): f"{file.stat().st_size:,} bytes" for file in files if file.is_file()}


def is_file_name(name: str) -> bool:
    """Whether a name from data can stand in a path without leaving its folder."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0") and name.isprintable()
