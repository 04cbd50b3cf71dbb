"""The Ray Tune adapter: one Tune trial trains replicates of one configuration, as one stack.

The driver imports it without torch, which is a second sooner.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ray import tune

from mvsa_tune.config import Config, Replicate
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.plugins import load_plugins

if TYPE_CHECKING:
    from mvsa_tune.finetuning.trainer import FineTuner, FinetuneTask
    from mvsa_tune.training.task import Task
    from mvsa_tune.training.trainer import StackTrainer

# The keys of a report to Tune: the trial's `TrialResult`, the metric (`TrialResult.scores`) and the resource that ASHA
# counts; between those reports, the share of the trial that is done, and its `Curves`.
RESULT = "result"
METRIC = "val_acc"
RESOURCE = "epochs"
PROGRESS = "progress"
CURVES = "curves"
REPORT_SECONDS = 10.0  # between two reports of a trial that is training, at least


class DivergedError(RuntimeError):
    """A loss that is not finite: a failure to Tune, which tries again as often as `--max-failures` says."""


class TrialTrainable(tune.Trainable):
    """Trains the `Trial` in its config; a worker process serves many trials and keeps the vectors, or the encoders."""

    def setup(self, config: dict[str, Any], task: "Task | FinetuneTask") -> None:  # type: ignore[override]
        """Take the shared task; called once a worker process."""
        import torch

        self.task = task
        self.trainer: StackTrainer | FineTuner | None = None
        self.ends: list[int] = []
        self.diverged = ""
        if task.driver:
            task.driver.check()
        load_plugins(task.plugins)
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
            trial = Trial.from_tune(self.config)
            config = trial.config
            self.trainer = self.task.build(config, trial.replicates)
            # Where a training goes on from a checkpoint, Tune's scheduler knows what it has gone past.
            ends = {*(() if trial.is_addition else self.task.milestones), config.epochs}
            self.ends = sorted(end for end in ends if max(1, self.trainer.epoch) <= end <= config.epochs)
        until = self.ends[0]
        result = self.trainer.advance(until, REPORT_SECONDS)
        if result is None:
            return {METRIC: 0.0, PROGRESS: self.trainer.progress, CURVES: self.trainer.so_far}
        if result.diverged.any():
            bad = result.diverged[result.diverged > 0]
            which = f"{len(bad)} of {len(result.diverged)} replicates"
            self.diverged = f"the loss of {which} was not finite, first in epoch {bad.min()}"
            return {METRIC: 0.0, RESULT: result}
        done = until == self.trainer.config.epochs
        self.ends.pop(0)
        return {METRIC: float(result.scores[-1]), RESOURCE: until, RESULT: result, "done": done}


@dataclass(frozen=True)
class Trial:
    """What one Tune trial trains.

    Attributes:
        config: the configuration.
        replicates: its seeds and folds that are to be trained.
        is_addition: whether they are added to others of the configuration that have finished: then they are trained to
            the end, whatever the scheduler stops.
    """

    config: Config
    replicates: tuple[Replicate, ...]
    is_addition: bool = False

    def to_tune(self) -> dict[str, str]:
        """Return the trial as Tune takes it: a text, because Tune copies its search space deeply for every trial."""
        return {"trial": json.dumps(asdict(self))}

    @staticmethod
    def from_tune(tune_config: Mapping[str, str]) -> "Trial":
        """Return the trial in what Tune hands over."""
        values = json.loads(tune_config["trial"])
        replicates = tuple(Replicate(**replicate) for replicate in values["replicates"])
        return Trial(Config(**values["config"]), replicates, values["is_addition"])
