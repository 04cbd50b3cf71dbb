"""Vectors made elsewhere → an array in the data set's order."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError, counted, some

# The names of a modality's vectors in the JSON files of the reference's older scripts.
JSON_KEYS = {"image": "img_feats", "text": "txt_feats"}


def read_vectors(dataset: Dataset, modality: str, files: Sequence[Path], ids: Path | None) -> NDArray[Any]:
    """Read vectors and return them in the data set's order, `(samples, width)`, floating point.

    Args:
        dataset: the samples that the vectors belong to.
        modality: which of a JSON file's vectors to read.
        files: `.npy` or `.json`; several are joined in their order.
        ids: a file with the guid of each row, one a line; without it (JSON only) the rows are in list order.

    Raises:
        InputError: a file cannot be read, holds pickled objects or no vectors, or its rows do not match the samples.
    """
    parts = [_read(path, modality) for path in files]
    if len(widths := sorted({part.shape[1] for part in parts})) > 1:
        raise InputError(f"the files' vectors differ in width: {', '.join(map(str, widths))}")
    vectors = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if ids is not None:
        return vectors[_order(dataset, ids, len(vectors))]
    if any(path.suffix.lower() != ".json" for path in files):
        raise InputError("a .npy file needs --ids FILE: the guids of its rows, one a line")
    if len(vectors) != len(dataset.samples):
        raise InputError(
            f"{len(vectors):,} rows for the {len(dataset.samples):,} samples of {dataset.folder}: without --ids the "
            "rows must be all samples in list order (the labelled, then the unlabelled; several files are joined)"
        )
    return vectors


def _read(path: Path, modality: str) -> NDArray[Any]:
    try:
        vectors = _read_json(path, JSON_KEYS[modality]) if path.suffix.lower() == ".json" else _read_npy(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if getattr(vectors, "ndim", 0) != 2 or vectors.dtype.kind != "f":
        shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", None)
        raise InputError(f"{path} must hold (samples, width) floating-point vectors, not {dtype} of shape {shape}")
    return vectors


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception:  # the file may be anything, and NumPy parses its header as Python, or opens it as a zip
        raise InputError(f"{path} is not a plain .npy array of numbers (pickled objects are never loaded)") from None


def _read_json(path: Path, key: str) -> NDArray[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or key not in content:
        raise InputError(f'{path} has no "{key}": expected {{"img_feats": [[…]], "txt_feats": [[…]]}}')
    try:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which raises when the cache is written
            return np.array(content[key], dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f'"{key}" of {path} is not a list of equally long lists of numbers: {error}') from None


def _order(dataset: Dataset, ids: Path, count: int) -> NDArray[np.int64]:
    """Return the row of each sample in the vectors."""
    try:
        lines = ids.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {ids}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{ids} is not UTF-8: convert it") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != count:
        raise InputError(f"{ids} lists {len(names):,} ids for {count:,} vectors")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(f"{ids} lists {len(twice):,} ids twice: {some(twice)}")
    row_of = {name: row for row, name in enumerate(names)}
    missing = [guid for guid in dataset.guids if guid not in row_of]
    unknown = sorted(set(names) - set(dataset.guids))
    if missing or unknown:
        samples, others = (f" ({some(names)})" if names else "" for names in (missing, unknown))
        raise InputError(
            f"the ids of {ids} do not match {dataset.folder}: {counted(len(missing), 'sample')} without a vector"
            f"{samples}, {counted(len(unknown), 'id')} of no sample{others}"
        )
    return np.array([row_of[guid] for guid in dataset.guids])
