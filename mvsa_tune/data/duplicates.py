"""Samples → which of them are duplicates: the same words, the same picture, or pictures that look the same.

A grouping is an array `(N,)` that holds for each sample the row of its group's first member; a sample without duplicates holds
its own row.
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
from mvsa_tune.data.images import UnreadablePictureError, open_small
from mvsa_tune.data.text import reference
from mvsa_tune.files import sha256_of
from mvsa_tune.machine import cpu_count

Groups = NDArray[np.int64]
# Two pictures look the same when at most this many of their hashes' 64 bits differ. Looked at pair by pair on MVSA-Single: all
# 137 pairs up to 6 are one picture (two: one product in two colours), there is none at 8, and of the 11 at 10 nine have
# nothing in common (bench/LOG.md).
NEAR = 6
BITS = 64
# JPEGs larger than this are decoded smaller, in pixels a side: the hash sees 32.
SIDE = 256
BLOCK = 1024  # hashes compared with all others at once
WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Looks:
    """What pictures look like to a perceptual hash.

    Attributes:
        hashes: `(N,)` 64-bit pHashes; 0 where there is none.
        known: `(N,)` where there is one.
        unreadable: why a picture cannot be read, by guid.
        plain: guids of pictures of a single colour, which have no shape to compare.
    """

    hashes: NDArray[np.uint64]
    known: NDArray[np.bool_]
    unreadable: dict[str, str]
    plain: tuple[str, ...]


class Duplicates:
    """The duplicates of a data set, each kind found when first asked for."""

    def __init__(self, dataset: Dataset, near: int = NEAR) -> None:
        self.dataset, self.near = dataset, near

    @cached_property
    def normalised(self) -> list[str]:
        """The texts, normalised as the reference do."""
        return [reference(sample.text) for sample in self.dataset.samples]

    @cached_property
    def words(self) -> list[str]:
        """The words of the normalised texts; empty where nothing but punctuation is left."""
        return [" ".join(WORD.findall(text)) for text in self.normalised]

    @cached_property
    def looks(self) -> Looks:
        """The pictures' perceptual hashes."""
        return look(self.dataset)

    @cached_property
    def by_text(self) -> Groups:
        """Samples with the same words; texts without a word are nobody's duplicates."""
        return equals([words or row for row, words in enumerate(self.words)])

    @cached_property
    def by_picture(self) -> Groups:
        """Samples whose picture files are equal, byte by byte."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            return equals(list(pool.map(sha256_of, _pictures(self.dataset))))

    @cached_property
    def by_looks(self) -> Groups:
        """Samples whose pictures look the same, and, transitively, those that look the same as these; equal files do."""
        rows = np.flatnonzero(self.looks.known)
        pairs = rows[near_pairs(self.looks.hashes[rows], self.near)]
        return connected(len(self.dataset.samples), pairs, _links(self.by_picture))

    def groups(self) -> dict[str, Groups]:
        """Every kind's groups by its name; `any` joins the others, transitively."""
        kinds = {"text": self.by_text, "picture": self.by_picture, "near-picture": self.by_looks}
        return kinds | {"any": joined(*kinds.values())}


def duplicate_groups(
    dataset: Dataset, *, text: bool = True, picture: bool = True, near: bool = True, distance: int = NEAR
) -> Groups:
    """Number the samples' groups of duplicates: `(N,)`, equal numbers for samples that must not be parted.

    Args:
        dataset: the samples, unlabelled ones too.
        text: whether the same words make duplicates.
        picture: whether the same picture file does, byte by byte.
        near: whether pictures that look the same do; equal files always look the same.
        distance: the bits of 64 in which such pictures' hashes may differ.
    """
    found = Duplicates(dataset, distance)
    chosen = [text and found.by_text, picture and found.by_picture, near and found.by_looks]
    return joined(np.arange(len(dataset.samples)), *(groups for groups in chosen if groups is not False))


def look(dataset: Dataset) -> Looks:
    """Read and hash the pictures: pHash, signs of the low frequencies of a cosine transform, grey, 64 bits (Zauner 2010)."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        results = pool.map(_hash, _pictures(dataset))
        shown = tqdm(results, "pictures", len(dataset.samples), leave=False, disable=None, unit="")
        found = dict(zip(dataset.guids, shown, strict=True))
    return Looks(
        np.array([one if isinstance(one, int) else 0 for one in found.values()], dtype=np.uint64),
        np.array([isinstance(one, int) for one in found.values()], dtype=np.bool_),
        {guid: one for guid, one in found.items() if isinstance(one, str)},
        tuple(guid for guid, one in found.items() if one is None),
    )


def _hash(path: Path) -> int | str | None:
    """A picture's hash; why it cannot be read; or None for one of a single colour, whose hash would be rounding noise."""
    import imagehash

    try:
        grey = open_small(path, SIDE).convert("L")
    except UnreadablePictureError as error:
        return str(error)
    low, high = grey.getextrema()
    return None if low == high else int(str(imagehash.phash(grey)), 16)


def _pictures(dataset: Dataset) -> list[Path]:
    return [sample.picture for sample in dataset.samples]


def equals(keys: Sequence[Hashable]) -> Groups:
    """Group equal keys."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """`(2, P)`: every two rows whose hashes differ in at most `distance` bits."""
    found = []
    for start in range(0, len(hashes), BLOCK):
        differing = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        one, other = np.nonzero(differing <= distance)
        found.append(np.stack([one, other])[:, one < other] + start)
    return np.concatenate(found, axis=1) if found else np.zeros((2, 0), dtype=np.int64)


def connected(count: int, *pairs: NDArray[np.int64]) -> Groups:
    """Group `count` rows so that the rows of every pair of `(2, P)` are together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, others = np.concatenate(pairs, axis=1)
    edges = coo_array((np.ones(len(rows), dtype=np.int8), (rows, others)), shape=(count, count))
    labels = connected_components(edges, directed=False)[1]
    return equals(labels.tolist())


def joined(*groupings: Groups) -> Groups:
    """Group together what any of some groupings does, transitively."""
    return connected(len(groupings[0]), *map(_links, groupings))


def _links(groups: Groups) -> NDArray[np.int64]:
    return np.stack([np.arange(len(groups)), groups])


def members(groups: Groups) -> list[NDArray[np.int64]]:
    """The groups of two rows or more, each one's rows in order, in the order of their first."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]
