"""Embedding in several processes, by Ray."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mvsa_tune.cluster.session import Node, joined_ray, local_ray
from mvsa_tune.data.dataset import Sample
from mvsa_tune.embeddings.draft import Block
from mvsa_tune.embeddings.pipeline import Task, embed_blocks
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.machine import cpu_count
from mvsa_tune.plugins import LOADED, load_plugins

CPUS_PER_WORKER = 8  # an encoder gains little from more
BLOCKS_PER_WORKER = 8  # fewer are not worth the seconds that Ray and another copy of the encoder take to start


def workers_for(requested: int | None, device: Any, blocks: int, nodes: Sequence[Node] = ()) -> tuple[int, int]:
    """Return how many processes embed, and the threads of each.

    Without `requested`, that is one for each GPU, or for every eight CPUs and at least one for each node. None has less
    than one of the `blocks` that are left; by default, on this machine, less than eight. A `device` with a number
    (`cuda:1`) is that GPU alone. `nodes` are the cluster's, if there is one.
    """
    import torch

    on_gpu = device.type == "cuda"
    if nodes:
        usable = [node for node in nodes if node.gpus or not on_gpu]
        default = sum(node.gpus if on_gpu else max(1, node.cpus // CPUS_PER_WORKER) for node in usable)
        threads = min(CPUS_PER_WORKER, *(node.cpus // (node.gpus if on_gpu else 1) for node in usable))
        return max(1, min(requested or default, blocks)), max(1, threads)
    gpus = torch.cuda.device_count() if device.index is None else 1
    default = min(gpus if on_gpu else cpu_count() // CPUS_PER_WORKER, blocks // BLOCKS_PER_WORKER)
    workers = max(1, min(requested or default, blocks))
    return workers, max(1, cpu_count() // workers)


def embed_on_ray(
    encoder: str, device: Any, task: Task, blocks: Mapping[int, Sequence[Sample]], workers: int
) -> Iterator[Block]:
    """Run `embed_blocks` on Ray: each worker loads the encoder and embeds a share of the blocks.

    They are yielded as they are ready, in no fixed order. `task.threads` is the number of each worker's threads.

    Raises:
        InputError: a node of the cluster cannot read a plug-in, a picture or the weights.
    """
    import ray

    @ray.remote(num_cpus=task.threads, num_gpus=1 if device.type == "cuda" else 0, scheduling_strategy="SPREAD")
    def work(share: Mapping[int, Sequence[Sample]]) -> Iterator[Block]:
        import torch

        load_plugins(plugins)
        torch.set_num_threads(task.threads)
        # A worker sees only its GPU, whatever its number outside.
        tower = find_encoder(encoder).load(task.modality, weights, torch.device(device.type))
        yield from embed_blocks(tower, task, share)

    weights, address, plugins = task.settings.weights, task.settings.address, tuple(LOADED)
    with joined_ray(address) if address else local_ray(task.threads * workers):
        if address:
            from mvsa_tune.cluster.nodes import check_nodes

            samples = [sample for block in blocks.values() for sample in block] if task.modality == "image" else []
            pictures = [sample.picture for sample in samples if sample.guid not in task.skipped]
            check_nodes([*plugins, *([weights] if weights else []), *pictures])
        rows = list(blocks)
        streams = [
            work.options(num_returns="streaming").remote({row: blocks[row] for row in rows[first::workers]})
            for first in range(workers)
        ]
        while streams:
            ready, _ = ray.wait(streams, num_returns=1)
            stream: Any = ready[0]
            try:
                yield ray.get(next(stream))
            except StopIteration:
                streams.remove(stream)
