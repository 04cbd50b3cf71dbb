"""The folder of finished blocks, from which a command that was killed goes on.

They lie in `ENCODER/.MODALITY.parts/`, each written whole, until the cache is made of them.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.files import write_text_whole, write_whole


@dataclass(frozen=True)
class Block:
    """The vectors of some consecutive samples, `(samples, width)`, and how many of their texts were cut to fit."""

    vectors: NDArray[Any]
    truncated: int


class Parts:
    """Finished blocks by number; those of another `identity` (what blocks depend on) are thrown away."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        label = folder / "identity.json"
        if label.exists() and label.read_text(encoding="utf-8") != identity:
            shutil.rmtree(folder)
        write_text_whole(label, identity)

    def path(self, index: int) -> Path:
        """Where a block lies once it is finished."""
        return self.folder / f"{index:07d}.npz"

    def write(self, index: int, block: Block) -> None:
        """Keep a block: vectors and count in one file, so that neither is there without the other."""
        write_whole(self.path(index), lambda file: np.savez(file, vectors=block.vectors, truncated=block.truncated))

    def vectors(self, count: int) -> Iterator[NDArray[Any]]:
        """The vectors of the first `count` blocks, in order, one block in memory at a time."""
        for index in range(count):
            with np.load(self.path(index), allow_pickle=False) as kept:
                yield kept["vectors"]

    def truncated(self, count: int) -> int:
        """How many texts were cut in the first `count` blocks."""
        total = 0
        for index in range(count):
            with np.load(self.path(index), allow_pickle=False) as kept:
                total += int(kept["truncated"])
        return total

    def remove(self) -> None:
        """Throw the folder away: the cache is made."""
        shutil.rmtree(self.folder)
