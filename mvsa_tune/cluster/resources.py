"""What a trial gets of the machine, or of a cluster's nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from mvsa_tune.cluster.session import Node
from mvsa_tune.errors import InputError, some


@dataclass(frozen=True)
class Placement:
    """What a trial gets of where it runs.

    Attributes:
        cpus: CPU cores, and threads, of a trial.
        gpus: share of a GPU, or whole GPUs, of a trial.
        concurrent: how many trials fit at once.
        address: of the Ray cluster that trials run on; None for a Ray of our own on this machine.
        nodes: those that the cluster had when this was decided; none on this machine alone.
        memory: bytes that a trial is given, where the user said so.
    """

    cpus: int
    gpus: float
    concurrent: int
    address: str | None = None
    nodes: tuple[Node, ...] = ()
    memory: int | None = None

    @property
    def device(self) -> str:
        """Where trials train: `cuda` if they get a GPU, or part of one, else `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def check_memory(self, need: int) -> None:
        """InputError where no node that could hold a trial has `need` bytes: Ray would wait for one for ever."""
        able = [node for node in self.nodes if _slots(node, self.cpus, self.gpus)]
        if able and not any(node.memory >= need for node in able):
            raise InputError(
                f"a trial needs about {need / 2**30:.2f} GiB of memory, and no node has so much for Ray "
                f"({some([f'{node.memory / 2**30:.1f}' for node in able])} GiB): --memory-per-trial GIB if you know better"
            )


def place(
    trials: int,
    cpus_per_trial: int | None,
    gpus_per_trial: float | None,
    nodes: Sequence[Node],
    address: str | None = None,
    memory: int | None = None,
) -> Placement:
    """Choose what a trial gets, from what the machine or the cluster has and what was asked.

    By default one CPU a trial, more where there are fewer trials than CPUs; where there are GPUs as many trials share one as there
    are CPUs for, up to four.

    Args:
        trials: how many there will be.
        cpus_per_trial: what was asked, None for the default.
        gpus_per_trial: the same.
        nodes: what there is: this machine, or the nodes of the cluster at `address`.
        address: the cluster's; None for this machine.
        memory: bytes a trial, where the user said so.

    Raises:
        InputError: more was asked for than any node has, so that no trial could ever start.
    """
    for flag, value, least in (("cpus", cpus_per_trial, 1), ("gpus", gpus_per_trial, 0)):
        if value is not None and not least <= value < float("inf"):
            raise InputError(f"--{flag}-per-trial {value:g}: must be {least} or more")
    if gpus_per_trial is None:
        having = [node for node in nodes if node.gpus]
        gpus, beside = sum(node.gpus for node in having), sum(node.cpus for node in having)
        gpus_per_trial = 1 / min(4, max(1, beside // gpus)) if gpus else 0.0
    asked = cpus_per_trial or 1
    if not _total(nodes, asked, gpus_per_trial):
        raise InputError(_never(asked, gpus_per_trial, nodes, on_cluster=address is not None))
    # The most threads with which as many trials run at once as with one each, or all there are.
    wanted = min(trials, _total(nodes, 1, gpus_per_trial))
    widest = max(node.cpus for node in nodes)
    share = cpus_per_trial or next(
        share for share in range(widest, 0, -1) if _total(nodes, share, gpus_per_trial) >= wanted
    )
    at_once = max(1, min(trials, _total(nodes, share, gpus_per_trial)))
    return Placement(share, gpus_per_trial, at_once, address, tuple(nodes) if address else (), memory)


def _slots(node: Node, cpus: int, gpus: float) -> int:
    """How many trials of `cpus` CPUs and `gpus` GPUs a node holds at once. Ray puts a share of a GPU on one GPU."""
    by_cpu = node.cpus // cpus
    if not gpus:
        return by_cpu
    return min(by_cpu, node.gpus * int(1 / gpus + 1e-9) if gpus <= 1 else int(node.gpus // gpus))


def _total(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    return sum(_slots(node, cpus, gpus) for node in nodes)


def _never(cpus: int, gpus: float, nodes: Sequence[Node], *, on_cluster: bool) -> str:
    """Say what was asked for and what there is."""
    if not on_cluster:
        (machine,) = nodes
        flag, has = (
            (f"--cpus-per-trial {cpus}", f"{machine.cpus} CPUs")
            if cpus > machine.cpus
            else (f"--gpus-per-trial {gpus:g}", f"{machine.gpus} GPUs")
        )
        return f"{flag}: this machine has {has}; no trial could ever start"
    there = some([f"{node.name} {node.cpus} CPUs, {node.gpus} GPUs" for node in nodes]) or "none"
    return f"a trial asks for {cpus} CPUs and {gpus:g} GPUs, which no node of the cluster has ({there}): no trial could ever start"
