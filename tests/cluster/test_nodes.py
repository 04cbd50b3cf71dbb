"""What a node makes sure of before it trains; that it fetches what it lacks is shown on a real cluster (`test_cluster.py`)."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mvsa_tune.cluster import nodes
from mvsa_tune.cluster.nodes import Driver, sizes, versions
from mvsa_tune.errors import InputError


def test_a_node_as_the_driver_is_passes_and_one_of_another_version_is_named_with_both() -> None:
    driver = Driver(versions())
    driver.check()
    other = replace(driver, versions={**driver.versions, "torch": "1.0", "mvsa_tune": "0.0, numerics 0"})
    with pytest.raises(
        InputError,
        match=rf"has mvsa_tune {versions()['mvsa_tune']}, not 0.0, numerics 0, torch .*, not 1.0: install the same",
    ):
        other.check()


def test_files_that_a_node_does_not_see_or_sees_otherwise_are_named(tmp_path: Path) -> None:
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    (tmp_path / "weights" / "deep" / "model.bin").write_bytes(b"12345")
    (tmp_path / "picture.jpg").write_bytes(b"123")
    driver = Driver(versions(), sizes([tmp_path / "picture.jpg", tmp_path / "weights"]))
    assert sorted(driver.files.values()) == [3, 5]
    driver.check()
    (tmp_path / "picture.jpg").write_bytes(b"1234")
    (tmp_path / "weights" / "deep" / "model.bin").unlink()
    with pytest.raises(InputError, match=r"does not see 2 files that the driver sees .*picture.jpg"):
        driver.check()


def test_content_is_read_once_and_again_when_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, read = tmp_path / "image.npy", []
    digest = nodes.sha256_of
    monkeypatch.setattr(nodes, "sha256_of", lambda one: read.append(one) or digest(one))
    path.write_bytes(b"vectors")
    sha256 = hashlib.sha256(b"vectors").hexdigest()
    assert nodes._holds(path, sha256) and nodes._holds(path, sha256) and len(read) == 1
    path.write_bytes(b"Vectors")
    os.utime(path, ns=(1, 1))
    assert not nodes._holds(path, sha256)
    assert not nodes._holds(tmp_path / "nothing", sha256)
    assert not nodes._holds(path, hashlib.sha256(b"others").hexdigest())
