"""Sweeps on a real Ray cluster of several nodes, each a `ray start` of its own on this machine."""

import os
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

import chaos
from conftest import run_command
from local_cluster import LocalCluster, can_hide, local_cluster
from mvsa_tune.cluster.session import address_of
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import reference_split
from mvsa_tune.embeddings.cache import default_folder, find_caches
from mvsa_tune.results.store import Store
from mvsa_tune.sweeps import GRID
from mvsa_tune.training.result import TrialResult
from mvsa_tune.training.task import Task

FEW = ("--pairs", "eye+ear", "--batch-size", 8, "--seeds", 2, "--scheduler", "none", "--quiet")
SWEEP = (*FEW, "--D", *range(4, 22), "--epochs", 120)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Start a head node and a node that runs trials; this process may join them."""
    with local_cluster() as started:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            monkeypatch.setenv(name, started.environment[name])
        started.add("first")
        yield started


def wait(process: subprocess.Popen[str], until: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until a condition holds, while a sweep runs."""
    deadline = time.monotonic() + seconds
    while not until():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.05)


def trained_here(data: Path, store: Store) -> dict[str, TrialResult]:
    """Train every third configuration of a sweep in this process; return the results by id."""
    dataset = read_dataset(data)
    caches, _ = find_caches(dataset, default_folder(data), store.manifest.configs)
    split = reference_split(dataset.labels)
    task = Task(
        caches,
        labels=np.array(dataset.labels),
        classes=3,
        split=split,
        replicates=store.manifest.replicates,
        device="cpu",
        threads=1,
    )
    return {config.id: task.build(config, task.replicates).fit() for config in store.manifest.configs[::3]}


@pytest.mark.skipif(not can_hide(), reason="needs Linux's mount namespaces, to hide a folder from a node")
def test_a_sweep_whose_first_node_dies_and_whose_second_one_joins_late_and_sees_no_cache_has_the_numbers_of_one_machine(
    tiny: Path, cluster: LocalCluster
) -> None:
    work, caches = tiny.parent, default_folder(tiny)
    process = chaos.start(work, "--data", tiny, *SWEEP, "--address", cluster.address)
    results = work / "results" / "grid"
    wait(process, lambda: chaos.rows(results) >= 2)
    cluster.add("late", hidden=caches)
    wait(process, lambda: cluster.has_trained("late"))
    cluster.kill("first")
    left = 36 - chaos.rows(results)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and left > 2, out
    store = Store(results)
    assert store.recorded() == [config.id for config in store.manifest.configs]
    for trial, expected in trained_here(tiny, store).items():
        result = store.result(trial)
        for name, value in vars(expected).items():
            if isinstance(value, np.ndarray) and name != "trained_at":
                np.testing.assert_array_equal(getattr(result, name), value, err_msg=f"{trial} {name}")
    # what no node can hold is refused at once, with what there is
    requested = ("--data", tiny, *FEW, "--D", 99, "--address", cluster.address, "--memory-per-trial", 99999)
    refused = run_command(*requested, cwd=work, timeout=30)
    assert refused.returncode == 2 and "no node has so much for Ray" in refused.stderr, refused.stderr


def test_an_address_where_no_cluster_answers_is_one_line(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray.shutdown()  # the one that other tests share, if there is one, would be refused first
    for address, message in (
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("ray://host:10001", "give the head node's HOST:PORT"),
        ("somewhere", "no Ray cluster answers there"),
    ):
        assert GRID.main(["--data", str(tiny), "--pairs", "eye+ear", "--address", address]) == 2
        printed = capsys.readouterr().err
        assert message in printed and printed.count("\n") == 1
    # and what starts from this process afterwards does not listen for a cluster
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_the_address_is_the_flags_else_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address_of(Namespace(address=None)) == "head:6379"
    assert address_of(Namespace(address="auto")) == "auto"
    assert address_of(Namespace(address="local")) is None
    monkeypatch.delenv("RAY_ADDRESS")
    assert address_of(Namespace(address=None)) is None
