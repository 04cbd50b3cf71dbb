"""The machine and the Ray that runs on it, or the cluster of them that is there already."""

import logging
import os
import socket
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mvsa_tune.errors import InputError
from mvsa_tune.machine import cpu_count, gpu_count

# Ray's own servers, by the names of their processes: a sweep cannot go on without them.
SERVERS = ("gcs_server", "raylet")
# Seconds: to wait for nodes that were asked for, and without a word from the head node until it counts as dead. Ray itself waits a
# minute for the head and then ends the process without a word.
NODES_WAIT = 600
HEAD_WAIT = 20


@dataclass(frozen=True)
class Node:
    """A machine that trials run on.

    Attributes:
        name: its address.
        cpus: CPUs.
        gpus: GPUs.
        memory: bytes that Ray gives out.
    """

    name: str
    cpus: int
    gpus: int
    memory: int


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Run a Ray of our own on this machine, with `cpus` CPUs and all its GPUs, for the time of a `with`.

    What goes wrong in a worker is recorded by who uses it; Ray's own messages would garble the progress display.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray.init(
        address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
    )
    over = threading.Event()
    servers = [child for child in psutil.Process().children() if child.name() in SERVERS]
    threading.Thread(target=_watch, args=(lambda: any(map(_is_dead, servers)), over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        ray.shutdown()


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Join the Ray cluster at an address for the time of a `with`. Its nodes run this process's own source of the package.

    Raises:
        InputError: there is none, or it does not let us in.
    """
    if address.startswith(("ray://", "http://", "https://")):
        raise InputError(
            f"--address {address}: give the head node's HOST:PORT, or auto on a node of the cluster; from elsewhere, send the command "
            "there with `ray job submit`"
        )
    if address != "auto":
        _reach(address)
    # A cluster's nodes must reach this process; Ray reads it when it is imported. Not longer than that: a local Ray stays local.
    local = os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    try:
        import ray

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        ray.init(
            address=address,
            runtime_env={"py_modules": [str(Path(__file__).parents[1])]},
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--address {address}: {told.rstrip('.')}. Does it run (`ray status`), with the same Python and Ray, and, where it asks for "
            "a token, is RAY_AUTH_MODE=token set here and the token at hand?"
        ) from None
    finally:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = local
    over = threading.Event()
    silent = _Silence(ray.get_runtime_context().gcs_address)
    threading.Thread(target=_watch, args=(silent, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        ray.shutdown()


def _reach(address: str) -> None:
    """InputError where nothing answers at HOST:PORT: Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error}); it is HOST:PORT of the head node, as `ray start --head` printed it"
        ) from None


class _Silence:
    """Whether the head node has not answered for `HEAD_WAIT` seconds."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.place = host.strip("[]"), int(port)
        self.heard = time.monotonic()

    def __call__(self) -> bool:
        try:
            socket.create_connection(self.place, timeout=5).close()
            self.heard = time.monotonic()
        except OSError:
            pass
        return time.monotonic() - self.heard > HEAD_WAIT


def _is_dead(process: psutil.Process) -> bool:
    return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)


def _watch(is_gone: Callable[[], bool], over: threading.Event) -> None:
    """End this process when Ray is gone: Ray itself would wait a minute for it and then end us without a word."""
    while not over.wait(0.5):
        if is_gone() and not over.is_set():
            print(
                "Ray has died (was it killed? had the machine no memory left?). What is recorded is whole: the same command goes on.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)


def add_cluster_flags(parser: ArgumentParser) -> None:
    """Add the flags that say where to run."""
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="run on the Ray cluster there; auto for the one that this machine is of (default: RAY_ADDRESS, else this machine alone)",
    )
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="of a cluster: wait until N nodes are there (default 1)"
    )


def address_of(options: Namespace) -> str | None:
    """The cluster that the flags or RAY_ADDRESS name; None for this machine alone."""
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else str(address)


def this_machine() -> Node:
    """What this process may use of its machine."""
    return Node("this machine", cpu_count(), gpu_count(), psutil.virtual_memory().available)


def nodes_of(address: str, at_least: int = 1) -> list[Node]:
    """The nodes of a cluster that can run something, once there are so many.

    Raises:
        InputError: the cluster cannot be joined, or too few nodes come within ten minutes.
    """
    with joined_ray(address):
        deadline, told = time.monotonic() + NODES_WAIT, False
        while len(nodes := alive_nodes()) < at_least:
            if time.monotonic() > deadline:
                raise InputError(f"--nodes {at_least}: {len(nodes)} came within {NODES_WAIT} s; is `ray status` right?")
            if not told:
                print(f"waiting for {at_least} nodes; {len(nodes)} are there", file=sys.stderr, flush=True)
                told = True
            time.sleep(1)
    return [node for _, node in nodes]


def alive_nodes() -> Sequence[tuple[str, Node]]:
    """The nodes of the cluster we are in that can run something, with Ray's ids."""
    import ray

    return [(told["NodeID"], _node(told)) for told in ray.nodes() if told["Alive"] and told["Resources"].get("CPU")]


def _node(told: dict[str, Any]) -> Node:
    has = told["Resources"]
    return Node(told["NodeManagerAddress"], int(has["CPU"]), int(has.get("GPU", 0)), int(has.get("memory", 0)))
