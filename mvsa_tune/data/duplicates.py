"""Duplicate samples: the same words, the same picture, or pictures that look the same.

A grouping is an array `(N,)`: for each sample the row of the first member of its group, which is its own row if it has
no duplicates.
"""

import re
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
# Two pictures look the same if at most this many of the 64 bits of their hashes differ. Checked by eye on MVSA-Single:
# all 137 pairs up to 6 are one picture (two: one product in two colours), there is none at 8, and of the 11 at 10 nine
# have nothing in common (bench/LOG.md).
NEAR = 6
BITS = 64
MIN_SIDE = 256  # larger JPEGs are decoded smaller: the hash is made of 32 × 32 pixels
BLOCK = 1024  # hashes compared with all others at once
WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class PictureHashes:
    """Perceptual hashes of pictures.

    Attributes:
        rows: `(H,)` the samples whose picture has a hash.
        hashes: `(H,)` 64-bit pHashes.
        unreadable: by guid, why a picture cannot be read.
        single_colour: guids of the pictures of a single colour, which have no shape to compare.
    """

    rows: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    unreadable: dict[str, str]
    single_colour: tuple[str, ...]


class Duplicates:
    """The duplicates of a data set; each kind is looked for when it is first needed."""

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
    def hashes(self) -> PictureHashes:
        """The pictures' pHashes: signs of the low frequencies of a cosine transform, grey, 64 bits (Zauner 2010)."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            progress = tqdm(
                pool.map(_hash, self.pictures), "pictures", len(self.pictures), leave=False, disable=None, unit=""
            )
            results = list(zip(self.dataset.guids, progress, strict=True))
        rows = [row for row, (_, result) in enumerate(results) if isinstance(result, int)]
        return PictureHashes(
            np.array(rows, dtype=np.int64),
            np.array([results[row][1] for row in rows], dtype=np.uint64),
            {guid: result for guid, result in results if isinstance(result, str)},
            tuple(guid for guid, result in results if result is None),
        )

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
        pairs = self.hashes.rows[near_pairs(self.hashes.hashes, self.near)]
        return connected(len(self.pictures), pairs, _pairs(self.by_picture))

    @cached_property
    def by_any(self) -> Groups:
        """The other groupings joined: the samples that must be in the same part of a split."""
        return joined(self.by_text, self.by_picture, self.by_near_picture)

    def groups(self) -> dict[str, Groups]:
        """Return the groupings by the names of their kinds."""
        return {
            "text": self.by_text, "picture": self.by_picture, "near-picture": self.by_near_picture, "any": self.by_any,
        }  # fmt: skip


def _hash(path: Path) -> int | str | None:
    """Return a picture's hash; or why it cannot be read; or None if it has a single colour: its hash would be noise."""
    import imagehash

    try:
        grey = open_picture(path, MIN_SIDE).convert("L")
    except UnreadablePictureError as error:
        return str(error)
    low, high = grey.getextrema()
    return None if low == high else int(str(imagehash.phash(grey)), 16)


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


def connected(count: int, *pairs: NDArray[np.int64]) -> Groups:
    """Group `count` rows so that both rows of every pair, shape `(2, P)`, are in one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, others = np.concatenate(pairs, axis=1)
    edges = coo_array((np.ones(len(rows), dtype=np.int8), (rows, others)), shape=(count, count))
    return _group_equal(connected_components(edges, directed=False)[1].tolist())


def joined(*groupings: Groups) -> Groups:
    """Group together what is together in any of some groupings, transitively."""
    return connected(len(groupings[0]), *map(_pairs, groupings))


def _pairs(groups: Groups) -> NDArray[np.int64]:
    return np.stack([np.arange(len(groups)), groups])


def members(groups: Groups) -> list[NDArray[np.int64]]:
    """Return the rows of each group of two or more, in order of their first."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]
