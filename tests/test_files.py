from pathlib import Path

import pytest

from mvsa_tune.files import append_synced, sha256_of, write_text_whole, write_whole


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
