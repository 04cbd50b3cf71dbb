"""Samples × encoder → cache: in blocks, resumable, in this process or on Ray workers.

A block's vectors depend on the samples, the encoder and the settings alone, so the cache is the same to the byte however often the
command was killed on the way.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from mvsa_tune.cluster.session import Node, nodes_of
from mvsa_tune.data.dataset import Dataset, Sample
from mvsa_tune.data.images import find_unreadable
from mvsa_tune.embeddings.cache import Cache, Origin, cache_path, open_cache, write_cache
from mvsa_tune.embeddings.parts import Block, Parts
from mvsa_tune.embeddings.pipeline import Task, embed_blocks
from mvsa_tune.embeddings.workers import embed_on_ray, worker_count, workers_on
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import Encoder, Tower
from mvsa_tune.errors import InputError, some
from mvsa_tune.machine import cpu_count

# Samples in a block: what a kill can cost. Texts of one block are sorted by length before they are batched.
BLOCK = {"image": 256, "text": 4096}
# Samples that the encoder sees at once. A CPU gains nothing from more than 8, and the allocator takes and returns the memory of
# larger activations page by page every time.
BATCH = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True)
class Settings:
    """How to embed.

    Attributes:
        weights: file or folder of the encoder's weights; None for the hub's cache or the hub.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        batch_size: samples that the encoder sees at once; None for what suits the device (`BATCH`).
        dtype: number format of the cache, `float32` or `float16`.
        text: name of the normalisation that tweets go through.
        skip_bad: go on without the pictures that cannot be read, instead of stopping.
        workers: Ray workers; None for one a GPU or one for eight CPUs, and no Ray for one.
        quiet: no progress bar.
        name: the caches', which pairs are made of; empty for the encoder's.
        address: of the Ray cluster to embed on; None for this machine.
        nodes: of a cluster: wait until so many are there.
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


DEFAULTS = Settings()


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
        nodes = nodes_of(settings.address, settings.nodes) if settings.address else []
        device = _device(settings, nodes)
        # Loaded here first: weights that are missing or wrong are an error before any worker starts.
        tower = encoder.load(modality, settings.weights, _here(device))
        origin = Origin(_preprocessing(tower, modality, settings), f"embedded by {name}", weights=tower.weights)
        if cache := _there_already(dataset, folder, called, modality, origin, settings):
            return cache
        skipped = check_pictures(dataset, skip_bad=settings.skip_bad) if modality == "image" else {}
        batch_size = settings.batch_size or BATCH.get(device.type, BATCH["cuda"])
        parts = Parts(place / f".{modality}.parts", _identity(dataset, origin, settings, skipped, modality, batch_size))
        blocks = _blocks(dataset, modality)
        todo = {index: block for index, block in enumerate(blocks) if not parts.path(index).exists()}
        task = Task(modality, settings.text, settings.dtype, batch_size, cpu_count(), frozenset(skipped))
        left = sum(map(len, todo.values()))
        bar = tqdm(
            total=len(dataset.samples),
            initial=len(dataset.samples) - left,
            unit=" samples",
            desc=f"{called} {modality}",
            disable=settings.quiet or not sys.stderr.isatty(),
        )
        with bar:
            for index, block in _run(tower, name, device, settings, task, todo, nodes):
                parts.write(index, block)
                bar.update(len(block.vectors))
        truncated = parts.truncated(len(blocks))
        origin = Origin(origin.preprocessing, origin.source, tower.weights, truncated, skipped)
        cache = write_cache(dataset, folder, name, modality, parts.vectors(len(blocks)), origin, called)
        parts.remove()
        return cache


def _run(
    tower: Tower,
    name: str,
    device: Any,
    settings: Settings,
    task: Task,
    todo: Mapping[int, Sequence[Sample]],
    nodes: Sequence[Node],
) -> Iterator[tuple[int, Block]]:
    if nodes and todo:
        workers, threads = workers_on(nodes, settings.workers, device, len(todo))
    else:
        workers = worker_count(settings.workers, device, len(todo))
        threads = max(1, cpu_count() // workers)
    if workers == 1 and not nodes:
        return embed_blocks(tower, task, todo)
    task = replace(task, threads=threads)
    return embed_on_ray(name, settings.weights, device, task, todo, workers, settings.address)


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


def check_pictures(dataset: Dataset, *, skip_bad: bool) -> dict[str, str]:
    """Guid → why its picture cannot be read; InputError lists them all unless they are to be skipped."""
    bad = find_unreadable([sample.picture for sample in dataset.samples], cpu_count())
    reasons = {sample.guid: bad[sample.picture] for sample in dataset.samples if sample.picture in bad}
    if reasons and not skip_bad:
        listed = "".join(f"\n  {path}: {why}" for path, why in bad.items())
        raise InputError(f"{len(bad):,} pictures cannot be read:{listed}\nMend them, or go on without them: --skip-bad")
    if len(reasons) == len(dataset.samples):
        raise InputError("no picture can be read: " + some([f"{guid}: {why}" for guid, why in reasons.items()], 3))
    return reasons


def _identity(
    dataset: Dataset, origin: Origin, settings: Settings, skipped: dict[str, str], modality: str, batch_size: int
) -> str:
    """What finished blocks depend on: where it changed, they are made again."""
    return json.dumps(
        [
            dataset.content_fingerprint, origin.preprocessing, origin.weights, settings.dtype, batch_size,
            BLOCK[modality], sorted(skipped),
        ]
    )  # fmt: skip


def _blocks(dataset: Dataset, modality: str) -> list[Sequence[Sample]]:
    size = BLOCK[modality]
    return [dataset.samples[start : start + size] for start in range(0, len(dataset.samples), size)]


def _device(settings: Settings, nodes: Sequence[Node]) -> Any:
    """Where to embed: on this machine, or on the nodes if there are any."""
    import torch

    there = any(node.gpus for node in nodes) if nodes else torch.cuda.is_available()
    if settings.device == "auto":
        return torch.device("cuda" if there else "cpu")
    if settings.device.startswith("cuda") and not there:
        raise InputError(
            f"--device {settings.device}: {'no node' if nodes else 'this machine'} has {'a' if nodes else 'no'} GPU that torch can use"
        )
    return torch.device(settings.device)


def _here(device: Any) -> Any:
    """The device if this machine has it, else its CPU."""
    import torch

    return device if device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")


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
