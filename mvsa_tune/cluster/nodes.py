"""What a cluster's nodes need from the driver's machine: the same versions, the same files, and the vectors of caches.

A node that sees a cache's file maps it. Any other node receives the vectors through Ray's object store, which keeps one
copy for all processes of the node: in shared memory or, where that is too small, below Ray's temporary folder.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

from mvsa_tune.cluster.session import alive_nodes
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of, sizes
from mvsa_tune.machine import versions

TIMEOUT = 120  # seconds that a node has to receive the package and to check itself


class Sender:
    """An actor on the driver's machine that puts vectors into the object store when a node first requests them."""

    def __init__(self) -> None:
        self.sent: dict[Path, Any] = {}

    def send(self, path: Path) -> list[Any]:
        """Return a reference to the array in a `.npy` file; in a list, because Ray would send the array itself."""
        if path not in self.sent:
            self.sent[path] = ray.put(np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))
        return [self.sent[path]]


@dataclass(frozen=True, eq=False)
class Driver:
    """What the nodes of a cluster know of the driver's machine."""

    files: Sequence[Path]  # files and folders that every node must see
    facts: Mapping[str, str]  # versions and sizes of those files, which must be the same on every node, by name
    sender: Any = None  # the `Sender` actor

    def check(self) -> None:
        """Raise InputError if this node has other versions, so that its numbers might differ, or lacks files."""
        present = dict.fromkeys(self.facts, "missing") | versions() | sizes(self.files)
        differ = [f"{key} is {present[key]}, not {fact}" for key, fact in self.facts.items() if present[key] != fact]
        if differ:
            raise InputError(
                f"{socket.gethostname()} differs from the driver's machine: {some(differ)}; install the same versions, "
                "and put data, results and weights on a path that every node shares"
            )

    def vectors(self, path: Path, sha256: str) -> Any:
        """Return the array in a file of the driver's machine, read-only; None if this node sees the same file."""
        seen = path.exists() and sha256_of(path) == sha256
        return None if seen else ray.get(ray.get(self.sender.send.remote(path))[0])


def check_nodes(files: Sequence[Path] = ()) -> Driver:
    """Return what trials must know of this machine, after each node of the cluster has checked itself against it.

    Raises:
        InputError: a node has other versions, or does not see a file.
    """
    here, files = On(ray.get_runtime_context().get_node_id(), soft=False), [path.absolute() for path in files]
    sender = ray.remote(Sender).options(num_cpus=0, scheduling_strategy=here).remote()
    driver = Driver(files, versions() | sizes(files), sender)
    check = ray.remote(num_cpus=0, max_retries=0)(Driver.check)
    checks = {node: check.options(scheduling_strategy=On(node, soft=False)).remote(driver) for node, _ in alive_nodes()}
    for node, reference in checks.items():
        try:
            ray.get(reference, timeout=TIMEOUT)
        except ray.exceptions.RayError as error:
            if described := dict(alive_nodes()).get(node):  # else it has died since: its trials go elsewhere
                reason = str(getattr(error, "cause", error)).strip().splitlines()[-1]
                raise InputError(f"node {described.name} cannot run trials: {reason}") from None
    return driver
