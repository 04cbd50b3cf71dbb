"""A Ray cluster on this one machine: every node a `ray start` of its own, with its own temporary and working folder.

What it leaves out is the network between machines. A node can be kept from seeing a folder (Linux, with a mount
namespace).
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos import descendants

RAY = Path(sys.executable).with_name("ray")
STORE = 200_000_000  # bytes of a node's object store


class OwnCluster:
    """The head node, which runs no trials, and the nodes that were added."""

    def __init__(self, folder: Path, store: int = STORE) -> None:
        self.folder = folder
        self.store = store
        self.address = f"{_own_ip()}:{_free_port()}"
        # Nobody else's cluster, and for nobody else; workers at the priority that a machine of their own would give
        # them.
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # which the package sets to 0 for a Ray of its own
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("PYTHONPATH", None)  # the source comes from the driver
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def head(self) -> None:
        """Start the head node and wait until it answers."""
        port = self.address.rpartition(":")[2]
        self._start(
            "head",
            [
                "--head",
                "--port",
                port,
                "--ray-client-server-port",
                str(_free_port()),
                "--num-cpus",
                "0",
                "--include-dashboard",
                "false",
            ],
        )
        self._wait_for_head()

    def add(
        self, name: str, cpus: int = 1, gpus: int = 0, memory: int | None = None, hidden: Path | None = None
    ) -> None:
        """Start a node, which may not see a folder; it joins within a few seconds."""
        flags = [
            "--address",
            self.address,
            "--node-ip-address",
            _own_ip(),
            "--num-cpus",
            str(cpus),
            "--num-gpus",
            str(gpus),
        ]
        self._start(name, flags + (["--memory", str(memory)] if memory else []), hidden)

    def node_folder(self, name: str) -> Path:
        """Return the folder of a node."""
        return self.folder / name

    def has_trained(self, name: str) -> bool:
        """Return whether trials have run on a node: the log of a worker process says what it ran."""
        logs = self.node_folder(name).glob("t/session_2*/logs/worker-*.out")
        return any("TrialTrainable" in log.read_text() for log in logs)

    def kill(self, name: str) -> None:
        """End a node and all that it runs at once, as a power cut does."""
        process = self.nodes.pop(name)
        for pid in [*descendants(process.pid), process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def stop(self) -> None:
        """End all nodes, the head last."""
        for name in list(self.nodes)[::-1]:
            self.kill(name)

    def _start(self, name: str, flags: list[str], hidden: Path | None = None) -> None:
        folder = self.node_folder(name)
        folder.mkdir(exist_ok=True)
        command = [str(RAY), "start", *flags, "--temp-dir", str(folder / "t"), "--object-store-memory", str(self.store)]
        command += ["--disable-usage-stats", "--block"]
        if hidden:
            shell = f'mount -t tmpfs none "{hidden}" && exec "$@"'
            command = ["unshare", *_unshare_flags(), "bash", "-c", shell, "bash", *command]
        with (folder / "log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command,
                cwd=folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_for_head(self) -> None:
        host, port = self.address.split(":")
        for _ in range(200):
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
            if self.nodes["head"].poll() is not None:
                break
        raise SystemExit(f"the head node did not start: {(self.node_folder('head') / 'log').read_text()[-2000:]}")


@contextmanager
def own_cluster(store: int = STORE) -> Iterator[OwnCluster]:
    """A cluster of a head node for the time of a `with`. Its folder's name is short: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        cluster = OwnCluster(Path(folder), store)
        try:
            cluster.head()
            yield cluster
        finally:
            cluster.stop()


def can_hide() -> bool:
    """Whether this machine lets us keep a folder from a node's sight."""
    try:
        return subprocess.run(["unshare", *_unshare_flags(), "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unshare_flags() -> list[str]:
    return ["-m"] if os.geteuid() == 0 else ["-r", "-m"]


def _free_port() -> int:
    """A port below those that Ray and the kernel give out by themselves."""
    for port in range(20100 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            if port not in _taken:
                _taken.add(port)
                return port
    raise SystemExit("no free port")


_taken: set[int] = set()


def _own_ip() -> str:
    """The address that Ray takes for this machine: that of the way out, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # a datagram socket sends nothing by this
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
