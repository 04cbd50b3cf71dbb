"""The embedding cache: one memory-mapped `.npy` a modality, beside a manifest that says what made it.

A cache is `FOLDER/ENCODER/MODALITY.npy` (vectors, a row a sample), `MODALITY.ids.txt` (the samples' guids, a line a row)
and `MODALITY.json` (the manifest). The manifest is removed first and written last: without it there is no cache.
"""

import dataclasses
import hashlib
import json
import mmap
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.encoders.registry import ENCODERS, find_encoder, is_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import is_file_name, sha256_of, write_text_whole, write_whole


@dataclass(frozen=True)
class Manifest:
    """What a cache holds and what made it.

    Attributes:
        encoder: name of the encoder that made it; the cache's own is its folder's.
        modality: `image` or `text`.
        preprocessing: what happened to a sample before the encoder.
        weights: identity of the encoder's weights; empty where it is not known.
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
    """A checked cache: its manifest and where its vectors lie."""

    manifest: Manifest
    path: Path

    def vectors(self) -> NDArray[Any]:
        """Open the vectors as a read-only memory map, `(count, width)`."""
        return open_vectors(self.path)


def open_vectors(path: Path, *, mode: Literal["r", "c"] = "r") -> NDArray[Any]:
    """Open a cache's vectors as a memory map, read-only or (`c`, which torch wants) with what is written lost at the end."""
    mapped: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    return mapped


def expect_scattered_reads(vectors: NDArray[Any]) -> None:
    """Tell the kernel that rows of what `open_vectors` gave will be read in no order: it then reads no neighbours along.

    Where a file is larger than memory, they would push out pages that are wanted: 562 rows a second instead of 18,000 (bench/LOG.md).
    """
    if isinstance(vectors.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        vectors.base.madvise(mmap.MADV_RANDOM)


def default_folder(data: Path) -> Path:
    """Where the caches of a data folder, or of a table's file, live unless `--cache` says otherwise."""
    return data.with_suffix(".embeddings") if data.is_file() else data / "embeddings"


def cached_encoders(folder: Path) -> dict[str, list[Manifest]]:
    """The names that a pair can be made of, with the manifests of their caches below `folder`; damaged ones left out."""
    found: dict[str, list[Manifest]] = {}
    for path in sorted(folder.glob("*/*.json")):
        with suppress(ValueError, TypeError):
            manifest = _read_manifest(path)
            its_own = cache_path(folder, manifest.encoder, manifest.modality).parent == path.parent
            found.setdefault(manifest.encoder if its_own else path.parent.name, []).append(manifest)
    return found


def cache_path(folder: Path, encoder: str, modality: str) -> Path:
    """Where the vectors of an encoder lie; an open name's `/` and `:` become `_` in its folder's."""
    return folder / re.sub(r"[/:\\]", "_", encoder) / f"{modality}.npy"


def how_to_make(dataset: Dataset, folder: Path, name: str, modality: str, encoder: str = "") -> str:
    """Return the command that makes a cache of a name; `encoder` made it, where that is known to be another."""
    place = f"--data {shlex.quote(str(dataset.folder))}{dataset.flags}"
    if folder != default_folder(dataset.folder):
        place += f" --cache {shlex.quote(str(folder))}"
    encoder = encoder or name
    if is_encoder(encoder):
        called = f" --as {name}, with the --text and --weights of then" if name != encoder else ""
        return f"python -m mvsa_tune embed {place} --encoder {shlex.quote(encoder)}{called}"
    return f"python -m mvsa_tune import {place} --encoder {encoder} --modality {modality} --ids IDS.txt VECTORS.npy"


@dataclass(frozen=True)
class Origin:
    """What made a cache's vectors: the fields of its `Manifest` that only their maker knows."""

    preprocessing: str
    source: str
    weights: str = ""
    truncated: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


def write_cache(
    dataset: Dataset,
    folder: Path,
    encoder: str,
    modality: str,
    blocks: Iterable[NDArray[Any]],
    origin: Origin,
    name: str = "",
) -> Cache:
    """Write the vectors of a data set, in its order, whole or not at all, a block at a time.

    Args:
        dataset: the samples; row i of the blocks, one after another, belongs to its sample i.
        folder: where caches live; the encoder's folder is made in it.
        encoder: its name.
        modality: `image` or `text`.
        blocks: `(rows, width)` each, floating point of one kind; float64 is stored as float32.
        origin: what made them, for the manifest.
        name: the cache's, which becomes a folder's and stands in pairs; the encoder's by default.

    Raises:
        InputError: the name is not a plain file name, the shapes are wrong, a vector is not finite, or the folder cannot
            be written.
    """
    name = name or encoder
    if not is_file_name(name) and not is_encoder(name):
        raise InputError(f"--encoder {name!r}: an encoder's name is a folder's; use letters, digits, - _ .")
    path = cache_path(folder, name, modality)
    manifest_path = path.with_suffix(".json")
    written = _BlockWriter(dataset)
    try:
        # Only when the new vectors are whole does the old manifest go, and only then do they take the old ones' name.
        write_whole(path, lambda file: written.write(file, blocks, before_rename=manifest_path))
        write_text_whole(path.with_suffix(".ids.txt"), _ids_text(dataset))
    except OSError as error:
        raise InputError(f"cannot write the cache folder {path.parent}: {error.strerror}; choose --cache") from None
    manifest = Manifest(
        encoder=encoder,
        modality=modality,
        content_fingerprint=dataset.content_fingerprint,
        ids_sha256=_sha256(_ids_text(dataset)),
        count=len(dataset.samples),
        width=written.width,
        dtype=written.dtype.name,
        sha256=sha256_of(path),
        **vars(origin),
    )
    write_text_whole(manifest_path, json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")
    return Cache(manifest, path.absolute())


class _BlockWriter:
    """Writes a `.npy` file from blocks, checking each."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.width = 0
        self.rows = 0
        self.dtype = np.dtype(np.float32)

    def write(self, file: BinaryIO, blocks: Iterable[NDArray[Any]], before_rename: Path) -> None:
        total = len(self.dataset.samples)
        for block in blocks:
            self._check_shape(block)
            if not self.rows:
                self.width = block.shape[1]
                self.dtype = np.dtype(np.float32) if block.dtype.itemsize > 4 else block.dtype.newbyteorder("=")
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": (total, self.width)}
                np.lib.format.write_array_header_1_0(file, header)
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
                block = np.ascontiguousarray(block, dtype=self.dtype)
            self._check_finite(block)
            file.write(block.data)
            self.rows += len(block)
        if self.rows != total:
            raise InputError(f"{self.rows:,} vectors for the {total:,} samples of {self.dataset.folder}")
        before_rename.unlink(missing_ok=True)

    def _check_shape(self, block: NDArray[Any]) -> None:
        if block.ndim != 2 or block.dtype.kind != "f":
            shape = f"{block.dtype} of shape {block.shape}"
            raise InputError(f"vectors must be (samples, width) floating point, not {shape}")
        if not block.shape[1] or (self.rows and block.shape[1] != self.width):
            raise InputError(f"vectors of width {block.shape[1]} cannot be cached here: width must be one and not 0")

    def _check_finite(self, block: NDArray[Any]) -> None:
        bad = self.rows + np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            names = some([self.dataset.guids[row] for row in bad if row < len(self.dataset.samples)])
            raise InputError(f"{len(bad):,} vectors hold NaN or infinite values: those of samples {names}")


def _read_manifest(path: Path) -> Manifest:
    """Read a manifest; ValueError or TypeError if it is damaged."""
    manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
    if not (isinstance(manifest.count, int) and isinstance(manifest.width, int)):
        raise TypeError("count and width must be whole numbers")
    return manifest


def open_cache(dataset: Dataset, folder: Path, name: str, modality: str) -> Cache | None:
    """Check a cache against the data set it is to serve; None where there is none of that name.

    Raises:
        InputError: it was made from other data, other samples or another order, or a file is damaged; the message holds
            both values and the command that mends it.
    """
    path = cache_path(folder, name, modality)
    if not path.with_suffix(".json").exists():
        return None
    try:
        manifest = _read_manifest(path.with_suffix(".json"))
    except (ValueError, TypeError) as error:
        mend = f"; make it again: {how_to_make(dataset, folder, name, modality)}"
        raise InputError(f"damaged manifest {path.with_suffix('.json')} ({error}){mend}") from None
    mend = f"; make it again: {how_to_make(dataset, folder, name, modality, manifest.encoder)}"
    if not path.is_file():
        raise InputError(f"{path} is missing, though its manifest is there{mend}")
    _check_samples(dataset, manifest, path, mend)
    if (found := sha256_of(path)) != manifest.sha256:
        raise InputError(
            f"{path} is damaged: its SHA-256 is {found[:12]}…, its manifest says {manifest.sha256[:12]}…{mend}"
        )
    cache = Cache(manifest, path.absolute())  # worker processes have another working folder
    shape = cache.vectors().shape
    if shape != (manifest.count, manifest.width):
        raise InputError(f"{path} has shape {shape}, its manifest says {(manifest.count, manifest.width)}{mend}")
    return cache


def _check_samples(dataset: Dataset, manifest: Manifest, path: Path, mend: str) -> None:
    count = len(dataset.samples)
    if manifest.count != count:
        raise InputError(f"{path} holds {manifest.count:,} vectors, {dataset.folder} has {count:,} samples{mend}")
    if manifest.ids_sha256 != _sha256(_ids_text(dataset)):
        raise InputError(f"{_first_difference(dataset, path)}{mend}")
    if manifest.content_fingerprint != dataset.content_fingerprint:
        raise InputError(
            f"{path} was made from other texts or pictures: content fingerprint {manifest.content_fingerprint[:12]}…, "
            f"{dataset.folder} has {dataset.content_fingerprint[:12]}…{mend}"
        )


def _first_difference(dataset: Dataset, path: Path) -> str:
    ids_path = path.with_suffix(".ids.txt")
    ids = ids_path.read_text(encoding="utf-8", errors="replace").splitlines() if ids_path.exists() else []
    for row, (cached, wanted) in enumerate(zip(ids, dataset.guids, strict=False)):
        if cached != wanted:
            kind = "the same samples in another order" if sorted(ids) == sorted(dataset.guids) else "other samples"
            return f"{path} holds {kind}: row {row} is {cached}, {dataset.folder} has {wanted} there"
    return f"{ids_path} is damaged: it does not list the samples of {path}"


def _ids_text(dataset: Dataset) -> str:
    return "".join(f"{guid}\n" for guid in dataset.guids)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
                f"unknown encoder {name}: known are {', '.join(dict.fromkeys([*ENCODERS, *cached]))}, and open names such as "
                "timm:NAME or hf:FOLDER; vectors made elsewhere become an encoder by `python -m mvsa_tune import --encoder NAME …`"
            )
        missing[name, modality] = how_to_make(dataset, folder, name, modality)
    return caches, missing
