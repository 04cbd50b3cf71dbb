"""Sweeps on a real Ray cluster of several nodes, each a `ray start` of its own on this machine."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import chaos
from conftest import grid
from mvsa_tune.cache import default_folder
from mvsa_tune.store import Store
from own_cluster import OwnCluster, can_hide, own_cluster

SLOW = (
    "--pairs",
    "eye+ear",
    "--D",
    *range(4, 16),
    "--batch-size",
    8,
    "--epochs",
    120,
    "--seeds",
    2,
    "--scheduler",
    "none",
)


@pytest.fixture
def cluster() -> Iterator[OwnCluster]:
    """A head node, and one that runs trials."""
    with own_cluster() as started:
        started.add("first")
        yield started


def wait_for_rows(folder: Path, count: int, process: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while chaos.rows(folder) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, process.kill() or process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.skipif(not can_hide(), reason="needs Linux's mount namespaces, to hide a folder from a node")
def test_a_sweep_with_a_node_that_dies_and_one_that_joins_is_the_sweep_of_one_machine(
    tiny: Path, cluster: OwnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add("blind", hidden=default_folder(tiny))
    work = tiny.parent
    flags = ["--data", tiny, *SLOW, "--quiet"]
    began = time.monotonic()
    assert grid(*flags, "--name", "calm", cwd=work).returncode == 0
    print("calm", time.monotonic() - began)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, cluster.environment[name])
    began = time.monotonic()
    process = chaos.start(work, *flags, "--name", "chaos", "--address", cluster.address, "--nodes", 2)
    place = work / "results" / "chaos"
    wait_for_rows(place, 6, process)
    print("6 rows", time.monotonic() - began, chaos.rows(place))
    cluster.kill("first")
    cluster.add("late")
    out, _ = process.communicate(timeout=120)
    print("end", time.monotonic() - began)
    print(out)
    assert process.returncode == 0, out
    chaos.check_same(Store(place), Store(work / "results" / "calm"))
    assert all(cluster.has_trained(name) for name in ("first", "blind", "late"))
    vectors = sorted(path.read_bytes() for path in default_folder(tiny).glob("*/*.npy"))
    assert sorted(path.read_bytes() for path in cluster.cached("blind")) == vectors
    assert not cluster.cached("first") and not cluster.cached("late")  # they see the cache itself
