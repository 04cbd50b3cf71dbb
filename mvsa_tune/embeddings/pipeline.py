"""Samples → blocks of vectors, in one process: threads read and prepare while the encoder works."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

from mvsa_tune.data.dataset import Sample
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.embeddings.parts import Block
from mvsa_tune.encoders.towers import Tower
from mvsa_tune.errors import InputError
from mvsa_tune.machine import keep_freed_memory

Item = TypeVar("Item")
NUMBERS = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Task:
    """What is needed beside the tower to embed any block: small, and the same for all of them.

    Attributes:
        modality: `image` or `text`.
        text: name of the normalisation that tweets go through.
        dtype: number format of the vectors, `float32` or `float16`.
        batch_size: samples that the encoder sees at once.
        threads: of the encoder, and as many that prepare.
        skipped: guids of the samples that cannot be read; their rows are zero.
    """

    modality: str
    text: str
    dtype: str
    batch_size: int
    threads: int
    skipped: frozenset[str]


def embed_blocks(tower: Tower, task: Task, blocks: Mapping[int, Sequence[Sample]]) -> Iterator[tuple[int, Block]]:
    """Embed blocks one after another, in the order of the mapping.

    Pictures go to the encoder batch by batch as they are ready, at most four batches of them prepared in memory; of texts, a whole
    block is sorted by length first, so that a batch needs little padding.
    """
    keep_freed_memory()
    ahead = 4 * task.batch_size if task.modality == "image" else max(map(len, blocks.values()), default=0)
    with preparing_threads(task.threads) as pool:
        samples = chain.from_iterable(blocks.values())
        ready = prefetch(pool, lambda sample: _prepare(tower, task, sample), samples, ahead)
        for index, block in blocks.items():
            yield index, _encode(tower, task, len(block), islice(ready, len(block)))


def prefetch(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Any], items: Iterator[Item], ahead: int
) -> Iterator[Any]:
    """The prepared items in order, `ahead` of them always begun before they are asked for."""
    begun: deque[Future[Any]] = deque(pool.submit(prepare, item) for item in islice(items, ahead))
    while begun:
        first = begun.popleft().result()
        begun.extend(pool.submit(prepare, item) for item in islice(items, 1))
        yield first


def _prepare(tower: Tower, task: Task, sample: Sample) -> Any:
    """A sample as its tower takes it; None for one that is skipped."""
    if task.modality == "text":
        return tower.prepare(NORMALISERS[task.text](sample.text))
    if sample.guid in task.skipped:
        return None
    try:
        return tower.prepare(open_picture(sample.picture))
    except UnreadablePictureError as error:  # it changed since all of them were checked
        raise InputError(f"{sample.picture} cannot be read: {error}") from None


def _encode(tower: Tower, task: Task, count: int, prepared: Iterable[Any]) -> Block:
    vectors = np.zeros((count, tower.width), dtype=NUMBERS[task.dtype])
    truncated = 0
    numbered: Iterator[tuple[int, Any]] = ((row, item) for row, item in enumerate(prepared) if item is not None)
    if task.modality == "text":
        numbered = iter(sorted(numbered, key=lambda pair: len(pair[1])))
    while batch := list(islice(numbered, task.batch_size)):
        rows, items = [row for row, _ in batch], [item for _, item in batch]
        vectors[rows] = tower.encode(items).numpy()
        truncated += sum(map(tower.is_truncated, items))
    return Block(vectors, truncated)


@contextmanager
def preparing_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that prepare. Torch's own threads are for the encoder: each of these would bring as many again."""
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # In each of those threads the call set what threads begun from now on take, too.
        torch.set_num_threads(threads)
