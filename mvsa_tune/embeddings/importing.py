"""Vectors made elsewhere → an array in the data set's order."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.errors import InputError, some

# What the older scripts of this experiment called the vectors of a modality in their JSON files.
JSON_KEYS = {"image": "img_feats", "text": "txt_feats"}


def read_vectors(dataset: Dataset, modality: str, files: Sequence[Path], ids: Path | None) -> NDArray[Any]:
    """Read vectors and bring them into the data set's order.

    Args:
        dataset: the samples that the vectors belong to.
        modality: which of a JSON file's vectors to take.
        files: `.npy` or `.json`; several are joined in the order given (one a list, say).
        ids: a guid a line for the rows; without it (JSON only) the rows are in list order.

    Returns:
        `(samples, width)`, floating point.

    Raises:
        InputError: a file cannot be read, holds pickled objects or no vectors, or its rows do not match the samples.
    """
    parts = [_read_json(path, modality) if path.suffix.lower() == ".json" else _read_npy(path) for path in files]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise InputError(f"the files' vectors differ in width: {', '.join(map(str, sorted(widths)))}")
    vectors = np.concatenate(parts) if len(parts) > 1 else parts[0]
    if ids is not None:
        return vectors[_order(dataset, ids, len(vectors))]
    if any(path.suffix.lower() != ".json" for path in files):
        raise InputError("a .npy file needs --ids FILE: the guids of its rows, one a line")
    if len(vectors) != len(dataset.samples):
        raise InputError(
            f"{len(vectors):,} rows for the {len(dataset.samples):,} samples of {dataset.folder}: without --ids the rows "
            "must be all samples in list order (the labelled, then the unlabelled; several files are joined)"
        )
    return vectors


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        vectors: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise InputError(f"{path} is not a plain .npy array of numbers (pickled objects are never loaded)") from None
    return _checked(vectors, path)


def _read_json(path: Path, modality: str) -> NDArray[Any]:
    key = JSON_KEYS[modality]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or key not in content:
        raise InputError(f'{path} has no "{key}": expected {{"img_feats": [[…]], "txt_feats": [[…]]}}')
    try:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused later
            vectors = np.array(content[key], dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f'"{key}" of {path} is not a list of equally long lists of numbers: {error}') from None
    return _checked(vectors, path)


def _checked(vectors: NDArray[Any], path: Path) -> NDArray[Any]:
    if getattr(vectors, "ndim", 0) != 2 or vectors.dtype.kind != "f":
        shape, dtype = getattr(vectors, "shape", None), getattr(vectors, "dtype", None)
        raise InputError(f"{path} must hold (samples, width) floating-point vectors, not {dtype} of shape {shape}")
    return vectors


def _order(dataset: Dataset, ids: Path, count: int) -> NDArray[np.int64]:
    """Row of each sample in the vectors."""
    try:
        lines = ids.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {ids}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{ids} is not UTF-8: convert it") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) != count:
        raise InputError(f"{ids} lists {len(names):,} ids for {count:,} vectors")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{ids} lists {len(twice):,} ids twice: {some(twice)}")
    row_of = {name: row for row, name in enumerate(names)}
    missing = [guid for guid in dataset.guids if guid not in row_of]
    unknown = sorted(set(names) - set(dataset.guids))
    if missing or unknown:
        raise InputError(
            f"the ids of {ids} do not match {dataset.folder}: {len(missing):,} samples have no vector"
            f"{' (' + some(missing) + ')' if missing else ''}, {len(unknown):,} ids are no samples"
            f"{' (' + some(unknown) + ')' if unknown else ''}"
        )
    return np.array([row_of[guid] for guid in dataset.guids])
