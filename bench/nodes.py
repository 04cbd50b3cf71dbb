"""Measure what a second node brings, what a cluster costs a trial, and how long a new node takes to get a cache.

    python bench/nodes.py [--only scaling overhead fetching]      a few minutes on 2 cores

Each node is a separate `ray start` on this machine (`local_cluster.py`), so the network between machines is not in the
figures: what goes through Ray's object store goes over loopback.
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
from local_cluster import STORE, LocalCluster, local_cluster
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.files import sha256_of
from mvsa_tune.results.store import Store

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
    started = time.perf_counter()
    vectors = driver.vectors(path, sha256)
    seconds, memory = time.perf_counter() - started, psutil.Process().memory_full_info()
    return f"{seconds:.1f} s, {vectors.nbytes / 1e6:.0f} MB, only in this process {memory.uss / 1e6:.0f} MB"

with joined_ray(sys.argv[1]):
    while not alive_nodes():
        time.sleep(0.1)
    driver = check_nodes()
    for node, _ in alive_nodes():
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        for _ in range(2):  # for the second process, they are on the node already
            fetching = ray.remote(num_cpus=0, max_calls=1)(fetch).options(scheduling_strategy=strategy)
            print(ray.get(fetching.remote(driver, Path(sys.argv[2]), sys.argv[3])))
"""


def sweep(folder: Path, data: Path, *flags: object) -> tuple[float, float]:
    """Run a sweep; return its wall seconds, and the sum of its trials' training seconds."""
    started = time.perf_counter()
    process = chaos.start(folder, "--data", data, *DEMO, *flags)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    wall = time.perf_counter() - started
    name = flags[flags.index("--name") + 1]
    return wall, float(Store(folder / "results" / str(name)).rows()["seconds"].sum())


def scaling(folder: Path, data: Path, cluster: LocalCluster) -> None:
    """Run a sweep of 32 trials on one node of a CPU, on two, and without a cluster."""
    flags = (
        *("--D", *range(32, 64), "--lr", 1e-3, "--batch-size", 64),
        *("--epochs", 60, "--seeds", 3, "--cpus-per-trial", 1),
    )
    print("32 trials: where, seconds from start to end, sum of the trials' seconds of training")

    def show(name: str, *more: object) -> None:
        wall, training = sweep(folder, data, *flags, *more, "--name", name.replace(" ", "-"))
        print(f"  {name:<10} {wall:7.1f} {training:7.1f}")

    cluster.add("first")
    show("one node", "--address", cluster.address)
    cluster.add("second")
    show("two nodes", "--address", cluster.address, "--nodes", 2)
    show("no cluster")


def overhead(folder: Path, data: Path, cluster: LocalCluster) -> None:
    """Run sweeps of tiny trials on two nodes and without a cluster, to see what a trial takes besides its training."""
    print("tiny trials: where, trials, seconds from start to end, training of a trial (its share of two cores)")
    places = {"cluster": ("--address", cluster.address, "--nodes", 2), "none": ("--cpus-per-trial", 1)}
    for count in (50, 550):
        rates = [1e-4 * (1 + number) for number in range(count)]
        flags = ("--D", 8, "--lr", *rates, "--batch-size", 512, "--epochs", 4, "--seeds", 1)
        for name, more in places.items():
            wall, training = sweep(folder, data, *flags, *more, "--name", f"tiny-{name}-{count}")
            print(f"  {name:8} {count:5} {wall:7.1f} s, {1000 * training / 2 / count:6.1f} ms training")


def fetching(folder: Path, cluster: LocalCluster, megabytes: int) -> None:
    """Send a cache of some megabytes to a node that does not see it."""
    hidden = folder / "hidden"
    hidden.mkdir()
    path = hidden / "image.npy"
    rng = np.random.default_rng(0)
    block = rng.normal(size=(1024, 1024)).astype(np.float32)  # 4 MiB
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1024 * megabytes // 4, 1024)}
        np.lib.format.write_array_header_1_0(file, header)
        for number in range(megabytes // 4):
            file.write((block + number).data)
    started = time.perf_counter()
    digest = sha256_of(path)
    print(f"{path.stat().st_size / 1e9:.2f} GB; its SHA-256 alone takes {time.perf_counter() - started:.1f} s")
    cluster.add("blind", hidden=hidden)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.environment["RAY_AUTH_TOKEN"]}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, cluster.address, str(path), digest],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    print("seconds until a process of the new node has it, its size, and the memory that no other process shares")
    print(done.stdout or done.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    measures = ["scaling", "overhead", "fetching"]
    parser.add_argument("--only", choices=measures, nargs="+", default=measures)
    options = parser.parse_args()
    os.environ.update(RAY_worker_niceness="0")
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(name) / "demo"
        make_demo_set(data)
        command = [sys.executable, "-m", "mvsa_tune", "embed", "--data", str(data), "--encoder"]
        subprocess.run([*command, "demo-pixels", "demo-words"], check=True, capture_output=True)
        for measure in options.only:
            with local_cluster(store=2_500_000_000 if measure == "fetching" else STORE) as cluster:
                os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=cluster.environment["RAY_AUTH_TOKEN"])
                if measure == "scaling":
                    scaling(folder, data, cluster)
                elif measure == "overhead":
                    cluster.add("first")
                    cluster.add("second")
                    overhead(folder, data, cluster)
                else:
                    fetching(folder, cluster, options.megabytes)


if __name__ == "__main__":
    main()
