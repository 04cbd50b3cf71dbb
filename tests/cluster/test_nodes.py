"""What a node checks before it trains, and the vectors that it receives; whole sweeps on real clusters are in `test_cluster.py`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from mvsa_tune.cluster.nodes import Driver, check_nodes
from mvsa_tune.cluster.session import local_ray
from mvsa_tune.errors import InputError
from mvsa_tune.files import sha256_of, sizes
from mvsa_tune.machine import versions


def test_a_node_as_the_driver_is_passes_and_one_of_another_version_is_named_with_both() -> None:
    driver = Driver([], versions())
    driver.check()
    other = replace(driver, facts={**driver.facts, "torch": "1.0", "mvsa_tune": "0.0 with numerics 0"})
    with pytest.raises(
        InputError,
        match=rf"mvsa_tune is {versions()['mvsa_tune']}, not 0.0 with numerics 0, torch is .*, not 1.0; install the same",
    ):
        other.check()


def test_files_that_a_node_does_not_see_or_sees_otherwise_are_named(tmp_path: Path) -> None:
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    (tmp_path / "weights" / "deep" / "model.bin").write_bytes(b"12345")
    (tmp_path / "picture.jpg").write_bytes(b"123")
    files = [tmp_path / "picture.jpg", tmp_path / "weights"]
    driver = Driver(files, versions() | sizes(files))
    assert sorted(sizes(files).values()) == ["3 bytes", "5 bytes"]
    driver.check()
    (tmp_path / "picture.jpg").write_bytes(b"1234")
    (tmp_path / "weights" / "deep" / "model.bin").unlink()
    with pytest.raises(
        InputError, match=r"picture.jpg is 4 bytes, not 3 bytes, .*model.bin is missing, not 5 bytes; .*shares"
    ):
        driver.check()


@pytest.mark.ray
def test_processes_share_what_a_node_receives_that_sees_another_file_or_none(tmp_path: Path) -> None:
    import ray

    path = tmp_path / "image.npy"
    vectors = np.random.default_rng(0).normal(size=(2**16, 2**8)).astype(np.float32)
    np.save(path, vectors)

    def private() -> int:
        return psutil.Process().memory_full_info().uss

    def receive(driver: Driver, sha256: str) -> tuple[float, bool, int] | None:
        before = private()
        received = driver.vectors(path, sha256)
        if received is None:
            return None
        total = float(received.sum(dtype=np.float64))  # every page is read
        return total, received.flags.writeable, private() - before

    with local_ray(2):
        driver = check_nodes()
        in_a_process = ray.remote(max_calls=1)(receive)
        assert ray.get(in_a_process.remote(driver, sha256_of(path))) is None
        for total, writeable, copied in ray.get([in_a_process.remote(driver, "of another file") for _ in range(2)]):
            assert total == vectors.sum(dtype=np.float64) and not writeable
            assert copied < vectors.nbytes / 4
