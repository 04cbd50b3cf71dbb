"""What the trials of a sweep share: samples, split and device; and building a stack from the embedding caches.

torch is imported by the functions that need it, since it delays the start of a sweep's driver by a second.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.embeddings.cache import Cache, expect_scattered_reads, open_vectors
from mvsa_tune.plugins import LOADED

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
        milestones: epochs, besides the last, at which a trial reports and the scheduler may stop it.
        plugins: Python files that register heads and encoders; every worker runs them first.
        driver: on a cluster, how the nodes reach the driver's machine.
    """

    labels: NDArray[np.int64]
    classes: int
    split: Split
    replicates: tuple[Replicate, ...]
    device: str
    threads: int
    milestones: tuple[int, ...] = ()
    plugins: tuple[Path, ...] = field(default_factory=lambda: tuple(LOADED))
    driver: "Driver | None" = None

    @property
    def files(self) -> list[Path]:
        """The files that every node of a cluster must be able to read; caches are sent to nodes instead."""
        return list(self.plugins)

    def scores_gone_past(self, configs: Sequence[Config]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of the configurations whose trials continue from a checkpoint, by id.

        They are `TrialResult.scores` up to the last milestone after which the scheduler let the trial continue.
        """
        return {}


@dataclass(frozen=True)
class Task(Shared):
    """What the trials of a sweep over frozen encoders share. It is small: the vectors stay in their caches."""

    caches: Mapping[tuple[str, str], Cache]  # by encoder and modality; the first N rows are the labelled samples

    def build(self, config: Config, replicates: Sequence[Replicate]) -> "StackTrainer":
        """Put a configuration's samples on the device and build the untrained stack of these replicates."""
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

    On a CPU, unchanged vectors that are float32 or large stay memory-mapped, so that processes share them. All others
    become float32 in memory. On a cluster, `driver` sends the vectors of the file with that `sha256` to a node that
    lacks it, which keeps them in Ray's object store.
    """
    import torch

    from mvsa_tune.training.trainer import IN_MEMORY, normalised

    sent = driver.vectors(path, sha256) if driver else None
    whole = open_vectors(path, mode="c") if sent is None else sent
    mapped = whole[:count]
    large = 4 * mapped.size > IN_MEMORY
    unchanged = device == "cpu" and normalise == "none" and sys.byteorder == "little"
    if unchanged and (large or mapped.dtype == np.float32):
        if large:
            expect_scattered_reads(whole)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # vectors that were sent are read-only, and only read
            return torch.from_numpy(mapped)
    return normalised(torch.from_numpy(mapped.astype(np.float32)).to(device), normalise)
