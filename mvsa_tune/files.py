"""Files written whole or not at all, locks, the identity of a file's content, and names that are safe as file names."""

import errno
import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

# How a file system says that it has no locks, or cannot sync (network and FUSE file systems); else something is wrong.
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
NAME_BYTES = 255  # that the name of a file may have


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that `path` has all of it or is as it was: temporary file, fsync, rename.

    Args:
        path: the file; its folder is made if it is missing.
        write: writes the content to the open temporary file that it is called with.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """Write text as UTF-8, as `write_whole` does."""
    write_whole(path, lambda file: file.write(text.encode()))


def append_synced(path: Path, text: str) -> None:
    """Append text in one write and wait until it is on the disk."""
    with path.open("ab") as file:
        file.write(text.encode())
        file.flush()
        sync(file.fileno())


def sync(descriptor: int) -> None:
    """Wait until an open file or folder is on the disk, where its file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (POSIX: the folder has to be synced too)."""
    with suppress(PermissionError):  # it may be written but not read; on Windows no folder can be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def acquire(lock: FileLock, timeout: float = 0) -> None:
    """Acquire a lock; on a file system that has none say so and go on without.

    Raises:
        Timeout: another process still has it after `timeout` seconds; -1 waits for ever.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lock.acquire(timeout=timeout)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:  # a Timeout is one, too
            raise
        folder = Path(lock.lock_file).parent
        print(f"{folder} is on a file system without locks: let no other command write there", file=sys.stderr)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sizes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the size in bytes, as text, of each file that exists and of each file in a folder, by absolute path."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return {str(file.absolute()): f"{file.stat().st_size:,} bytes" for file in files if file.is_file()}


def short_name(name: str, end: str = "") -> str:
    """Return `name` if a file can have it; a longer one is cut, and ends in `end` or else in its own hash."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    end = f" {end or hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name.encode()[: NAME_BYTES - len(end)].decode(errors="ignore") + end


def is_file_name(name: str) -> bool:
    """Return whether a name is that of a file in a folder, and of none outside it."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0") and name.isprintable()
