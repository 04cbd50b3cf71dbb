"""How many processes embed, and the Ray that runs them where they are more than one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvsa_tune.cluster.session import Node, joined_ray, local_ray
from mvsa_tune.data.dataset import Sample
from mvsa_tune.embeddings.parts import Block
from mvsa_tune.embeddings.pipeline import Task, embed_blocks
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.machine import cpu_count

CPUS_A_WORKER = 8  # an encoder gains little from more
BLOCKS_A_WORKER = 8  # fewer do not pay for the seconds that Ray and another copy of the encoder take to start


def worker_count(asked: int | None, device: Any, blocks: int) -> int:
    """Processes to embed `blocks` blocks with: as asked, else one a GPU or one for eight CPUs; 1 means this one, without Ray.

    Args:
        asked: `--workers`, or None.
        device: the `torch.device`; with a number (`cuda:1`) it is that GPU alone.
        blocks: that are left to do; never more workers than those, and by default each has eight at least.
    """
    import torch

    if asked:
        return max(1, min(asked, blocks))
    places = cpu_count() // CPUS_A_WORKER
    if device.type == "cuda":
        places = torch.cuda.device_count() if device.index is None else 1
    return max(1, min(places, blocks // BLOCKS_A_WORKER))


def workers_on(nodes: Sequence[Node], asked: int | None, device: Any, blocks: int) -> tuple[int, int]:
    """Processes to embed with on the nodes of a cluster, and the threads of each: one a GPU, or one for eight CPUs and at least one a node.

    The arguments are `worker_count`'s.
    """
    having = [node for node in nodes if node.gpus] if device.type == "cuda" else list(nodes)
    places = sum(node.gpus if device.type == "cuda" else max(1, node.cpus // CPUS_A_WORKER) for node in having)
    threads = min(node.cpus // (node.gpus if device.type == "cuda" else 1) for node in having)
    return max(1, min(asked or places, blocks)), max(1, min(threads, CPUS_A_WORKER))


def embed_on_ray(
    encoder: str,
    weights: Path | None,
    device: Any,
    task: Task,
    blocks: Mapping[int, Sequence[Sample]],
    workers: int,
    address: str | None = None,
) -> Iterator[tuple[int, Block]]:
    """`embed_blocks` on Ray: each worker loads the encoder and streams its share of the blocks back, in no fixed order.

    Args:
        encoder: its name.
        weights: its file or folder, None for the hub's.
        device: the `torch.device` of the workers.
        task: what is the same for all blocks, with the threads of a worker.
        blocks: by number.
        workers: how many.
        address: of the cluster they run on, None for this machine.

    Raises:
        InputError: a node does not see a picture or the weights.
    """
    import ray

    numbers = list(blocks)

    @ray.remote(num_cpus=task.threads, num_gpus=1 if device.type == "cuda" else 0, scheduling_strategy="SPREAD")
    def work(share: Mapping[int, Sequence[Sample]]) -> Iterator[tuple[int, Block]]:
        import torch

        torch.set_num_threads(task.threads)
        known = find_encoder(encoder)
        assert known is not None
        # A worker sees its own GPU alone, whatever its number outside.
        yield from embed_blocks(known.load(task.modality, weights, torch.device(device.type)), task, share)

    with _ray(address, task.threads * workers, _files(weights, task, blocks)):
        streams = [
            work.options(num_returns="streaming").remote({index: blocks[index] for index in numbers[one::workers]})
            for one in range(workers)
        ]
        while streams:
            ready, _ = ray.wait(streams, num_returns=1)
            stream: Any = ready[0]
            try:
                yield ray.get(next(stream))
            except StopIteration:
                streams.remove(stream)


def _files(weights: Path | None, task: Task, blocks: Mapping[int, Sequence[Sample]]) -> list[Path]:
    """What every node must see."""
    samples = [sample for block in blocks.values() for sample in block] if task.modality == "image" else []
    return [*([weights] if weights else []), *(one.picture for one in samples if one.guid not in task.skipped)]


@contextmanager
def _ray(address: str | None, cpus: int, files: Sequence[Path]) -> Iterator[None]:
    if address is None:
        with local_ray(cpus):
            yield
        return
    with joined_ray(address):
        from mvsa_tune.cluster.nodes import check_nodes

        check_nodes(files)
        yield
