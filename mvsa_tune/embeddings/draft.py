"""Writing a cache: block by block as a draft, with which a killed command continues; or all vectors at once."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings.cache import Cache, Manifest, cache_path, ids_file, open_vectors
from mvsa_tune.encoders.registry import is_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import append_synced, is_file_name, sha256_of, sync, sync_folder, write_text_whole


@dataclass(frozen=True)
class Origin:
    """How vectors were made: the fields of a `Manifest` that do not follow from the vectors and the data set."""

    preprocessing: str
    source: str
    weights: str = ""
    truncated: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """The vectors of consecutive samples."""

    row: int  # of the first sample
    vectors: NDArray[Any]  # (samples, width)
    truncated: int = 0  # texts that were longer than the encoder takes


class Draft:
    """An unfinished cache, with which a killed command continues.

    Vectors are in a hidden `.npy` of their final shape. Beside it is a file `.blocks`: its first line is the
    `identity`, all that the vectors depend on, then comes a line for each finished block. A draft of another identity
    is deleted.
    """

    def __init__(self, dataset: Dataset, path: Path, identity: str, suffix: str = "") -> None:
        self.dataset, self.path, self.manifest_path = dataset, path, path.with_suffix(".json")
        self.vectors = path.with_name(f".{path.name}{suffix}")
        self.blocks = path.with_name(f".{path.stem}.blocks{suffix}")
        self.finished: dict[int, int] = {}  # first row of each finished block → truncated texts in it
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.blocks.read_text(encoding="utf-8").splitlines() if self.blocks.exists() else []
        if lines and path.exists() and not (self.vectors.exists() or self.manifest_path.exists()):
            path.replace(self.vectors)  # it was killed just before the manifest was written
        if lines[:1] == [identity] and self.vectors.exists():
            for line in lines[1:]:
                with suppress(ValueError):  # a line that was cut off
                    row, truncated = json.loads(line)
                    self.finished[row] = truncated
        if not self.finished:  # another identity, or killed while the file was made
            self.vectors.unlink(missing_ok=True)
        write_text_whole(self.blocks, "\n".join([identity, *map(json.dumps, self.finished.items()), ""]))

    def write(self, block: Block) -> None:
        """Write a block to the disk; InputError for a wrong shape or number format, or vectors that are not finite."""
        vectors = block.vectors
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise InputError(
                f"vectors must be floating point of shape (samples, width), width not 0; these are {vectors.dtype} of "
                f"shape {vectors.shape}"
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
            sync(file.fileno())
        self.finished[block.row] = block.truncated
        append_synced(self.blocks, f"{json.dumps([block.row, block.truncated])}\n")

    def finish(self, encoder: str, modality: str, origin: Origin) -> Cache:
        """Turn the draft into the cache, replacing an older one."""
        (ids, ids_sha256), whole = ids_file(self.dataset), open_vectors(self.vectors)
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
        """Delete the hidden files."""
        self.vectors.unlink(missing_ok=True)
        self.blocks.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InputError that names the cache folder."""
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
