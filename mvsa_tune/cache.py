"""The embedding cache: one memory-mapped `.npy` a modality, beside a manifest that says what made it.

A cache is `FOLDER/ENCODER/MODALITY.npy` (vectors, a row a sample), `MODALITY.ids.txt` (the samples' guids, a line a row)
and `MODALITY.json` (the manifest). The manifest is removed first and written last: without it there is no cache.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.dataset import Dataset, is_file_name
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of, write_text_whole, write_whole


@dataclass(frozen=True)
class Manifest:
    """What a cache holds and what made it.

    Attributes:
        encoder: its name.
        modality: `image` or `text`.
        preprocessing: what happened to a sample before the encoder.
        source: what made the vectors: the embedding command, or the file they were imported from.
        content_fingerprint: of the data set they were made from (`Dataset.content_fingerprint`).
        ids_sha256: of the ids file: the samples and their order.
        count: rows.
        width: columns.
        dtype: NumPy's name of the number format.
        sha256: of the `.npy` file.
    """

    encoder: str
    modality: str
    preprocessing: str
    source: str
    content_fingerprint: str
    ids_sha256: str
    count: int
    width: int
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Cache:
    """A checked cache: its manifest and where its vectors lie."""

    manifest: Manifest
    path: Path

    def vectors(self) -> NDArray[Any]:
        """Open the vectors as a read-only memory map, `(count, width)`."""
        mapped: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped


def default_folder(data: Path) -> Path:
    """Where the caches of a data folder live unless `--cache` says otherwise."""
    return data / "embeddings"


def cached_encoders(folder: Path) -> list[str]:
    """Names of the encoders that have a cache below `folder`."""
    return sorted({manifest.parent.name for manifest in folder.glob("*/*.json")})


def how_to_make(dataset: Dataset, folder: Path, encoder: str, modality: str) -> str:
    """Return the command that makes a cache."""
    place = "" if folder == default_folder(dataset.folder) else f" --cache {folder}"
    return (
        f"python -m mvsa_tune import --data {dataset.folder}{place} --encoder {encoder} --modality {modality} "
        "--ids IDS.txt VECTORS.npy"
    )


def write_cache(
    dataset: Dataset,
    folder: Path,
    encoder: str,
    modality: str,
    vectors: NDArray[Any],
    *,
    preprocessing: str,
    source: str,
) -> Cache:
    """Write the vectors of a data set, in its order, whole or not at all.

    Args:
        dataset: the samples; row i of `vectors` belongs to its sample i.
        folder: where caches live; the encoder's folder is made in it.
        encoder: its name, which becomes a folder's.
        modality: `image` or `text`.
        vectors: `(samples, width)`, floating point; float64 is stored as float32.
        preprocessing: for the manifest.
        source: for the manifest.

    Raises:
        InputError: the name is not a plain file name, the shape is wrong, a vector is not finite, or the folder cannot
            be written.
    """
    if not is_file_name(encoder):
        raise InputError(f"--encoder {encoder!r}: an encoder's name is a folder's; use letters, digits, - _ .")
    _check_vectors(dataset, vectors)
    vectors = vectors.astype(np.float32, copy=False) if vectors.dtype.itemsize > 4 else vectors
    place = folder / encoder
    path = place / f"{modality}.npy"
    manifest_path = path.with_suffix(".json")
    try:
        manifest_path.unlink(missing_ok=True)
        write_whole(path, lambda file: np.save(file, vectors, allow_pickle=False))
        write_text_whole(path.with_suffix(".ids.txt"), _ids_text(dataset))
    except OSError as error:
        raise InputError(f"cannot write the cache folder {place}: {error.strerror}; choose --cache") from None
    manifest = Manifest(
        encoder=encoder,
        modality=modality,
        preprocessing=preprocessing,
        source=source,
        content_fingerprint=dataset.content_fingerprint,
        ids_sha256=_sha256(_ids_text(dataset)),
        count=vectors.shape[0],
        width=vectors.shape[1],
        dtype=vectors.dtype.name,
        sha256=sha256_of(path),
    )
    write_text_whole(manifest_path, json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")
    return Cache(manifest, path.absolute())


def open_cache(dataset: Dataset, folder: Path, encoder: str, modality: str) -> Cache | None:
    """Check a cache against the data set it is to serve; None where there is none.

    Raises:
        InputError: it was made from other data, other samples or another order, or a file is damaged; the message holds
            both values and the command that mends it.
    """
    path = folder / encoder / f"{modality}.npy"
    if not path.with_suffix(".json").exists():
        return None
    mend = f"; make it again: {how_to_make(dataset, folder, encoder, modality)}"
    try:
        fields = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        manifest = Manifest(**fields)
    except (ValueError, TypeError) as error:
        raise InputError(f"damaged manifest {path.with_suffix('.json')} ({error}){mend}") from None
    if not path.exists():
        raise InputError(f"{path} is missing, though its manifest is there{mend}")
    _check_samples(dataset, manifest, path, mend)
    found = sha256_of(path)
    if found != manifest.sha256:
        raise InputError(
            f"{path} is damaged: its SHA-256 is {found[:12]}…, its manifest says {manifest.sha256[:12]}…{mend}"
        )
    # Absolute, because worker processes have another working folder.
    cache = Cache(manifest, path.absolute())
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
    ids = ids_path.read_text(encoding="utf-8").splitlines() if ids_path.exists() else []
    for row, (cached, wanted) in enumerate(zip(ids, dataset.guids, strict=False)):
        if cached != wanted:
            kind = "the same samples in another order" if sorted(ids) == sorted(dataset.guids) else "other samples"
            return f"{path} holds {kind}: row {row} is {cached}, {dataset.folder} has {wanted} there"
    return f"{ids_path} is damaged: it does not list the samples of {path}"


def _check_vectors(dataset: Dataset, vectors: NDArray[Any]) -> None:
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise InputError(
            f"vectors must be (samples, width) floating point, not {vectors.dtype} of shape {vectors.shape}"
        )
    if len(vectors) != len(dataset.samples):
        raise InputError(f"{len(vectors):,} vectors for the {len(dataset.samples):,} samples of {dataset.folder}")
    if not vectors.shape[1]:
        raise InputError("the vectors are empty: their width is 0")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        names = some([dataset.guids[row] for row in bad])
        raise InputError(f"{len(bad):,} vectors hold NaN or infinite values: those of samples {names}")


def _ids_text(dataset: Dataset) -> str:
    return "".join(f"{guid}\n" for guid in dataset.guids)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
