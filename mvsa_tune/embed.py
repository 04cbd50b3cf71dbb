"""Samples × encoder → cache: in blocks, resumable, on one process or on Ray workers.

Finished blocks lie in `ENCODER/.MODALITY.parts/`, written whole, until the cache is made of them: a command that was killed goes on
from the last one. A block's vectors depend on the samples and the encoder alone, so the cache is the same to the byte.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from mvsa_tune.cache import Cache, Origin, cache_path, open_cache, write_cache
from mvsa_tune.cluster import cpu_count, local_ray
from mvsa_tune.dataset import Dataset, Sample
from mvsa_tune.encoders import Encoder, find_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.pictures import UnreadablePictureError, open_picture, unreadable
from mvsa_tune.text import NORMALISERS
from mvsa_tune.towers import Tower

# Samples in a block: what a kill can cost, and what lies prepared in memory (twice). Pictures weigh 600 kB each there.
BLOCK = {"image": 256, "text": 4096}
NUMBERS = {"float32": np.float32, "float16": np.float16}


@dataclass(frozen=True)
class Settings:
    """How to embed.

    Attributes:
        weights: file or folder of the encoder's weights; None for the hub's cache or the hub.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        batch_size: samples that the encoder sees at once.
        dtype: number format of the cache, `float32` or `float16`.
        text: name of the normalisation that tweets go through.
        skip_bad: go on without the pictures that cannot be read, instead of stopping.
        workers: Ray workers; None for one a GPU, and no Ray for one.
        quiet: no progress bar.
        name: the caches', which pairs are made of; empty for the encoder's.
    """

    weights: Path | None = None
    device: str = "auto"
    batch_size: int = 32
    dtype: str = "float32"
    text: str = "documents"
    skip_bad: bool = False
    workers: int | None = None
    quiet: bool = False
    name: str = ""


DEFAULTS = Settings()


@dataclass(frozen=True)
class Task:
    """What a worker needs to embed any block: small, and the same for all of them."""

    encoder: str
    modality: str
    settings: Settings
    device: str
    threads: int
    skipped: frozenset[str]


def embed(dataset: Dataset, folder: Path, name: str, settings: Settings = DEFAULTS) -> list[Cache]:
    """Embed every modality that an encoder has into caches below `folder`; what is there already is left alone.

    Raises:
        InputError: the encoder is unknown, its weights cannot be had, pictures cannot be read (all are listed), or a
            cache of that name was made with other settings.
    """
    encoder = find_encoder(name)
    if encoder is None:
        raise InputError(f"unknown encoder {name}; `python -m mvsa_tune encoders` lists those there are")
    return [_embed_modality(dataset, folder, name, encoder, modality, settings) for modality in encoder.widths]


def _embed_modality(
    dataset: Dataset, folder: Path, name: str, encoder: Encoder, modality: str, settings: Settings
) -> Cache:
    called = settings.name or name
    place = cache_path(folder, called, modality).parent
    with _only_one(place, modality):
        device = _device(settings)
        # Loaded here first: weights that are missing or wrong are an error before any worker starts.
        tower = encoder.load(modality, settings.weights, device)
        origin = Origin(_preprocessing(tower, modality, settings), f"embedded by {name}", weights=tower.weights)
        if cache := _there_already(dataset, folder, called, modality, origin, settings):
            return cache
        skipped = _check_pictures(dataset, settings) if modality == "image" else {}
        texts = [NORMALISERS[settings.text](sample.text) for sample in dataset.samples] if modality == "text" else []
        truncated = sum(map(tower.is_truncated, texts))
        parts = _Parts(place / f".{modality}.parts", _identity(dataset, origin, settings, skipped, modality))
        blocks = _blocks(dataset, modality)
        todo = [index for index in range(len(blocks)) if not parts.path(index).exists()]
        task = Task(name, modality, settings, str(device), _threads(1), frozenset(skipped))
        done = len(dataset.samples) - sum(len(blocks[index]) for index in todo)
        quiet = settings.quiet or not sys.stderr.isatty()
        total, label = len(dataset.samples), f"{called} {modality}"
        with tqdm(total=total, initial=done, unit=" samples", desc=label, disable=quiet) as bar:
            for index, vectors in _run(tower, task, blocks, todo):
                parts.write(index, vectors)
                bar.update(len(vectors))
        origin = Origin(origin.preprocessing, origin.source, tower.weights, truncated, skipped)
        cache = write_cache(dataset, folder, name, modality, parts.read(len(blocks)), origin, called)
        parts.remove()
        return cache


def _preprocessing(tower: Tower, modality: str, settings: Settings) -> str:
    return f"text {settings.text}; {tower.preprocessing}" if modality == "text" else tower.preprocessing


def _there_already(
    dataset: Dataset, folder: Path, name: str, modality: str, origin: Origin, settings: Settings
) -> Cache | None:
    cache = open_cache(dataset, folder, name, modality)
    if cache is None:
        return None
    made, wanted = cache.manifest, (origin.preprocessing, origin.weights, settings.dtype)
    if (made.preprocessing, made.weights, made.dtype) != wanted:
        raise InputError(
            f"{cache.path} was made otherwise ({made.preprocessing}; {made.weights or 'weights unknown'}; {made.dtype}), "
            f"not as asked for now ({'; '.join(wanted)}): delete it, or give a name with --as NAME"
        )
    return cache


def _check_pictures(dataset: Dataset, settings: Settings) -> dict[str, str]:
    """Guid → why its picture cannot be read; InputError lists them all unless they are to be skipped."""
    bad = unreadable([sample.picture for sample in dataset.samples], _threads(1))
    reasons = {path.stem: why for path, why in bad.items()}
    if reasons and not settings.skip_bad:
        listed = "".join(f"\n  {path}: {why}" for path, why in bad.items())
        raise InputError(f"{len(bad):,} pictures cannot be read:{listed}\nMend them, or go on without them: --skip-bad")
    if len(reasons) == len(dataset.samples):
        raise InputError("no picture can be read: " + some([f"{guid}: {why}" for guid, why in reasons.items()], 3))
    return reasons


def _identity(dataset: Dataset, origin: Origin, settings: Settings, skipped: dict[str, str], modality: str) -> str:
    """What finished blocks depend on: where it changed, they are made again."""
    return json.dumps(
        [
            dataset.content_fingerprint, origin.preprocessing, origin.weights, settings.dtype, settings.batch_size,
            BLOCK[modality], sorted(skipped),
        ]
    )  # fmt: skip


class _Parts:
    """The folder of finished blocks."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        label = folder / "identity.json"
        if label.exists() and label.read_text(encoding="utf-8") != identity:
            shutil.rmtree(folder)
        write_text_whole(label, identity)

    def path(self, index: int) -> Path:
        return self.folder / f"{index:07d}.npy"

    def write(self, index: int, vectors: NDArray[Any]) -> None:
        write_whole(self.path(index), lambda file: np.save(file, vectors, allow_pickle=False))

    def read(self, count: int) -> Iterator[NDArray[Any]]:
        for index in range(count):
            yield np.load(self.path(index), allow_pickle=False)

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _blocks(dataset: Dataset, modality: str) -> list[Sequence[Sample]]:
    size = BLOCK[modality]
    return [dataset.samples[start : start + size] for start in range(0, len(dataset.samples), size)]


def embed_blocks(
    tower: Tower, task: Task, blocks: Sequence[Sequence[Sample]], todo: Iterable[int]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Embed blocks one after another; the next one is read and prepared while the encoder works on this one."""
    with ThreadPoolExecutor(task.threads) as pool:

        def begin(index: int) -> tuple[int, list[Future[Any]]]:
            return index, [pool.submit(_prepare, tower, task, sample) for sample in blocks[index]]

        waiting = None
        for index in todo:
            upcoming = begin(index)
            if waiting:
                yield _finish(tower, task, *waiting)
            waiting = upcoming
        if waiting:
            yield _finish(tower, task, *waiting)


def _prepare(tower: Tower, task: Task, sample: Sample) -> Any:
    """A sample as its tower takes it; None for one that is skipped."""
    if task.modality == "text":
        return tower.prepare(NORMALISERS[task.settings.text](sample.text))
    if sample.guid in task.skipped:
        return None
    try:
        return tower.prepare(open_picture(sample.picture))
    except UnreadablePictureError as error:  # it changed since all of them were checked
        raise InputError(f"{sample.picture} cannot be read: {error}") from None


def _finish(tower: Tower, task: Task, index: int, futures: list[Future[Any]]) -> tuple[int, NDArray[Any]]:
    prepared = [future.result() for future in futures]
    vectors = np.zeros((len(prepared), tower.width), dtype=NUMBERS[task.settings.dtype])
    rows = [row for row, item in enumerate(prepared) if item is not None]
    rows.sort(key=lambda row: tower.length(prepared[row]))  # texts of a length together need little padding
    for start in range(0, len(rows), task.settings.batch_size):
        batch = rows[start : start + task.settings.batch_size]
        vectors[batch] = tower.encode([prepared[row] for row in batch]).numpy()
    return index, vectors


def _run(
    tower: Tower, task: Task, blocks: Sequence[Sequence[Sample]], todo: list[int]
) -> Iterator[tuple[int, NDArray[Any]]]:
    workers = min(_workers(task.settings), len(todo))
    if workers <= 1:
        return embed_blocks(tower, task, blocks, todo)
    return _run_on_ray(task, blocks, todo, workers)


def _run_on_ray(
    task: Task, blocks: Sequence[Sequence[Sample]], todo: list[int], workers: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The same on Ray: each worker loads the encoder and streams its share of the blocks back, to be written here."""
    import ray

    cuda = task.device.startswith("cuda")

    @ray.remote(num_cpus=_threads(workers), num_gpus=1 if cuda else 0)
    def work(task: Task, blocks: list[tuple[int, Sequence[Sample]]]) -> Iterator[tuple[int, NDArray[Any]]]:
        import torch

        torch.set_num_threads(task.threads)
        encoder = find_encoder(task.encoder)
        assert encoder is not None
        tower = encoder.load(task.modality, task.settings.weights, torch.device(task.device))
        mine = dict(blocks)
        numbered = [mine.get(index, ()) for index in range(max(mine) + 1)]
        yield from embed_blocks(tower, task, numbered, sorted(mine))

    share = Task(task.encoder, task.modality, task.settings, task.device, _threads(workers), task.skipped)
    with local_ray(_threads(workers) * workers):
        streams = [
            work.options(num_returns="streaming").remote(
                share, [(index, blocks[index]) for index in todo[one::workers]]
            )
            for one in range(workers)
        ]
        while streams:
            ready, _ = ray.wait(streams, num_returns=1)
            stream: Any = ready[0]
            try:
                yield ray.get(next(stream))
            except StopIteration:
                streams.remove(stream)


def _device(settings: Settings) -> Any:
    import torch

    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {settings.device}: this machine has no GPU that torch can use")
    return torch.device(settings.device)


def _workers(settings: Settings) -> int:
    import torch

    return settings.workers or (torch.cuda.device_count() if settings.device in ("auto", "cuda") else 1) or 1


def _threads(workers: int) -> int:
    return max(1, cpu_count() // workers)


@contextmanager
def _only_one(place: Path, modality: str) -> Iterator[None]:
    """Only one process embeds a modality into a cache at a time; a second one says so and waits."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / f".{modality}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is embedding into {place}; waiting for it to end", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write the cache folder {place}: {error.strerror}; choose --cache") from None
    try:
        yield
    finally:
        lock.release()
