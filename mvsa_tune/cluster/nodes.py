"""What a cluster's nodes need of the driver's machine: the same code and versions, and the caches' vectors.

A node that sees a cache's own path maps it. Another one fetches the vectors once, through Ray's object store, into a folder of its own
(`~/.cache/mvsa_tune`, or below XDG_CACHE_HOME); each process of the node then maps that. Either way the content is checked first.
"""

import hashlib
import os
import platform
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import ray
from filelock import FileLock
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mvsa_tune import NUMERICS_VERSION, __version__
from mvsa_tune.cluster.session import alive_nodes
from mvsa_tune.embeddings.cache import Cache
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of, write_text_whole, write_whole

BLOCK = 64 * 2**20  # bytes that go through the object store at once
ANSWER = 120  # seconds that a node has to take the code and say what it is


class Source:
    """An actor on the driver's machine, which hands out caches' files by the SHA-256 of their content."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self.blocks: dict[str, list[Any]] = {}

    def fetch(self, sha256: str) -> list[Any]:
        """References to a file's blocks, in order. Nodes that have fetched one pass it on to others: Ray takes the nearest."""
        if sha256 not in self.blocks:
            path = self.files[sha256]
            starts = range(0, path.stat().st_size, BLOCK)
            self.blocks[sha256] = [ray.put(np.fromfile(path, np.uint8, BLOCK, offset=start)) for start in starts]
        return self.blocks[sha256]


@dataclass(frozen=True)
class Driver:
    """What a node is told of the driver's machine.

    Attributes:
        versions: of what numbers depend on.
        files: that nodes must see at the same place, with their sizes in bytes.
        source: the `Source` actor.
    """

    versions: Mapping[str, str]
    files: Mapping[Path, int] = field(default_factory=dict)
    source: Any = None

    def check(self) -> None:
        """InputError where this node is not as the driver is: its trials would not be the sweep's."""
        mine = versions()
        wrong = [f"{name} {mine[name]}, not {wanted}" for name, wanted in self.versions.items() if mine[name] != wanted]
        if wrong:
            raise InputError(
                f"{socket.gethostname()} has {', '.join(wrong)}: install the same as on the driver's machine"
            )
        unseen = [str(path) for path, size in self.files.items() if size_of(path) != size]
        if unseen:
            raise InputError(
                f"{socket.gethostname()} does not see {len(unseen):,} files that the driver sees ({some(unseen, 2)}): put data, results "
                "and weights on a path that every node shares"
            )

    def vectors(self, cache: Cache) -> Path:
        """Where this node has a cache's vectors.

        Raises:
            OSError: they cannot be kept.
            RuntimeError: what came is not what was sent.
        """
        return _at_hand(cache.path, cache.manifest.sha256, self.source)


def versions() -> dict[str, str]:
    """What numbers depend on, here: source and libraries."""
    return {
        "mvsa_tune": f"{__version__}, numerics {NUMERICS_VERSION}",
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": metadata.version("torch"),
        "NumPy": metadata.version("numpy"),
    }


def size_of(path: Path) -> int:
    """Bytes of a file; −1 where this node cannot see it."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """Sizes by path: of files, and of all the files in folders."""
    files = [one for path in paths for one in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {path.absolute(): size_of(path) for path in files if not path.is_dir()}


def tell_nodes(caches: Iterable[Cache] = (), files: Iterable[Path] = ()) -> Driver:
    """Start to hand out caches, and ask every node of the cluster we are in whether it is as this machine is.

    Args:
        caches: whose vectors nodes fetch where they do not see them.
        files: files and folders that they must see.

    Raises:
        InputError: a node has other versions, or does not see a file.
    """
    here = ray.get_runtime_context().get_node_id()
    by_content = {cache.manifest.sha256: cache.path for cache in caches}
    beside = NodeAffinitySchedulingStrategy(here, soft=False)
    source = ray.remote(Source).options(num_cpus=0, scheduling_strategy=beside).remote(by_content)
    driver = Driver(versions(), sizes(files), source)
    check = ray.remote(num_cpus=0, max_retries=0)(_check)
    asked = {
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(driver): (
            node,
            told.name,
        )
        for node, told in alive_nodes()
    }
    for reference, (node, name) in asked.items():
        try:
            ray.get(reference, timeout=ANSWER)
        except InputError as error:
            raise InputError(str(error.cause if hasattr(error, "cause") else error)) from None
        except ray.exceptions.GetTimeoutError:
            raise InputError(
                f"node {name} has not answered within {ANSWER} s: `ray status` and its logs say more"
            ) from None
        except ray.exceptions.RayError as error:
            if node not in dict(alive_nodes()):
                continue  # it has died since: its trials go elsewhere
            told = str(error).strip().splitlines()[-1]
            raise InputError(
                f"node {name} cannot run the package ({told}): are its requirements installed there?"
            ) from None
    return driver


def _check(driver: Driver) -> None:
    driver.check()


def folder() -> Path:
    """Where this node keeps what it has fetched. Anything in it may be deleted while no sweep runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvsa_tune"


@lru_cache(maxsize=64)
def _at_hand(path: Path, sha256: str, source: Any) -> Path:
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    copy = place / f"{sha256}.npy"
    with FileLock(place / f"{sha256}.lock"):  # the first process fetches, the others wait for it
        for seen in (path, copy):
            if _holds(seen, sha256):
                return seen
        for left in place.glob(f".{copy.name}.*.tmp"):  # by one that was killed
            left.unlink()
        write_whole(copy, lambda file: _receive(file, sha256, source))
    return copy


def _holds(path: Path, sha256: str) -> bool:
    """Whether a file has this content. It is read once a node: a note says which size and time it had then."""
    try:
        now = path.stat()
        note = folder() / f"{sha256}.{hashlib.sha256(str(path).encode()).hexdigest()[:12]}.seen"
        stamp = f"{now.st_size} {now.st_mtime_ns}"
        if note.exists() and note.read_text(encoding="utf-8") == stamp:
            return True
        if sha256_of(path) != sha256:
            return False
    except OSError:
        return False
    write_text_whole(note, stamp)
    return True


def _receive(file: BinaryIO, sha256: str, source: Any) -> None:
    digest = hashlib.sha256()
    for reference in ray.get(source.fetch.remote(sha256)):
        block = ray.get(reference)
        digest.update(block)
        file.write(block.data)
    if digest.hexdigest() != sha256:
        raise RuntimeError(
            f"vectors that came to {socket.gethostname()} are damaged: SHA-256 {digest.hexdigest()[:12]}…, not {sha256[:12]}…"
        )
