"""Samples → blocks of vectors, in one process: threads read and prepare while the encoder works."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mvsa_tune.data.dataset import Sample
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.embeddings.cache import Block
from mvsa_tune.encoders.towers import Tower
from mvsa_tune.errors import InputError
from mvsa_tune.machine import keep_freed_memory

Item = TypeVar("Item")


@dataclass(frozen=True)
class Settings:
    """How to embed.

    Attributes:
        weights: file or folder of the encoder's weights; None for the published ones.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        batch_size: samples that the encoder sees at once; None for what suits the device (`embed.BATCH`).
        dtype: number format of the cache, `float32` or `float16`.
        text: name of the normalisation of tweets.
        skip_bad: go on without the pictures that cannot be read.
        workers: Ray workers; None for one for each GPU or eight CPUs, and no Ray if that is one.
        quiet: no progress bar.
        name: of the caches, for pairs; empty for the encoder's.
        address: of the Ray cluster to embed on; None for this machine.
        nodes: of a cluster: wait until there are so many.
    """

    weights: Path | None = None
    device: str = "auto"
    batch_size: int | None = None
    dtype: str = "float32"
    text: str = "reference"
    skip_bad: bool = False
    workers: int | None = None
    quiet: bool = False
    name: str = ""
    address: str | None = None
    nodes: int = 1


@dataclass(frozen=True)
class Task:
    """What every block needs, besides the tower.

    Attributes:
        modality: `image` or `text`.
        settings: number format and normalisation of texts are used, and by workers the weights.
        batch_size: samples that the encoder sees at once.
        threads: of the encoder, and as many that prepare.
        skipped: guids of the samples that cannot be read; their rows are zero.
    """

    modality: str
    settings: Settings
    batch_size: int
    threads: int
    skipped: frozenset[str] = frozenset()


def embed_blocks(tower: Tower, task: Task, blocks: Mapping[int, Sequence[Sample]]) -> Iterator[Block]:
    """Embed blocks of samples, given by their first rows, one after another.

    Pictures go to the encoder batch by batch as they are ready, at most four batches of them prepared in memory; texts
    of a block are sorted by length first, so that batches need little padding.
    """
    keep_freed_memory()
    ahead = 4 * task.batch_size if task.modality == "image" else max(map(len, blocks.values()), default=0)
    with preparing_threads(task.threads) as pool:
        samples = chain.from_iterable(blocks.values())
        ready = prefetch(pool, lambda sample: _prepare(tower, task, sample), samples, ahead)
        for row, block in blocks.items():
            yield _encode(tower, task, row, len(block), islice(ready, len(block)))


def prefetch(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Any], items: Iterator[Item], ahead: int
) -> Iterator[Any]:
    """Yield the prepared items in order, `ahead` of them begun before they are needed."""
    begun: deque[Future[Any]] = deque(pool.submit(prepare, item) for item in islice(items, ahead))
    while begun:
        first = begun.popleft().result()
        begun.extend(pool.submit(prepare, item) for item in islice(items, 1))
        yield first


def _prepare(tower: Tower, task: Task, sample: Sample) -> Any:
    """Return a sample as its tower takes it; None for one that is skipped."""
    if task.modality == "text":
        return tower.prepare(NORMALISERS[task.settings.text](sample.text))
    if sample.guid in task.skipped:
        return None
    try:
        return tower.prepare(open_picture(sample.picture))
    except UnreadablePictureError as error:  # it changed after all pictures were checked
        raise InputError(f"{sample.picture} cannot be read: {error}") from None


def _encode(tower: Tower, task: Task, row: int, count: int, prepared: Iterable[Any]) -> Block:
    vectors = np.zeros((count, tower.width), dtype=np.dtype(task.settings.dtype))
    truncated = 0
    numbered: Iterator[tuple[int, Any]] = ((index, item) for index, item in enumerate(prepared) if item is not None)
    if task.modality == "text":
        numbered = iter(sorted(numbered, key=lambda pair: len(pair[1])))
    while batch := list(islice(numbered, task.batch_size)):
        indices, items = [index for index, _ in batch], [item for _, item in batch]
        vectors[indices] = tower.encode(items).numpy()
        truncated += sum(map(tower.is_truncated, items))
    return Block(row, vectors, truncated)


@contextmanager
def preparing_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Run threads that prepare. Torch's own threads are for the encoder: each of these would bring as many again."""
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # The call in each of those threads also set what later threads begin with.
        torch.set_num_threads(threads)
