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
from mvsa_tune.embeddings.draft import Block
from mvsa_tune.encoders.towers import Tower
from mvsa_tune.errors import InputError
from mvsa_tune.machine import keep_freed_memory

Item = TypeVar("Item")


@dataclass(frozen=True)
class Settings:
    """How to embed."""

    weights: Path | None = None  # file or folder of the encoder's weights; None for the published ones
    device: str = "auto"  # `cpu`, `cuda`, or `auto`: a GPU if there is one
    batch_size: int | None = None  # samples that the encoder sees at once; None for what suits the device
    dtype: str = "float32"  # number format of the cache, `float32` or `float16`
    text: str = "reference"  # name of the normalisation of tweets
    skip_bad: bool = False  # go on without the samples that cannot be read
    workers: int | None = None  # processes; None for one for each GPU or for every eight CPUs. One runs without Ray
    quiet: bool = False  # no progress bar
    name: str = ""  # of the caches; empty for the encoder's name
    address: str | None = None  # of the Ray cluster to embed on; None for this machine
    nodes: int = 1  # wait until the cluster has this many


@dataclass(frozen=True)
class Task:
    """What embedding a block needs, besides the tower."""

    modality: str
    settings: Settings
    batch_size: int
    threads: int  # for the encoder, and as many more to prepare samples
    skipped: frozenset[str] = frozenset()  # guids of the samples that cannot be read; their rows are zero


def embed_blocks(tower: Tower, task: Task, blocks: Mapping[int, Sequence[Sample]]) -> Iterator[Block]:
    """Embed blocks of samples, by first row, one after another.

    At most four batches of prepared pictures are in memory; a block's texts are sorted by length, to save padding.
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
    """Return a sample as its tower takes it; None if it is skipped."""
    if sample.guid in task.skipped:
        return None
    if task.modality == "text":
        return tower.prepare(NORMALISERS[task.settings.text](sample.text))
    return prepare_picture(tower, sample.picture)


def prepare_picture(tower: Tower, path: Path) -> Any:
    """Return a picture as its tower takes it; InputError if it cannot be read."""
    try:
        return tower.prepare(open_picture(path))
    except UnreadablePictureError as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _encode(tower: Tower, task: Task, row: int, count: int, prepared: Iterable[Any]) -> Block:
    vectors, truncated = np.zeros((count, tower.width), dtype=np.dtype(task.settings.dtype)), 0
    numbered: Iterator[tuple[int, Any]] = (pair for pair in enumerate(prepared) if pair[1] is not None)
    if task.modality == "text":
        numbered = iter(sorted(numbered, key=lambda pair: len(pair[1])))
    while batch := list(islice(numbered, task.batch_size)):
        indices, items = [index for index, _ in batch], [item for _, item in batch]
        vectors[indices] = tower.encode(items).numpy()
        truncated += sum(map(tower.is_truncated, items))
    return Block(row, vectors, truncated)


@contextmanager
def preparing_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Run threads that prepare samples, each with a single torch thread: torch's others are for the encoder."""
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # Setting it in those threads also set the default of later threads.
        torch.set_num_threads(threads)
