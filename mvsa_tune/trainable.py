"""The Ray Tune adapter: one Tune trial trains one configuration's stack of replicates."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import tune
from torch import Tensor

from mvsa_tune.cache import Cache, open_vectors
from mvsa_tune.config import Config, Replicate
from mvsa_tune.splits import Split
from mvsa_tune.training import Samples, StackTrainer

# Where a result carries the trial's Outcome, and the metric that Tune sees: the mean over replicates.
OUTCOME = "outcome"
METRIC = "val_acc"


@dataclass(frozen=True)
class Task:
    """What every trial of a sweep shares. Small: the vectors stay in their caches.

    Attributes:
        caches: by encoder and modality.
        labels: `(N,)` of the labelled samples, which are the first N rows of every cache.
        classes: number of classes.
        split: rows by fold.
        replicates: the seeds and folds that each trial trains.
        device: `cpu` or `cuda`.
        threads: CPU threads a worker may use.
    """

    caches: Mapping[tuple[str, str], Cache]
    labels: NDArray[np.int64]
    classes: int
    split: Split
    replicates: tuple[Replicate, ...]
    device: str
    threads: int


class StackTrainable(tune.Trainable):
    """Trains `config_of(config)`; a worker process serves many trials and keeps the vectors on its device."""

    def setup(self, config: dict[str, Any], task: Task) -> None:  # type: ignore[override]
        """Take the shared task; called once a worker process."""
        self.task = task
        torch.set_num_threads(task.threads)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept the next trial, so that Tune reuses the process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Train to the end: one report a trial is all that a sweep without early stopping needs."""
        outcome = build_trainer(config_of(self.config), self.task).fit()
        return {METRIC: float(outcome.accuracy.max(axis=0).mean()), OUTCOME: outcome, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: a trial's rows are what lasts."""


def config_of(tune_config: Mapping[str, Any]) -> Config:
    """The configuration in what Tune hands a trial: `{"config": the fields as a plain dict}`."""
    return Config(**tune_config["config"])


def build_trainer(config: Config, task: Task) -> StackTrainer:
    """Put a configuration's samples on the device and build its stack."""
    count = len(task.labels)
    samples = Samples(
        vectors={
            modality: _load(task.caches[encoder, modality].path, count, task.device)
            for modality, encoder in config.encoders.items()
        },
        labels=torch.from_numpy(task.labels).to(task.device),
        classes=task.classes,
    )
    folds = [replicate.fold for replicate in task.replicates]
    train_rows, val_rows = (
        torch.from_numpy(np.stack([part[fold] for fold in folds])) for part in (task.split.train, task.split.validation)
    )
    return StackTrainer(config, task.replicates, samples, train_rows, val_rows)


@lru_cache(maxsize=16)
def _load(path: Path, count: int, device: str) -> Tensor:
    """The labelled samples' vectors as float32 on the device, once a process (whose sweep checked the file at its start)."""
    return torch.from_numpy(np.array(open_vectors(path)[:count], dtype=np.float32)).to(device)
