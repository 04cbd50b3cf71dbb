"""Duplicate samples: the same words, the same picture, or pictures that look the same.

A grouping is an array `(N,)`: for each sample the row of the first member of its group, which is its own row if it has
no duplicates.
"""

import re
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.data.text import normalise
from mvsa_tune.files import sha256_of
from mvsa_tune.machine import cpu_count

Groups = NDArray[np.int64]
# Two pictures look the same if at most this many of the 64 bits of their hashes differ. Checked by eye on MVSA-Single
# (bench/LOG.md): up to 6 bits all 137 pairs show the same picture or, two of them, the same product in two colours; at
# 8 bits there is no pair; at 10 bits nine of 11 pairs have nothing in common.
NEAR = 6
BITS = 64
MIN_SIDE = 256  # larger JPEGs are decoded smaller: the hash is made of 32 × 32 pixels
BLOCK = 1024  # hashes compared with all others at once
WORD = re.compile(r"[a-z0-9]+")


class Duplicates:
    """The duplicates of a data set; each kind is searched when it is first needed."""

    def __init__(self, dataset: Dataset, near: int = NEAR) -> None:
        self.dataset, self.near = dataset, near
        self.pictures = [sample.picture for sample in dataset.samples]

    @cached_property
    def normalised(self) -> list[str]:
        """The texts, normalised as in the reference."""
        return [normalise(sample.text) for sample in self.dataset.samples]

    @cached_property
    def words(self) -> list[str]:
        """The words of the normalised texts; empty where there is only punctuation."""
        return [" ".join(WORD.findall(text)) for text in self.normalised]

    @cached_property
    def hashes(self) -> dict[str, int | str | None]:
        """By guid: the picture's 64-bit pHash (Zauner 2010), why it cannot be read, or None if it has one colour."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            hashes = pool.map(_hash, self.pictures)
            progress = tqdm(hashes, "pictures", len(self.pictures), leave=False, disable=None, unit="")
            return dict(zip(self.dataset.guids, progress, strict=True))

    @cached_property
    def by_text(self) -> Groups:
        """Samples with the same words; a text without words has no duplicates."""
        return _group_equal([words or row for row, words in enumerate(self.words)])

    @cached_property
    def by_picture(self) -> Groups:
        """Samples whose picture files are equal, byte by byte."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            return _group_equal(list(pool.map(sha256_of, self.pictures)))

    @cached_property
    def by_near_picture(self) -> Groups:
        """Samples whose picture files are equal or look the same, transitively."""
        hashed = [(row, value) for row, value in enumerate(self.hashes.values()) if isinstance(value, int)]
        rows = np.array([row for row, _ in hashed], dtype=np.int64)
        pairs = rows[near_pairs(np.array([value for _, value in hashed], dtype=np.uint64), self.near)]
        return joined(self.by_picture, connected(len(self.pictures), pairs))

    @cached_property
    def by_any(self) -> Groups:
        """The other groupings joined: samples of a group must be in the same part of a split."""
        return joined(self.by_text, self.by_picture, self.by_near_picture)

    def groups(self) -> dict[str, Groups]:
        """Return the groupings by the names of their kinds."""
        return {
            "text": self.by_text, "picture": self.by_picture, "near-picture": self.by_near_picture, "any": self.by_any,
        }  # fmt: skip


def _hash(path: Path) -> int | str | None:
    import imagehash

    try:
        grey = open_picture(path, MIN_SIDE).convert("L")
    except UnreadablePictureError as error:
        return str(error)
    low, high = grey.getextrema()
    return None if low == high else int(str(imagehash.phash(grey)), 16)  # the hash of one colour is rounding noise


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """Return every two rows whose hashes differ in at most `distance` bits, shape `(2, P)`."""
    pairs = [np.zeros((2, 0), dtype=np.int64)]
    for start in range(0, len(hashes), BLOCK):
        differing = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        rows, others = np.nonzero(differing <= distance)
        pairs.append(np.stack([rows, others])[:, rows < others] + start)
    return np.concatenate(pairs, axis=1)


def _group_equal(keys: Sequence[Hashable]) -> Groups:
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def connected(count: int, pairs: NDArray[np.int64]) -> Groups:
    """Group `count` rows so that both rows of every pair, shape `(2, P)`, are in one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(pairs.shape[1], dtype=np.int8), tuple(pairs)), shape=(count, count))
    return _group_equal(connected_components(edges, directed=False)[1].tolist())


def joined(*groupings: Groups) -> Groups:
    """Join groupings: rows that share a group in any of them share one in the result, transitively."""
    rows = np.arange(len(groupings[0]))
    return connected(len(rows), np.concatenate([np.stack([rows, groups]) for groups in groupings], axis=1))
