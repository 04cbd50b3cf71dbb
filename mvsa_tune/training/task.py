"""What the trials of a sweep share, and what those over frozen encoders do besides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.embeddings.cache import Cache

if TYPE_CHECKING:
    from mvsa_tune.cluster.nodes import Driver
    from mvsa_tune.training.stack import StackTrainer


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the trials of every sweep share.

    Attributes:
        labels: `(N,)` of the labelled samples.
        classes: number of classes.
        split: rows by fold.
        replicates: the seeds and folds that each trial trains.
        device: `cpu` or `cuda`.
        threads: CPU threads a worker may use.
        milestones: epochs at which a trial reports, besides its last: those at which the scheduler may stop it.
        driver: on a cluster, what nodes are told of the driver's machine.
    """

    labels: NDArray[np.int64]
    classes: int
    split: Split
    replicates: tuple[Replicate, ...]
    device: str
    threads: int
    milestones: tuple[int, ...] = ()
    driver: "Driver | None" = None


@dataclass(frozen=True)
class Task(Shared):
    """What those of a sweep over frozen encoders share. Small: the vectors stay in their caches.

    Attributes:
        caches: by encoder and modality; their first N rows are of the labelled samples.
    """

    caches: Mapping[tuple[str, str], Cache]

    def path(self, encoder: str, modality: str) -> Path:
        """Where this machine has an encoder's vectors."""
        cache = self.caches[encoder, modality]
        return self.driver.vectors(cache) if self.driver else cache.path

    def build(self, config: Config) -> "StackTrainer":
        """A configuration's training, from its beginning."""
        from mvsa_tune.training.stacks import build_trainer  # torch takes a while to import

        return build_trainer(config, self)
