"""The Ray Tune adapter: one Tune trial trains one configuration, all its replicates.

The driver imports it without torch, which is a second sooner.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ray import tune

from mvsa_tune.config import Config
from mvsa_tune.machine import keep_freed_memory

if TYPE_CHECKING:
    from mvsa_tune.finetuning.trainer import FineTuner, FinetuneTask
    from mvsa_tune.training.task import Task
    from mvsa_tune.training.trainer import StackTrainer

# Where a result carries the trial's TrialResult, the metric that Tune sees (`TrialResult.scores`), and the resource ASHA counts; or,
# between those, how much of the trial is done.
OUTCOME = "outcome"
METRIC = "val_acc"
RESOURCE = "epochs"
PROGRESS = "progress"


class DivergedError(RuntimeError):
    """A loss that is not finite. Tune sees a failure, and tries again as often as it was told to."""


class TrialTrainable(tune.Trainable):
    """Trains `config_of(config)`; a worker process serves many trials and keeps the vectors, or the encoders, in memory."""

    def setup(self, config: dict[str, Any], task: "Task | FinetuneTask") -> None:  # type: ignore[override]
        """Take the shared task; called once a worker process."""
        import torch

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
            self.trainer = self.task.build(config, self.task.replicates)
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
