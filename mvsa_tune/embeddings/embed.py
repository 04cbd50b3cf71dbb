"""Samples × encoder → cache: in blocks, resumable, in this process or on Ray workers.

A block's vectors depend on the samples, the encoder and the settings alone, so the cache is the same to the byte
however often the command was killed on the way.
"""

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from mvsa_tune.cluster.session import Node, nodes_of
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.images import find_unreadable
from mvsa_tune.data.text import TREATMENTS
from mvsa_tune.embeddings.cache import Cache, cache_path, open_cache
from mvsa_tune.embeddings.draft import Draft, Origin, writing
from mvsa_tune.embeddings.pipeline import Settings, Task, embed_blocks
from mvsa_tune.embeddings.workers import embed_on_ray, workers_for
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import acquire
from mvsa_tune.machine import cpu_count

BLOCK = {"image": 256, "text": 4096}  # samples; a killed command loses at most one block for each worker
# Samples that the encoder gets at once. A CPU gains nothing from more, and larger activations cost it page faults.
BATCH = {"cpu": 16, "cuda": 64}


def embed(dataset: Dataset, folder: Path, name: str, settings: Settings | None = None) -> list[Cache]:
    """Embed every modality that an encoder has into caches in `folder`; a cache that exists is left as it is.

    Raises:
        InputError: the encoder is unknown, its weights cannot be loaded, pictures cannot be read (all are listed), or
            a cache of that name was made with other settings.
    """
    encoder = find_encoder(name)
    settings = settings or Settings()
    return [_embed_modality(dataset, folder, name, encoder, modality, settings) for modality in encoder.widths]


def _embed_modality(
    dataset: Dataset, folder: Path, name: str, encoder: Encoder, modality: str, settings: Settings
) -> Cache:
    path = cache_path(folder, settings.name or name, modality)
    with _locked(path):
        nodes = nodes_of(settings.address, settings.nodes) if settings.address else []
        device, local = _devices(settings, nodes)
        # Load here first: missing or wrong weights are an error before any worker starts.
        tower = encoder.load(modality, settings.weights, local)
        treatment = f"{TREATMENTS[settings.text]}; " if modality == "text" else ""
        preprocessing = f"{treatment}{tower.preprocessing}"
        origin = Origin(preprocessing, f"embedded by {name}", tower.weights)
        if cache := open_cache(dataset, folder, settings.name or name, modality):
            _check_settings(cache, (preprocessing, tower.weights, settings.dtype))
            return cache
        skipped = check_samples(dataset, {modality}, skip_bad=settings.skip_bad)
        batch_size = settings.batch_size or BATCH.get(device.type, BATCH["cuda"])
        samples, size = dataset.samples, BLOCK[modality]
        depends_on = [dataset.content_fingerprint, preprocessing, tower.weights, settings.dtype, batch_size, size]
        draft = Draft(dataset, path, json.dumps([*depends_on, sorted(skipped)]))
        blocks = {row: samples[row : row + size] for row in range(0, len(samples), size) if row not in draft.finished}
        task = Task(modality, settings, batch_size, cpu_count(), frozenset(skipped))
        workers, threads = workers_for(settings.workers, device, len(blocks), nodes)
        if not blocks or (workers == 1 and not nodes):
            embedded = embed_blocks(tower, task, blocks)
        else:
            embedded = embed_on_ray(name, device, replace(task, threads=threads), blocks, workers)
        with tqdm(
            total=len(samples),
            initial=len(samples) - sum(map(len, blocks.values())),
            unit=" samples",
            desc=f"{settings.name or name} {modality}",
            disable=settings.quiet or not sys.stderr.isatty(),
        ) as bar:
            for block in embedded:
                with writing(path.parent):
                    draft.write(block)
                bar.update(len(block.vectors))
        truncated = sum(draft.finished.values())
        return draft.finish(name, modality, replace(origin, truncated=truncated, skipped=skipped))


def _check_settings(cache: Cache, requested: tuple[str, str, str]) -> None:
    """Raise InputError if a cache's preprocessing, weights or number format is not as requested."""
    manifest = cache.manifest
    if (manifest.preprocessing, manifest.weights, manifest.dtype) != requested:
        raise InputError(
            f"{cache.path} was made with other settings ({manifest.preprocessing}; "
            f"{manifest.weights or 'weights unknown'}; {manifest.dtype}), not as requested now "
            f"({'; '.join(requested)}): delete it, or give a name with --as NAME"
        )


def check_samples(dataset: Dataset, modalities: Collection[str], *, skip_bad: bool) -> dict[str, str]:
    """Return why samples cannot be read, by guid; InputError lists them all unless they are to be skipped."""
    texts = dataset.undecodable if "text" in modalities else {}
    paths = [sample.picture for sample in dataset.samples] if "image" in modalities else []
    bad = find_unreadable(paths, cpu_count())
    if texts and not skip_bad:
        raise InputError(
            f"{len(texts):,} texts cannot be decoded: {some(list(texts), 20)}. Name their encoding with --encoding, or "
            "go on without these samples: --skip-bad"
        )
    if bad and not skip_bad:
        listed = "".join(f"\n  {path}: {why}" for path, why in bad.items())
        raise InputError(f"{len(bad):,} pictures cannot be read:{listed}\nMend them, or go on without them: --skip-bad")
    reasons = texts | {sample.guid: bad[sample.picture] for sample in dataset.samples if sample.picture in bad}
    if len(reasons) == len(dataset.samples):
        raise InputError("no sample can be read: " + some([f"{guid}: {why}" for guid, why in reasons.items()], 3))
    return reasons


def _devices(settings: Settings, nodes: Sequence[Node]) -> tuple[Any, Any]:
    """Return the device that embeds, on the nodes if there are any, and the device of this process."""
    import torch

    cpu, is_local = torch.device("cpu"), torch.cuda.is_available()
    has_gpu = any(node.gpus for node in nodes) if nodes else is_local
    if settings.device.startswith("cuda") and not has_gpu:
        where = "no node has a" if nodes else "this machine has no"
        raise InputError(f"--device {settings.device}: {where} GPU that torch can use")
    device = torch.device(("cuda" if has_gpu else "cpu") if settings.device == "auto" else settings.device)
    return device, device if is_local else cpu


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let only one process embed into a cache; another prints a message and waits."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.stem}.lock"))
        try:
            acquire(lock)
        except Timeout:
            print(f"another process is embedding into {path.parent}; waiting for it to end", file=sys.stderr)
            acquire(lock, timeout=-1)
    try:
        yield
    finally:
        lock.release()
