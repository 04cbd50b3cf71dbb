"""What the benchmarks share that needs no torch: where the sweeps' scripts are, and a data set with its vectors."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.embeddings.draft import Origin, write_cache

SWEEPS = Path(__file__).parents[1] / "sweeps"
WIDTHS = {"image": ("mobilenet_v2", 1280), "text": ("minilm", 384)}
TAGS = ("negative", "neutral", "positive")


def set_flags(folder: Path) -> list[object]:
    """Return the flags of a sweep on the set that `make_set` has written."""
    return ["--data", folder / "set", "--cache", folder / "cache", "--pairs", "mobilenet_v2+minilm", "--quiet"]


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a folder for the time of a `with`; its name is short, because Ray puts its sockets below it."""
    with tempfile.TemporaryDirectory(prefix="heads-") as name:
        yield Path(name).resolve()


def make_set(folder: Path) -> str:
    """Write a data set and its vectors, and return a description of them.

    They are those of the folder that MVSA_REAL_DATA names, else made up in the same shape. `set` is the data set,
    `cache` has its embedding caches; `image.npy`, `text.npy`, `labels.npy` and `vectors.json` are for `rivals.py`.
    """
    real = os.environ.get("MVSA_REAL_DATA")
    data = folder / "set"
    if real:
        data.symlink_to(Path(real).resolve())
    else:
        _write_pairs(data)
    dataset = read_dataset(data)
    count = len(dataset.labels)
    columns: dict[str, list[object]] = {"labels": list(dataset.labels)}
    for modality, (encoder, width) in WIDTHS.items():
        vectors = _real_vectors(data, dataset, modality, encoder) if real else _random_vectors(dataset, width)
        write_cache(dataset, folder / "cache", encoder, modality, vectors, Origin("none", "a benchmark"))
        np.save(folder / f"{modality}.npy", vectors[:count])
        columns["img_feats" if modality == "image" else "txt_feats"] = vectors[:count].tolist()
    np.save(folder / "labels.npy", np.array(dataset.labels, dtype=np.int64))
    (folder / "vectors.json").write_text(json.dumps(columns))
    return f"{'real embeddings' if real else 'random vectors'}, {count:,} labelled samples"


def _real_vectors(folder: Path, dataset: Dataset, modality: str, encoder: str) -> np.ndarray:
    vectors = np.load(folder / "embeddings" / f"{modality}_{encoder}.npy", allow_pickle=False)
    ids = (folder / "embeddings" / "ids.txt").read_text().split()
    rows = {guid: row for row, guid in enumerate(ids)}
    return np.asarray(vectors[[rows[guid] for guid in dataset.guids]], dtype=np.float32)


def _random_vectors(dataset: Dataset, width: int) -> np.ndarray:
    vectors = np.random.default_rng(width).normal(size=(len(dataset.samples), width)).astype(np.float32)
    vectors[: len(dataset.labels), :8] += np.array(dataset.labels)[:, None] / 4
    return vectors


def _write_pairs(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for number in range(4000):
        (folder / "data" / f"{number}.jpg").write_bytes(b"no picture")
        (folder / "data" / f"{number}.txt").write_text(f"tweet {number}")
    lines = "".join(f"{number},{TAGS[number % 3]}\n" for number in range(4000))
    (folder / "train.txt").write_text(f"guid,tag\n{lines}")
