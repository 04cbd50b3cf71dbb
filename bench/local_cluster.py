"""A Ray cluster on this machine: each node is a `ray start` with a separate temporary and working folder.

The network between machines is missing. A folder can be hidden from a node (Linux, with a mount namespace).
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


class LocalCluster:
    """The head node, which runs no trials, and the nodes that were added."""

    def __init__(self, folder: Path, store: int = STORE) -> None:
        self.folder = folder
        self.store = store
        self.address = f"{_this_ip()}:{_free_port()}"
        # A token keeps other processes out; workers run at the priority that they would have on separate machines.
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # the package sets it to 0 for a Ray without a cluster
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("PYTHONPATH", None)  # the source comes from the driver
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def head(self) -> None:
        """Start the head node and wait until it answers."""
        port = self.address.rpartition(":")[2]
        ports = ["--port", port, "--ray-client-server-port", str(_free_port())]
        self._start("head", ["--head", *ports, "--num-cpus", "0", "--include-dashboard", "false"])
        self._wait_for_head()

    def add(
        self, name: str, cpus: int = 1, gpus: int = 0, memory: int | None = None, hidden: Path | None = None
    ) -> None:
        """Start a node, which joins within a few seconds and does not see the folder `hidden`."""
        flags = ["--address", self.address, "--node-ip-address", _this_ip()]
        flags += ["--num-cpus", str(cpus), "--num-gpus", str(gpus)]
        self._start(name, flags + (["--memory", str(memory)] if memory else []), hidden)

    def has_trained(self, name: str) -> bool:
        """Return whether trials have run on a node: the log of a worker process says what it ran."""
        logs = (self.folder / name).glob("t/session_2*/logs/worker-*.out")
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
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        command = [str(RAY), "start", *flags, "--temp-dir", str(folder / "t"), "--object-store-memory", str(self.store)]
        command += ["--disable-usage-stats", "--block"]
        if hidden:
            shell = f'mount -t tmpfs none "{hidden}" && exec "$@"'
            command = ["unshare", *_unshare_flags(), "bash", "-c", shell, "bash", *command]
        with (folder / "log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
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
        raise SystemExit(f"the head node did not start: {(self.folder / 'head' / 'log').read_text()[-2000:]}")


@contextmanager
def local_cluster(store: int = STORE) -> Iterator[LocalCluster]:
    """Start a head node, for the time of a `with`; the folder's name is short, because Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        cluster = LocalCluster(Path(folder), store)
        try:
            cluster.head()
            yield cluster
        finally:
            cluster.stop()


def can_hide() -> bool:
    """Return whether a folder can be hidden from a node on this machine."""
    try:
        return subprocess.run(["unshare", *_unshare_flags(), "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _unshare_flags() -> list[str]:
    return ["-m"] if os.geteuid() == 0 else ["-r", "-m"]


def _free_port() -> int:
    """Return a free port below those that Ray and the kernel choose by themselves."""
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


def _this_ip() -> str:
    """Return the address that Ray uses for this machine: that of the route to the internet, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # a datagram socket sends nothing here
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
