import errno
import fcntl
import os
from pathlib import Path

import pytest
from filelock import FileLock

from mvsa_tune.files import acquire, append_synced, sha256_of, short_name, sync_folder, write_text_whole, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_text_whole(path, "old")
    before = path.stat().st_ino
    seen = []

    def write(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        seen.append(path.read_text())  # whoever reads meanwhile sees the old one
        file.write(b"w")  # type: ignore[attr-defined]

    write_whole(path, write)
    assert seen == ["old"] and path.read_text() == "new"
    assert path.stat().st_ino != before  # another file took its name; the old one was not written into


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_whole(path, "old")

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, write)
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_appending_adds_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("a\n", "b\n"):
        append_synced(path, text)
    assert path.read_text() == "a\nb\n"
    # printf 'a\nb\n' | sha256sum
    assert sha256_of(path) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_will_do(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    write_text_whole(tmp_path / "file", "a\n")
    append_synced(tmp_path / "file", "b\n")
    assert (tmp_path / "file").read_text() == "a\nb\n"


def test_a_disk_that_fails_while_it_syncs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write_text_whole(tmp_path / "file", "a")
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do_once_and_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Again: what a killed process has left bars nobody. For ENOSYS newer filelocks have a way of their own."""

    def fails(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    for _ in range(2):
        lock = FileLock(tmp_path / ".lock")
        acquire(lock)
        lock.release()
    told = capsys.readouterr().err
    line = f"{tmp_path} is on a file system without locks: let no other command write there\n"
    assert told in ([2 * line, ""] if number == errno.ENOSYS else [2 * line])


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="Input/output error"):
        acquire(FileLock(tmp_path / ".lock"))


def test_a_name_that_is_too_long_is_cut_and_stays_unique(tmp_path: Path) -> None:
    assert short_name("a" * 255) == "a" * 255
    names = {short_name("é" * 200 + end) for end in ("a", "b")} | {short_name("é" * 200, "id")}
    assert len(names) == 3 and any(name.endswith(" id") for name in names)
    for name in names:
        (tmp_path / name).touch()
