"""The embedding cache: one memory-mapped `.npy` for each modality, beside a manifest that says what made it.

A cache is `FOLDER/ENCODER/MODALITY.npy` (vectors, a row for each sample), `MODALITY.ids.txt` (the samples' guids, a
line for each row) and `MODALITY.json` (the manifest, without which there is no cache).
"""

import hashlib
import json
import mmap
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.encoders.registry import find_encoder, is_encoder
from mvsa_tune.errors import InputError
from mvsa_tune.files import sha256_of, short_name
from mvsa_tune.plugins import LOADED


@dataclass(frozen=True)
class Manifest:
    """What a cache holds and what made it."""

    encoder: str  # that made it; the cache's own name is its folder's
    modality: str
    preprocessing: str  # of a sample, before the encoder
    weights: str  # their identity; empty if unknown
    source: str  # the encoder, or the file that the vectors were imported from
    content_fingerprint: str  # `Dataset.content_fingerprint`
    ids_sha256: str  # of the ids file: the samples and their order
    count: int
    width: int
    dtype: str  # NumPy's name
    sha256: str  # of the `.npy` file
    truncated: int  # texts that were longer than the encoder takes
    skipped: Mapping[str, str]  # guids of the samples that could not be read, and why; their rows are zero


@dataclass(frozen=True)
class Cache:
    """A checked cache: its manifest and the path of its vectors."""

    manifest: Manifest
    path: Path

    def vectors(self) -> NDArray[Any]:
        """Open the vectors as a read-only memory map, `(count, width)`."""
        return open_vectors(self.path)


def open_vectors(path: Path, *, mode: Literal["r", "c"] = "r") -> "np.memmap[Any, Any]":
    """Open a cache's vectors as a memory map, read-only, or writable in memory only (`c`, which torch wants)."""
    return np.load(path, mmap_mode=mode, allow_pickle=False)


def expect_scattered_reads(vectors: NDArray[Any]) -> None:
    """Tell the kernel that rows of a memory map will be read in random order, so that it does not read ahead.

    In a file larger than memory, reading ahead pushes out needed pages: 562 rows a second, not 18,000 (bench/LOG.md).
    """
    if isinstance(vectors.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        vectors.base.madvise(mmap.MADV_RANDOM)


def default_folder(data: Path) -> Path:
    """Return the folder of the caches where `--cache` names none; `data` is a folder, or a table's file."""
    return data.with_suffix(".embeddings") if data.is_file() else data / "embeddings"


def cache_path(folder: Path, encoder: str, modality: str) -> Path:
    """Return the path of an encoder's vectors; an open name's `/` and `:` become `_`."""
    return folder / short_name(re.sub(r"[/:\\]", "_", encoder)) / f"{modality}.npy"


def cached_encoders(folder: Path) -> dict[str, list[Manifest]]:
    """Return the readable manifests in `folder`, by the name that `--pairs` takes."""
    manifests: dict[str, list[Manifest]] = {}
    for path in sorted(folder.glob("*/*.json")):
        with suppress(ValueError, TypeError, KeyError):
            manifest = _read_manifest(path)
            is_plain = cache_path(folder, manifest.encoder, manifest.modality).parent == path.parent
            manifests.setdefault(manifest.encoder if is_plain else path.parent.name, []).append(manifest)
    return manifests


def how_to_make(dataset: Dataset, folder: Path, name: str, modality: str, encoder: str = "") -> str:
    """Return the command that makes the cache called `name`; `encoder` is the one that makes it, if not `name`."""
    flags = f"--data {shlex.quote(str(dataset.folder))}{dataset.flags}"
    if folder != default_folder(dataset.folder):
        flags += f" --cache {shlex.quote(str(folder))}"
    if LOADED:
        flags += f" --plugin {shlex.join(map(str, LOADED))}"
    encoder = encoder or name
    if is_encoder(encoder):
        called = f" --as {name}, with the same --text and --weights as before" if name != encoder else ""
        return f"mvsa-tune embed {flags} --encoder {shlex.quote(encoder)}{called}"
    return f"mvsa-tune import {flags} --encoder {encoder} --modality {modality} --ids IDS.txt VECTORS.npy"


def _read_manifest(path: Path) -> Manifest:
    """Read a manifest; ValueError, TypeError or KeyError if it is damaged."""
    values = json.loads(path.read_text(encoding="utf-8"))
    # Version 0.1 called the reference's normalisation of texts `documents`.
    values["preprocessing"] = re.sub("^text documents;", "text reference;", values["preprocessing"])
    manifest = Manifest(**values)
    if not (isinstance(manifest.count, int) and isinstance(manifest.width, int)):
        raise TypeError("count and width must be whole numbers")
    return manifest


def open_cache(dataset: Dataset, folder: Path, name: str, modality: str) -> Cache | None:
    """Open a cache and check it against the data set; return None if there is no such cache.

    Raises:
        InputError: it was made from other data, other samples or another order, or a file is damaged.
    """
    path = cache_path(folder, name, modality)
    manifest_path = path.with_suffix(".json")
    if not manifest_path.exists():
        return None
    try:
        manifest = _read_manifest(manifest_path)
    except (ValueError, TypeError, KeyError) as error:
        mend = f"; make it again: {how_to_make(dataset, folder, name, modality)}"
        raise InputError(f"damaged manifest {manifest_path} ({error}){mend}") from None
    mend = f"; make it again: {how_to_make(dataset, folder, name, modality, manifest.encoder)}"
    if not path.is_file():
        raise InputError(f"{path} is missing, but its manifest exists{mend}")
    if problem := _mismatch(dataset, manifest, path):
        raise InputError(problem + mend)
    if (sha256 := sha256_of(path)) != manifest.sha256:
        raise InputError(
            f"{path} is damaged: its SHA-256 is {sha256[:12]}…, its manifest says {manifest.sha256[:12]}…{mend}"
        )
    shape = open_vectors(path).shape
    if shape != (manifest.count, manifest.width):
        raise InputError(f"{path} has shape {shape}, its manifest says {(manifest.count, manifest.width)}{mend}")
    return Cache(manifest, path.absolute())


def _mismatch(dataset: Dataset, manifest: Manifest, path: Path) -> str:
    """Return how the samples of a cache differ from the data set's; empty if they do not."""
    count = len(dataset.samples)
    if manifest.count != count:
        return f"{path} holds {manifest.count:,} vectors, {dataset.folder} has {count:,} samples"
    if manifest.ids_sha256 != ids_file(dataset)[1]:
        ids_path = path.with_suffix(".ids.txt")
        ids = ids_path.read_text(encoding="utf-8", errors="replace").splitlines() if ids_path.exists() else []
        for row, (cached, wanted) in enumerate(zip(ids, dataset.guids, strict=False)):
            if cached != wanted:
                same = sorted(ids) == sorted(dataset.guids)
                kind = "the same samples in another order" if same else "other samples"
                return f"{path} holds {kind}: row {row} is {cached}, {dataset.folder} has {wanted} there"
        return f"{ids_path} is damaged: it does not list the samples of {path}"
    if manifest.content_fingerprint != dataset.content_fingerprint:
        return (
            f"{path} was made from other texts or pictures: content fingerprint {manifest.content_fingerprint[:12]}…, "
            f"{dataset.folder} has {dataset.content_fingerprint[:12]}…"
        )
    return ""


def ids_file(dataset: Dataset) -> tuple[str, str]:
    """Return the content of the ids file, and its SHA-256."""
    text = "".join(f"{guid}\n" for guid in dataset.guids)
    return text, hashlib.sha256(text.encode()).hexdigest()


def find_caches(
    dataset: Dataset, folder: Path, configs: Iterable[Config]
) -> tuple[dict[tuple[str, str], Cache], dict[tuple[str, str], str]]:
    """Open the caches that configurations need; return those that exist, and the commands that make the others.

    Raises:
        InputError: an encoder is unknown or has no such modality, or a cache does not fit the data.
    """
    caches, missing = {}, {}
    for name, modality in dict.fromkeys((name, kind) for config in configs for kind, name in config.encoders.items()):
        if cache := open_cache(dataset, folder, name, modality):
            caches[name, modality] = cache
            continue
        cached = cached_encoders(folder)
        if name in cached and not is_encoder(name):
            raise InputError(f"no {modality} cache of {name} in {folder}; pairs are IMAGE_ENCODER+TEXT_ENCODER")
        find_encoder(name, modality, fetch=False, caches=cached)
        missing[name, modality] = how_to_make(dataset, folder, name, modality)
    return caches, missing
