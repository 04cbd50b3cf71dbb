"""What the trials of a sweep share: samples, split and device; and how a stack is built from the caches.

torch is imported by the functions that need it: the driver of a sweep, which trains nothing, starts a second sooner.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.embeddings.cache import Cache, expect_scattered_reads, open_vectors

if TYPE_CHECKING:
    from torch import Tensor

    from mvsa_tune.cluster.nodes import Driver
    from mvsa_tune.training.trainer import StackTrainer


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the trials of every sweep share.

    Attributes:
        labels: `(N,)` classes of the labelled samples.
        classes: number of classes.
        split: row numbers by fold.
        replicates: seeds and folds that a whole trial trains.
        device: `cpu` or `cuda`.
        threads: CPU threads that a worker may use.
        milestones: epochs, besides the last, at which a trial reports: there the scheduler may stop it.
        driver: on a cluster, what the nodes need to know of the driver's machine.
    """

    labels: NDArray[np.int64]
    classes: int
    split: Split
    replicates: tuple[Replicate, ...]
    device: str
    threads: int
    milestones: tuple[int, ...] = ()
    driver: "Driver | None" = None

    @property
    def files(self) -> list[Path]:
        """The files that every node of a cluster must see; caches are not among them, but are sent to nodes."""
        return []

    def scores_gone_past(self, configs: Sequence[Config]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of the configurations whose trials go on from a checkpoint, by id.

        They are `TrialResult.scores`, up to the last milestone that the scheduler has let the trial go past.
        """
        return {}


@dataclass(frozen=True)
class Task(Shared):
    """What the trials of a sweep over frozen encoders share. It is small: the vectors stay in their caches.

    Attributes:
        caches: by encoder and modality; their first N rows belong to the labelled samples.
    """

    caches: Mapping[tuple[str, str], Cache]

    def build(self, config: Config, replicates: Sequence[Replicate]) -> "StackTrainer":
        """Put a configuration's samples on the device and build the stack of these replicates, no epoch trained."""
        import torch

        from mvsa_tune.training.trainer import Samples, StackTrainer

        caches = {modality: self.caches[encoder, modality] for modality, encoder in config.encoders.items()}
        how = len(self.labels), self.device, config.normalise, self.driver
        vectors = {
            modality: load_vectors(cache.path, *how, cache.manifest.sha256) for modality, cache in caches.items()
        }
        samples = Samples(vectors, torch.from_numpy(self.labels).to(self.device), self.classes)
        train, validation, test = (
            [torch.from_numpy(rows[replicate.fold]) for replicate in replicates]
            for rows in (self.split.train, self.split.validation, self.split.test)
        )
        return StackTrainer(config, replicates, samples, train, validation, test)


@lru_cache(maxsize=16)
def load_vectors(
    path: Path, count: int, device: str, normalise: str, driver: "Driver | None" = None, sha256: str = ""
) -> "Tensor":
    """Load the vectors of the first `count` samples onto the device, once in a process.

    On a CPU, vectors that are used as they are stay in the cache's file, or in Ray's object store on a node that does
    not see it, if they are float32 or large: all processes share them there. All others become float32 in memory. The
    sweep has checked the file when it started. On a cluster, `driver` sends the vectors of the file with that
    `sha256` to a node that lacks them.
    """
    import torch

    from mvsa_tune.training.trainer import IN_MEMORY, normalised

    sent = driver.vectors(path, sha256) if driver else None
    whole = open_vectors(path, mode="c") if sent is None else sent
    mapped = whole[:count]
    large = 4 * mapped.size > IN_MEMORY
    as_it_is = device == "cpu" and normalise == "none" and sys.byteorder == "little"
    if as_it_is and (large or mapped.dtype == np.float32):
        if large:
            expect_scattered_reads(whole)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what was sent cannot be written to, and is not
            return torch.from_numpy(mapped)
    return normalised(torch.from_numpy(mapped.astype(np.float32)).to(device), normalise)
