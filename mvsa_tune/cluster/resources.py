"""What a trial gets of this machine, or of a cluster's nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from mvsa_tune.cluster.session import Node
from mvsa_tune.errors import InputError, some


@dataclass(frozen=True)
class Placement:
    """What a trial gets of the machine that it runs on.

    Attributes:
        cpus: CPU cores, and threads, of a trial.
        gpus: GPUs of a trial; below 1, a share of one.
        concurrent: number of trials that run at once.
        address: the Ray cluster's; None for this machine.
        nodes: the cluster's, as it was when the sweep was planned; empty for this machine.
        memory: bytes of a trial, where the user gives them.
    """

    cpus: int
    gpus: float
    concurrent: int
    address: str | None = None
    nodes: tuple[Node, ...] = ()
    memory: int | None = None

    @property
    def device(self) -> str:
        """Where trials train: `cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def check_memory(self, need: int) -> None:
        """InputError where no node that could run a trial has `need` bytes: Ray would wait for such a node for ever."""
        able = [node for node in self.nodes if _slots([node], self.cpus, self.gpus)]
        if able and not any(node.memory >= need for node in able):
            sizes = some([f"{node.memory / 2**30:.1f}" for node in able])
            raise InputError(
                f"a trial needs about {need / 2**30:.2f} GiB of memory, and no node has so much for Ray ({sizes} GiB): "
                "if it needs less, say so with --memory-per-trial GIB"
            )


def place(
    trials: int,
    cpus: int | None,
    gpus: float | None,
    nodes: Sequence[Node],
    address: str | None = None,
    memory: int | None = None,
) -> Placement:
    """Choose what a trial gets.

    By default it gets one CPU, and more where there are fewer trials than CPUs. Up to four trials share a GPU, if there
    are CPUs for them.

    Args:
        trials: number of trials.
        cpus: CPUs of a trial; None for the default.
        gpus: GPUs of a trial; None for the default.
        nodes: this machine, or the nodes of the cluster.
        address: the cluster's; None for this machine.
        memory: bytes of a trial, where the user gives them.

    Raises:
        InputError: no node has what a trial needs, so that none could ever start.
    """
    for flag, value, least in (("cpus", cpus, 1), ("gpus", gpus, 0)):
        if value is not None and not least <= value < float("inf"):
            raise InputError(f"--{flag}-per-trial {value:g}: must be {least} or more")
    if gpus is None:
        total = sum(node.gpus for node in nodes)
        beside = sum(node.cpus for node in nodes if node.gpus)
        gpus = 1 / min(4, max(1, beside // total)) if total else 0.0
    if not _slots(nodes, cpus or 1, gpus):
        raise InputError(_too_large(cpus or 1, gpus, nodes, on_cluster=address is not None))
    # As many CPUs as leave room for as many trials at once as with one CPU each.
    wanted = min(trials, _slots(nodes, 1, gpus))
    widest = max(node.cpus for node in nodes)
    cpus = cpus or next(count for count in range(widest, 0, -1) if _slots(nodes, count, gpus) >= wanted)
    concurrent = max(1, min(trials, _slots(nodes, cpus, gpus)))
    return Placement(cpus, gpus, concurrent, address, tuple(nodes) if address else (), memory)


def _slots(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    """Return how many trials nodes can run at once. Ray puts a share of a GPU on one GPU."""
    slots = 0
    for node in nodes:
        by_gpu = node.gpus * int(1 / gpus + 1e-9) if 0 < gpus <= 1 else int(node.gpus // (gpus or 1))
        slots += min(node.cpus // cpus, by_gpu) if gpus else node.cpus // cpus
    return slots


def _too_large(cpus: int, gpus: float, nodes: Sequence[Node], *, on_cluster: bool) -> str:
    if on_cluster:
        sizes = some([f"{node.name} {node.cpus} CPUs, {node.gpus} GPUs" for node in nodes]) or "none"
        request = f"a trial asks for {cpus} CPUs and {gpus:g} GPUs, which no node of the cluster has ({sizes})"
    elif cpus > nodes[0].cpus:
        request = f"--cpus-per-trial {cpus}: this machine has {nodes[0].cpus} CPUs"
    else:
        request = f"--gpus-per-trial {gpus:g}: this machine has {nodes[0].gpus} GPUs"
    return f"{request}; no trial could ever start"
