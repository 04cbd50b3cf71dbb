"""The Ray Tune adapter: one Tune trial trains one configuration, all its replicates."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import tune
from torch import Tensor

from mvsa_tune.cache import Cache, expect_scattered_reads, open_vectors
from mvsa_tune.cluster import keep_freed_memory
from mvsa_tune.config import Config, Replicate
from mvsa_tune.finetune import FineTuner, FinetuneTask
from mvsa_tune.nodes import Driver
from mvsa_tune.splits import Split
from mvsa_tune.training import IN_MEMORY, Samples, StackTrainer, normalised

# Where a result carries the trial's Outcome, the metric that Tune sees (`Outcome.scores`), and the resource ASHA counts; or,
# between those, how much of the trial is done.
OUTCOME = "outcome"
METRIC = "val_acc"
RESOURCE = "epochs"
PROGRESS = "progress"


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
        milestones: epochs at which a trial reports, besides its last: those at which the scheduler may stop it.
        driver: on a cluster, what nodes are told of the driver's machine.
    """

    caches: Mapping[tuple[str, str], Cache]
    labels: NDArray[np.int64]
    classes: int
    split: Split
    replicates: tuple[Replicate, ...]
    device: str
    threads: int
    milestones: tuple[int, ...] = ()
    driver: Driver | None = None

    def path(self, encoder: str, modality: str) -> Path:
        """Where this machine has an encoder's vectors."""
        cache = self.caches[encoder, modality]
        return self.driver.vectors(cache) if self.driver else cache.path

    def build(self, config: Config) -> StackTrainer:
        """A configuration's training, from its beginning."""
        return build_trainer(config, self)


class DivergedError(RuntimeError):
    """A loss that is not finite. Tune sees a failure, and tries again as often as it was told to."""


class TrialTrainable(tune.Trainable):
    """Trains `config_of(config)`; a worker process serves many trials and keeps the vectors, or the encoders, in memory."""

    def setup(self, config: dict[str, Any], task: Task | FinetuneTask) -> None:  # type: ignore[override]
        """Take the shared task; called once a worker process."""
        self.task = task
        self.trainer: StackTrainer | FineTuner | None = None
        self.ends: list[int] = []
        self.diverged = ""
        if task.driver:
            task.driver.check()
        torch.set_num_threads(task.threads)
        keep_freed_memory()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept the next trial, so that Tune reuses the process."""
        self.config = new_config
        self.trainer = None
        self.diverged = ""
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next epoch at which to report, or a part of the way there.

        A loss that is not finite is reported first, without the resource (so that no rung holds it), and raised next.
        """
        if self.diverged:
            raise DivergedError(self.diverged)
        if self.trainer is None:
            config = config_of(self.config)
            self.trainer = self.task.build(config)
            # Where a training goes on from a checkpoint, Tune's scheduler knows what it has gone past.
            ends = {*self.task.milestones, config.epochs}
            self.ends = sorted(end for end in ends if max(1, self.trainer.epoch) <= end <= config.epochs)
        until = self.ends[0]
        outcome = self.trainer.advance(until)
        if outcome is None:
            return {METRIC: 0.0, PROGRESS: self.trainer.progress}
        if outcome.diverged.any():
            bad = outcome.diverged[outcome.diverged > 0]
            self.diverged = f"the loss of {len(bad)} of {len(outcome.diverged)} replicates was not finite, first in epoch {bad.min()}"
            return {METRIC: 0.0, OUTCOME: outcome}
        done = until == self.trainer.config.epochs
        self.ends.pop(0)
        return {METRIC: float(outcome.scores[-1]), RESOURCE: until, OUTCOME: outcome, "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: a trial's rows are what lasts."""


def tune_config(config: Config) -> dict[str, str]:
    """A configuration as Tune takes it. A text, because Tune copies its search space for every trial, deeply."""
    return {"config": json.dumps(asdict(config))}


def config_of(tune_config: Mapping[str, str]) -> Config:
    """The configuration in what Tune hands a trial."""
    return Config(**json.loads(tune_config["config"]))


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
    as_it_is = device == "cpu" and normalise == "none" and sys.byteorder == "little"
    large = 4 * mapped.size > IN_MEMORY
    if as_it_is and large:
        expect_scattered_reads(whole)
    if as_it_is and (large or mapped.dtype == np.float32):
        return torch.from_numpy(mapped)
    return normalised(torch.from_numpy(mapped.astype(np.float32)).to(device), normalise)
