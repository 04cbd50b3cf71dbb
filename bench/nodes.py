"""What a second node brings to a sweep, what a cluster costs a trial, and how long a new node takes to get a cache.

    python bench/nodes.py                 a few minutes on 2 cores; every node is a `ray start` of its own on this machine

The network between machines is not in these figures: what goes through Ray's object store here goes over loopback.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import chaos
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.files import sha256_of
from mvsa_tune.results.store import Store
from own_cluster import OwnCluster, own_cluster

DEMO = ("--pairs", "demo-pixels+demo-words", "--scheduler", "none", "--quiet")
FETCH = """
import sys, time
from pathlib import Path
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from mvsa_tune.cluster.session import alive_nodes, joined_ray
from mvsa_tune.cluster.nodes import check_nodes

def fetch(driver, path, sha256):
    import psutil
    began = time.perf_counter()
    vectors = driver.vectors(path, sha256)
    seconds, memory = time.perf_counter() - began, psutil.Process().memory_full_info()
    return f"{seconds:.1f} s, {vectors.nbytes / 1e6:.0f} MB, of its process alone {memory.uss / 1e6:.0f} MB"

with joined_ray(sys.argv[1]):
    while not alive_nodes():
        time.sleep(0.1)
    driver = check_nodes()
    for node, _ in alive_nodes():
        on = NodeAffinitySchedulingStrategy(node, soft=False)
        for _ in range(2):  # the second process finds them there
            fetching = ray.remote(num_cpus=0, max_calls=1)(fetch).options(scheduling_strategy=on)
            print(ray.get(fetching.remote(driver, Path(sys.argv[2]), sys.argv[3])))
"""


def sweep(folder: Path, data: Path, *flags: object) -> tuple[float, float]:
    """Run a sweep; return its wall seconds, and the sum of its trials' training seconds."""
    began = time.perf_counter()
    process = chaos.start(folder, "--data", data, *DEMO, *flags)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    wall = time.perf_counter() - began
    name = flags[flags.index("--name") + 1]
    return wall, float(Store(folder / "results" / str(name)).rows()["seconds"].sum())


def scaling(folder: Path, data: Path, cluster: OwnCluster) -> None:
    """A sweep of 32 trials on this machine with one at a time, on one node, and on two."""
    flags = (
        "--D",
        *range(32, 64),
        "--lr",
        1e-3,
        "--batch-size",
        64,
        "--epochs",
        60,
        "--seeds",
        3,
        "--cpus-per-trial",
        1,
    )
    there = ("--address", cluster.address)
    cluster.add("one")
    print("32 trials: where, seconds in all, seconds of training in their sum")
    print("  one node ", *(f"{number:7.1f}" for number in sweep(folder, data, *flags, *there, "--name", "one")))
    cluster.add("two")
    print(
        "  two nodes",
        *(f"{number:7.1f}" for number in sweep(folder, data, *flags, *there, "--nodes", 2, "--name", "two")),
    )
    print("  no cluster, two at once", *(f"{number:7.1f}" for number in sweep(folder, data, *flags, "--name", "none")))


def overhead(folder: Path, data: Path, cluster: OwnCluster) -> None:
    """What a tiny trial takes beside its training: on two nodes, and without a cluster."""
    print("tiny trials: where, trials, milliseconds a trial of which training (its share of two)")
    for count in (50, 550):
        flags = (
            "--D",
            8,
            "--lr",
            *(1e-4 * (1 + i) for i in range(count)),
            "--batch-size",
            512,
            "--epochs",
            4,
            "--seeds",
            1,
        )
        for name, more in (
            ("cluster", ("--address", cluster.address, "--nodes", 2)),
            ("none", ("--cpus-per-trial", 1)),
        ):
            wall, training = sweep(folder, data, *flags, *more, "--name", f"tiny-{name}-{count}")
            print(f"  {name:8} {count:5} {wall:7.1f} s, {1000 * training / 2 / count:6.1f} ms training")


def fetching(folder: Path, cluster: OwnCluster, megabytes: int) -> None:
    """A cache of so many megabytes, sent to a node that does not see it."""
    hidden = folder / "hidden"
    hidden.mkdir()
    path = hidden / "image.npy"
    rng = np.random.default_rng(0)
    block = rng.normal(size=(1024, 1024)).astype(np.float32)  # 4 MiB
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1024 * megabytes // 4, 1024)}
        )
        for number in range(megabytes // 4):
            file.write((block + number).data)
    began = time.perf_counter()
    digest = sha256_of(path)
    print(f"{path.stat().st_size / 1e9:.2f} GB; its SHA-256 alone takes {time.perf_counter() - began:.1f} s")
    cluster.add("blind", hidden=hidden)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.environment["RAY_AUTH_TOKEN"]}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, cluster.address, str(path), digest],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    print("seconds until a process of the new node has it, its size, and the memory that no other process shares")
    print(done.stdout or done.stderr)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument(
        "--only", choices=["scaling", "overhead", "fetching"], nargs="+", default=["scaling", "overhead", "fetching"]
    )
    options = parser.parse_args()
    os.environ.update(RAY_worker_niceness="0")
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(name) / "demo"
        make_demo_set(data)
        subprocess.run(
            [sys.executable, "-m", "mvsa_tune", "embed", "--data", data, "--encoder", "demo-pixels", "demo-words"],
            check=True,
            capture_output=True,
        )
        for what in options.only:
            with own_cluster(store=2_500_000_000 if what == "fetching" else 200_000_000) as cluster:
                os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=cluster.environment["RAY_AUTH_TOKEN"])
                if what == "scaling":
                    scaling(folder, data, cluster)
                elif what == "overhead":
                    cluster.add("one")
                    cluster.add("two")
                    overhead(folder, data, cluster)
                else:
                    fetching(folder, cluster, options.megabytes)


if __name__ == "__main__":
    main()
