"""Ray on this machine, or the cluster that is there already: joining it, its nodes, and the flags that name it."""

import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from argparse import Namespace, _ActionsContainer
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mvsa_tune import machine
from mvsa_tune.errors import InputError
from mvsa_tune.machine import available_memory, cpu_count, gpu_count

SERVERS = ("gcs_server", "raylet")  # Ray's own processes, without which a sweep cannot go on
NODES_TIMEOUT = 600  # seconds to wait for the nodes that --nodes requests
HEAD_TIMEOUT = 20  # seconds without an answer after which the head node counts as dead; Ray itself would wait a minute
ANSWER_TIMEOUT = 5  # seconds that a Ray has to answer
FOLDER_BYTES = 24  # of a folder in which Ray's own can be: its sockets' paths, longer by 79, may have 103 on macOS
FOLDER_SPACE = 16 << 20  # bytes free in it: logs, and sockets
TOKEN = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}  # one of these gives Ray its token, else a file below the home folder
# What an HTTP/2 client sends first, with empty settings (RFC 9113, 3.4): a Ray answers with settings of its own.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Node:
    """A machine that trials run on."""

    name: str  # its address
    cpus: int
    gpus: int
    memory: int  # bytes that Ray can reserve


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Run a Ray on this machine, with `cpus` CPUs and all GPUs, for the time of a `with`.

    Where this process uses a Ray already, as a notebook may, that one is used and left running: `this_machine` has
    planned no more trials at once than it has CPUs.

    Raises:
        InputError: there is no folder for Ray's files.
    """
    if is_in_use():
        with _left_running():
            yield
        return
    if not TOKEN & os.environ.keys() and not machine.has_home(".ray"):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray 2.60 would write one there
    with _ray_folder() as folder:
        _init(address="local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder)
        servers = [child for child in psutil.Process().children() if child.name() in SERVERS]
        with _watched(lambda: any(map(_is_dead, servers))):
            yield


def is_in_use() -> bool:
    """Return whether this process uses a Ray; without importing it, which takes a second."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def _left_running() -> Iterator[None]:
    """Use the Ray of this process for the time of a `with`, without Tune's messages, which are not about results."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _ray_folder() -> Iterator[str]:
    """Make a folder for a local Ray's sockets and logs, for the time of a `with`, where it can be."""
    for folder in (os.environ.get("RAY_TMPDIR", ""), tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        is_usable = 0 < len(os.fsencode(folder)) <= FOLDER_BYTES and os.access(folder, os.W_OK)
        if is_usable and psutil.disk_usage(folder).free >= FOLDER_SPACE:
            with tempfile.TemporaryDirectory(prefix="ray-", dir=folder, ignore_cleanup_errors=True) as made:
                yield f"{made}/t"  # Ray opens its folder to every user; what is around it is this user's alone
            return
    raise InputError(
        f"set RAY_TMPDIR: Ray needs a folder that can be written, with a path of at most {FOLDER_BYTES} bytes and "
        f"{FOLDER_SPACE >> 20} MiB free"
    )


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Join the Ray cluster at an address for the time of a `with`. Its nodes run this process's source of the package.

    Where this process has joined that cluster already, it stays in it, and the nodes need the package installed.

    Raises:
        InputError: there is no cluster, it does not accept this process, or this process uses another Ray.
    """
    if is_in_use():
        if address not in ("auto", known := _address_in_use()):
            raise InputError(f"--address {address}: this process uses the Ray at {known}; call ray.shutdown() before")
        with _left_running():
            yield
        return
    if address.startswith(("ray://", "http://", "https://")):
        raise InputError(
            f"--address {address}: give the head node's HOST:PORT, or auto on a node of the cluster; from elsewhere, "
            "send the command there with `ray job submit`"
        )
    # Ray reads this when it is imported: a cluster's nodes must reach this process. A local Ray afterwards stays local.
    local = os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    try:
        _reach(address)
        _use_token(address)
        try:
            _init(address=address, runtime_env={"py_modules": [str(Path(__file__).parents[1])]})
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise InputError(
                f"--address {address}: {reason}. Does the cluster run (`ray status`), with the same Python and Ray? If "
                "it requires a token, are RAY_AUTH_MODE=token and the token set for this command?"
            ) from None
    finally:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = local
    import ray

    with _watched(_head_is_silent(ray.get_runtime_context().gcs_address)):
        yield


def _address_in_use() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _init(**options: Any) -> None:
    """Start or join Ray, which prints nothing, because that would garble the progress display."""
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with machine.signals_kept(), _muted():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except SystemExit:  # by the handler of SIGTERM that Ray has set
        _shut_down()
        raise KeyboardInterrupt from None
    except BaseException:
        _shut_down()
        raise
    machine.handle_signals()


def _shut_down() -> None:
    """End or leave Ray, which sets handlers of its own when it starts, and none when it ends."""
    import ray

    ray.shutdown()
    machine.handle_signals()


@contextmanager
def _muted() -> Iterator[None]:
    """Let nothing reach stderr for the time of a `with`, not even from Ray's C++."""
    try:
        before = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _reach(address: str) -> None:
    """InputError where no cluster answers: Ray itself would try for minutes."""
    try:
        if address == "auto":
            from ray._private.services import canonicalize_bootstrap_address

            _connect(str(canonicalize_bootstrap_address(address)))
        else:
            _connect(address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error}); it is HOST:PORT of the head node, as "
            "`ray start --head` printed it"
        ) from None


def _use_token(address: str) -> None:
    """Let Ray take the token that is there for a cluster of this machine, as it does by itself for `auto` alone."""
    host = address.rpartition(":")[0].strip("[]")
    own = {"localhost", socket.gethostname()}.union(
        entry.address for entries in psutil.net_if_addrs().values() for entry in entries
    )
    has_token = TOKEN & os.environ.keys() or (machine.has_home() and Path("~/.ray/auth_token").expanduser().exists())
    if host in own and has_token and "RAY_AUTH_MODE" not in os.environ:
        from ray._raylet import Config  # type: ignore[attr-defined]

        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray has read the mode when it was imported


@contextmanager
def _watched(is_gone: Callable[[], bool]) -> Iterator[None]:
    """End this process soon after Ray is gone, and shut Ray down at the end of a `with`."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            # After a signal, which may have ended Ray too, the main thread has time to write the tables.
            if is_gone() and not ended.wait(HEAD_TIMEOUT if machine.is_interrupted() else 0):
                print(
                    "Ray has died (was it killed? was there too little memory?). What is recorded is whole, and the "
                    "same command goes on.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _shut_down()


def _is_dead(process: psutil.Process) -> bool:
    return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)


def _head_is_silent(address: str) -> Callable[[], bool]:
    """Return a function that says whether the head node has not answered it for `HEAD_TIMEOUT` seconds."""
    answered = time.monotonic()

    def is_silent() -> bool:
        nonlocal answered
        with suppress(OSError):
            _connect(address)
            answered = time.monotonic()
        return time.monotonic() - answered > HEAD_TIMEOUT

    return is_silent


def _connect(address: str) -> None:
    """Raise OSError if nothing that speaks HTTP/2, as Ray does, answers at HOST:PORT; ValueError if it is not that."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_TIMEOUT) as connection:
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            connection.sendall(HELLO)
            if connection.recv(9)[3:4] != b"\x04":
                raise ConnectionError("what answers is no Ray")


def add_cluster_flags(parser: _ActionsContainer) -> None:
    """Add the flags that say where to run."""
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to run on, or auto (default: RAY_ADDRESS, else this machine)",
    )
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="of a cluster: wait until N nodes have joined (default 1)"
    )


def address_of(options: Namespace) -> str | None:
    """Return the address of the cluster that the flags or RAY_ADDRESS name; None for this machine alone.

    Where they name none, a Ray that this process uses already counts as a cluster if it has several nodes.
    """
    address = options.address or os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return _address_in_use() if is_in_use() and len(alive_nodes()) > 1 else None
    return str(address)


def this_machine() -> Node:
    """Return what this process may use of its machine; no more than its Ray has, if it uses one already."""
    cpus, gpus = cpu_count(), gpu_count()
    if is_in_use():
        resources = sys.modules["ray"].cluster_resources()
        cpus, gpus = (min(count, int(resources.get(name, 0))) for count, name in ((cpus, "CPU"), (gpus, "GPU")))
    return Node("this machine", cpus, gpus, available_memory())


def nodes_of(address: str, at_least: int = 1) -> list[Node]:
    """Return the nodes of a cluster that can run something, once there are so many.

    Raises:
        InputError: the cluster cannot be joined, or too few nodes join within ten minutes.
    """
    with joined_ray(address):
        deadline, announced = time.monotonic() + NODES_TIMEOUT, False
        while len(nodes := alive_nodes()) < at_least:
            if time.monotonic() > deadline:
                raise InputError(
                    f"--nodes {at_least}: {len(nodes)} have joined within {NODES_TIMEOUT} s; `ray status` lists them"
                )
            if not announced:
                print(f"waiting for {at_least} nodes; {len(nodes)} have joined", file=sys.stderr, flush=True)
                announced = True
            time.sleep(1)
    return [node for _, node in nodes]


def alive_nodes() -> list[tuple[str, Node]]:
    """Return the nodes of the joined cluster that can run something, each with Ray's id of it."""
    import ray

    nodes = []
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and has.get("CPU"):
            gpus, memory = int(has.get("GPU", 0)), int(has.get("memory", 0))
            nodes.append((node["NodeID"], Node(node["NodeManagerAddress"], int(has["CPU"]), gpus, memory)))
    return nodes
