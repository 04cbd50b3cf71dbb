"""The set that speed is measured on: the real one's vectors where MVSA_REAL_DATA names it, else random ones of its shape."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.embeddings.cache import Origin, write_cache

WIDTHS = {"image": ("mobilenet_v2", 1280), "text": ("minilm", 384)}
TAGS = ("negative", "neutral", "positive")


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for the time of a `with`, as Ray likes it: with a short name."""
    with tempfile.TemporaryDirectory(prefix="heads-") as name:
        yield Path(name).resolve()


def make_set(folder: Path) -> str:
    """Write `set` (a link to the real one, or made up), `cache`, and for the rivals `.npy` and `vectors.json`; say which."""
    real = os.environ.get("MVSA_REAL_DATA")
    place = folder / "set"
    if real:
        place.symlink_to(Path(real).resolve())
    else:
        _make_up(place)
    dataset = read_dataset(place)
    count = len(dataset.labels)
    kept: dict[str, list[object]] = {"labels": list(dataset.labels)}
    for modality, (encoder, width) in WIDTHS.items():
        vectors = _real(Path(real), dataset, modality, encoder) if real else _random(dataset, width)
        write_cache(dataset, folder / "cache", encoder, modality, vectors, Origin("none", "a benchmark"))
        np.save(folder / f"{modality}.npy", vectors[:count])
        kept["img_feats" if modality == "image" else "txt_feats"] = vectors[:count].tolist()
    np.save(folder / "labels.npy", np.array(dataset.labels, dtype=np.int64))
    (folder / "vectors.json").write_text(json.dumps(kept))
    return f"{'real embeddings' if real else 'random vectors'}, {count:,} labelled samples"


def _real(folder: Path, dataset: Dataset, modality: str, encoder: str) -> np.ndarray:
    vectors = np.load(folder / "embeddings" / f"{modality}_{encoder}.npy", allow_pickle=False)
    ids = (folder / "embeddings" / "ids.txt").read_text().split()
    rows = {guid: row for row, guid in enumerate(ids)}
    return np.asarray(vectors[[rows[guid] for guid in dataset.guids]], dtype=np.float32)


def _random(dataset: Dataset, width: int) -> np.ndarray:
    vectors = np.random.default_rng(width).normal(size=(len(dataset.samples), width)).astype(np.float32)
    vectors[: len(dataset.labels), :8] += np.array(dataset.labels)[:, None] / 4
    return vectors


def _make_up(place: Path) -> None:
    (place / "data").mkdir(parents=True)
    for number in range(4000):
        (place / "data" / f"{number}.jpg").write_bytes(b"no picture")
        (place / "data" / f"{number}.txt").write_text(f"tweet {number}")
    lines = "".join(f"{number},{TAGS[number % 3]}\n" for number in range(4000))
    (place / "train.txt").write_text(f"guid,tag\n{lines}")
