"""The embedding cache: one memory-mapped `.npy` for each modality, beside a manifest that says what made it.

A cache is `FOLDER/ENCODER/MODALITY.npy` (vectors, a row for each sample), `MODALITY.ids.txt` (the samples' guids, a
line for each row) and `MODALITY.json` (the manifest, without which there is no cache).
"""

import hashlib
import json
import mmap
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.encoders.registry import ENCODERS, find_encoder, is_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import append_synced, is_file_name, sha256_of, sync_folder, write_text_whole


@dataclass(frozen=True)
class Manifest:
    """What a cache holds and what made it.

    Attributes:
        encoder: name of the encoder that made it; the cache's own name is its folder's.
        modality: `image` or `text`.
        preprocessing: what happened to a sample before the encoder.
        weights: identity of the encoder's weights; empty if unknown.
        source: what made the vectors: the embedding command, or the file they were imported from.
        content_fingerprint: of the data set they were made from (`Dataset.content_fingerprint`).
        ids_sha256: of the ids file: the samples and their order.
        count: rows.
        width: columns.
        dtype: NumPy's name of the number format.
        sha256: of the `.npy` file.
        truncated: texts that were longer than the encoder takes.
        skipped: guids of the samples that could not be read, and why; their rows are zero.
    """

    encoder: str
    modality: str
    preprocessing: str
    weights: str
    source: str
    content_fingerprint: str
    ids_sha256: str
    count: int
    width: int
    dtype: str
    sha256: str
    truncated: int
    skipped: Mapping[str, str]


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
    mapped: np.memmap[Any, Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    return mapped


def expect_scattered_reads(vectors: NDArray[Any]) -> None:
    """Tell the kernel that rows of a memory map will be read in no order, so that it reads no neighbours along.

    In a file larger than memory, those would push out pages that are wanted: 562 rows a second instead of 18,000
    (bench/LOG.md).
    """
    if isinstance(vectors.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        vectors.base.madvise(mmap.MADV_RANDOM)


def default_folder(data: Path) -> Path:
    """Return the folder of the caches of a data folder, or of a table's file, if `--cache` names none."""
    return data.with_suffix(".embeddings") if data.is_file() else data / "embeddings"


def cache_path(folder: Path, encoder: str, modality: str) -> Path:
    """Return the path of an encoder's vectors; an open name's `/` and `:` become `_`."""
    return folder / re.sub(r"[/:\\]", "_", encoder) / f"{modality}.npy"


def cached_encoders(folder: Path) -> dict[str, list[Manifest]]:
    """Return the manifests of the caches in `folder` by the name that pairs use, leaving out damaged ones."""
    manifests: dict[str, list[Manifest]] = {}
    for path in sorted(folder.glob("*/*.json")):
        with suppress(ValueError, TypeError, KeyError):
            manifest = _read_manifest(path)
            is_plain = cache_path(folder, manifest.encoder, manifest.modality).parent == path.parent
            manifests.setdefault(manifest.encoder if is_plain else path.parent.name, []).append(manifest)
    return manifests


def how_to_make(dataset: Dataset, folder: Path, name: str, modality: str, encoder: str = "") -> str:
    """Return the command that makes the cache of a name; `encoder` made it, if that is known to be another."""
    flags = f"--data {shlex.quote(str(dataset.folder))}{dataset.flags}"
    if folder != default_folder(dataset.folder):
        flags += f" --cache {shlex.quote(str(folder))}"
    encoder = encoder or name
    if is_encoder(encoder):
        called = f" --as {name}, with the same --text and --weights as before" if name != encoder else ""
        return f"python -m mvsa_tune embed {flags} --encoder {shlex.quote(encoder)}{called}"
    return f"python -m mvsa_tune import {flags} --encoder {encoder} --modality {modality} --ids IDS.txt VECTORS.npy"


@dataclass(frozen=True)
class Origin:
    """What made a cache's vectors: the fields of its `Manifest` that only their maker knows."""

    preprocessing: str
    source: str
    weights: str = ""
    truncated: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """The vectors of consecutive samples, `(samples, width)`, from row `row` on; how many of their texts were cut."""

    row: int
    vectors: NDArray[Any]
    truncated: int = 0


class Draft:
    """A cache in the making, from which a command that was killed goes on.

    Vectors are in a hidden `.npy` of their final shape; beside it, in `.blocks`, is a line for each finished block. Its
    first line is the `identity`: all that the vectors depend on. A draft of another identity is thrown away.

    Attributes:
        finished: of the finished blocks, how many texts were cut, by first row.
    """

    def __init__(self, dataset: Dataset, path: Path, identity: str, suffix: str = "") -> None:
        self.dataset, self.path, self.manifest_path = dataset, path, path.with_suffix(".json")
        self.vectors = path.with_name(f".{path.name}{suffix}")
        self.blocks = path.with_name(f".{path.stem}.blocks{suffix}")
        self.finished: dict[int, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.blocks.read_text(encoding="utf-8").splitlines() if self.blocks.exists() else []
        if lines and path.exists() and not (self.vectors.exists() or self.manifest_path.exists()):
            path.replace(self.vectors)  # it was killed just before the manifest was written
        if lines[:1] == [identity] and self.vectors.exists():
            for line in lines[1:]:
                with suppress(ValueError):  # the line of a block that was being written
                    row, truncated = json.loads(line)
                    self.finished[row] = truncated
        else:
            self.vectors.unlink(missing_ok=True)
        write_text_whole(self.blocks, "\n".join([identity, *map(json.dumps, self.finished.items()), ""]))

    def write(self, block: Block) -> None:
        """Write a block to the disk.

        Raises:
            InputError: it has a wrong shape or number format, or a vector is not finite.
            OSError: the disk is full, say.
        """
        vectors = block.vectors
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise InputError(
                f"vectors must be floating point, of shape (samples, width), width not 0: not {vectors.dtype} of shape "
                f"{vectors.shape}"
            )
        if not self.vectors.exists():
            dtype = np.dtype(np.float32) if vectors.dtype.itemsize > 4 else vectors.dtype.newbyteorder("=")
            open_memmap(self.vectors, "w+", dtype, (len(self.dataset.samples), vectors.shape[1]))
            sync_folder(self.vectors.parent)
        whole = open_vectors(self.vectors)
        if vectors.shape[1] != whole.shape[1]:
            raise InputError(f"vectors of width {vectors.shape[1]} cannot be in a cache of width {whole.shape[1]}")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which raises
            vectors = np.ascontiguousarray(vectors, dtype=whole.dtype)
        bad = block.row + np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            names = some([self.dataset.guids[row] for row in bad if row < len(whole)])
            raise InputError(f"{len(bad):,} vectors hold NaN or infinite values: those of samples {names}")
        with self.vectors.open("r+b") as file:  # on a full disk, writing to a memory map would kill the process
            file.seek(whole.offset + block.row * whole.strides[0])
            file.write(vectors.data)
            file.flush()
            os.fsync(file.fileno())
        self.finished[block.row] = block.truncated
        append_synced(self.blocks, f"{json.dumps([block.row, block.truncated])}\n")

    def finish(self, encoder: str, modality: str, origin: Origin) -> Cache:
        """Make the draft the cache, in place of an older one."""
        (ids, ids_sha256), whole = _ids(self.dataset), open_vectors(self.vectors)
        manifest = Manifest(
            encoder=encoder,
            modality=modality,
            content_fingerprint=self.dataset.content_fingerprint,
            ids_sha256=ids_sha256,
            count=whole.shape[0],
            width=whole.shape[1],
            dtype=whole.dtype.name,
            sha256=sha256_of(self.vectors),
            **vars(origin),
        )
        self.manifest_path.unlink(missing_ok=True)
        self.vectors.replace(self.path)
        write_text_whole(self.path.with_suffix(".ids.txt"), ids)
        write_text_whole(self.manifest_path, json.dumps(asdict(manifest), indent=2) + "\n")
        self.discard()
        return Cache(manifest, self.path.absolute())  # worker processes have another working folder

    def discard(self) -> None:
        """Remove what is hidden."""
        self.vectors.unlink(missing_ok=True)
        self.blocks.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the errors of writing into a cache folder into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write the cache folder {folder}: {error.strerror}; choose --cache") from None


def write_cache(
    dataset: Dataset, folder: Path, encoder: str, modality: str, vectors: NDArray[Any], origin: Origin
) -> Cache:
    """Write vectors, `(samples, width)`, floating point, in the data set's order; float64 is stored as float32.

    Raises:
        InputError: the name cannot be a folder's, shapes are wrong, a vector is not finite, or writing failed.
    """
    if not is_file_name(encoder) and not is_encoder(encoder):
        raise InputError(f"--encoder {encoder!r}: an encoder's name is a folder's; use letters, digits, - _ .")
    if len(vectors) != len(dataset.samples):
        raise InputError(f"{len(vectors):,} vectors for the {len(dataset.samples):,} samples of {dataset.folder}")
    path = cache_path(folder, encoder, modality)
    with writing(path.parent):
        draft = Draft(dataset, path, "", f".{os.getpid()}.tmp")
        try:
            draft.write(Block(0, vectors))
            return draft.finish(encoder, modality, origin)
        finally:
            draft.discard()


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
    """Check a cache against the data set; None if there is none of that name.

    Raises:
        InputError: it was made from other data, other samples or another order, or a file is damaged; the message holds
            both values and the command that makes it again.
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
        raise InputError(f"{path} is missing, though its manifest is there{mend}")
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
    if manifest.ids_sha256 != _ids(dataset)[1]:
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


def _ids(dataset: Dataset) -> tuple[str, str]:
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
        encoder, cached = find_encoder(name, fetch=False), cached_encoders(folder)
        if encoder and encoder.widths and modality not in encoder.widths:
            raise InputError(f"encoder {name} has no {modality} side; write pairs as IMAGE_ENCODER+TEXT_ENCODER")
        if not encoder and name in cached:
            raise InputError(f"no {modality} cache of {name} in {folder}; pairs are IMAGE_ENCODER+TEXT_ENCODER")
        if not encoder:
            raise InputError(
                f"unknown encoder {name}: known are {', '.join(dict.fromkeys([*ENCODERS, *cached]))}, and open names "
                "such as timm:NAME or hf:FOLDER; vectors made elsewhere become an encoder by `python -m mvsa_tune "
                "import --encoder NAME …`"
            )
        missing[name, modality] = how_to_make(dataset, folder, name, modality)
    return caches, missing
