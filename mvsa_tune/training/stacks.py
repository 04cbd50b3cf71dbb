"""A configuration's stack on its samples, which it takes from the caches."""

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvsa_tune.config import Config
from mvsa_tune.embeddings.cache import expect_scattered_reads, open_vectors
from mvsa_tune.training.stack import IN_MEMORY, Samples, StackTrainer, normalised
from mvsa_tune.training.task import Task


def build_trainer(config: Config, task: Task) -> StackTrainer:
    """Put a configuration's samples on the device and build its stack."""
    count = len(task.labels)
    samples = Samples(
        vectors={
            modality: _load(task.path(encoder, modality), count, task.device, config.normalise)
            for modality, encoder in config.encoders.items()
        },
        labels=torch.from_numpy(task.labels).to(task.device),
        classes=task.classes,
    )
    train, validation, test = (
        [torch.from_numpy(part[one.fold]) for one in task.replicates]
        for part in (task.split.train, task.split.validation, task.split.test)
    )
    return StackTrainer(config, task.replicates, samples, train, validation, test)


@lru_cache(maxsize=16)
def _load(path: Path, count: int, device: str, normalise: str) -> Tensor:
    """The labelled samples' vectors on the device, once a process (whose sweep checked the file at its start).

    On a CPU what can stay in the cache's file stays there, shared by all processes: float32 that is taken as it is, and what would
    be large in memory. The rest becomes float32 in memory.
    """
    whole = open_vectors(path, mode="c")
    mapped = whole[:count]
    large = 4 * mapped.size > IN_MEMORY
    as_it_is = device == "cpu" and normalise == "none" and sys.byteorder == "little"
    if as_it_is and (large or mapped.dtype == np.float32):
        if large:
            expect_scattered_reads(whole)
        return torch.from_numpy(mapped)
    return normalised(torch.from_numpy(mapped.astype(np.float32)).to(device), normalise)
