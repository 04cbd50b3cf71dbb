"""How many processes embed, and the Ray that runs them where they are more than one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvsa_tune.cluster import cpu_count, local_ray
from mvsa_tune.dataset import Sample
from mvsa_tune.encoders import find_encoder
from mvsa_tune.parts import Block
from mvsa_tune.pipeline import Task, embed_blocks

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


def embed_on_ray(
    encoder: str, weights: Path | None, device: Any, task: Task, blocks: Mapping[int, Sequence[Sample]], workers: int
) -> Iterator[tuple[int, Block]]:
    """`embed_blocks` on Ray: each worker loads the encoder and streams its share of the blocks back, in no fixed order."""
    import ray

    threads = max(1, cpu_count() // workers)
    task = replace(task, threads=threads)
    numbers = list(blocks)

    @ray.remote(num_cpus=threads, num_gpus=1 if device.type == "cuda" else 0)
    def work(share: Mapping[int, Sequence[Sample]]) -> Iterator[tuple[int, Block]]:
        import torch

        torch.set_num_threads(threads)
        known = find_encoder(encoder)
        assert known is not None
        # A worker sees its own GPU alone, whatever its number outside.
        yield from embed_blocks(known.load(task.modality, weights, torch.device(device.type)), task, share)

    with local_ray(threads * workers):
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
