"""Schedulers of Ray Tune: its ASHA, started from recorded rungs, or every trial to its end."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from mvsa_tune.config import Asha
from mvsa_tune.tune.trainable import METRIC, RESOURCE, Trial

NOBODY: Any = None  # the controller of a trial that is only replayed


class _LetWorkersStart:
    """A scheduler that gives a free worker to the first pending trial for which no worker is being started.

    Tune would take the first pending trial, and give up the worker that is being started for it: where trials are
    shorter than a worker's start, a node that joined would never get any.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the trial that a free worker runs next, or None."""
        inner = tune_controller._tune_controller  # the wrapper that schedulers get hides what is needed
        actors, is_started = inner._trial_to_actor, inner._actor_manager.is_actor_started
        for trial in tune_controller.get_trials():
            if trial.status == trial.PENDING and not (trial in actors and is_started(actors[trial])):
                return trial
        return None


class InOrder(_LetWorkersStart, FIFOScheduler):  # type: ignore[misc]
    """Every trial to its end, in the order given."""


class RecordedAsha(_LetWorkersStart, ASHAScheduler):  # type: ignore[misc]
    """Ray Tune's ASHA, where a configuration's bracket is the same after a restart."""

    def __init__(self, asha: Asha, epochs: int, recorded: Mapping[str, NDArray[np.float64]]) -> None:
        """Rebuild the rungs.

        Args:
            asha: grace period, reduction factor, brackets.
            epochs: those of a whole trial.
            recorded: by id of each recorded trial, its metric after each of its epochs.
        """
        super().__init__(
            time_attr=RESOURCE,
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=asha.grace_period,
            reduction_factor=asha.reduction_factor,
            brackets=asha.brackets,
        )
        for trial, curve in recorded.items():
            replayed: Any = SimpleNamespace(trial_id=trial, config=None)
            self.on_trial_add(NOBODY, replayed)
            for milestone in asha.milestones(epochs):
                if milestone <= len(curve):
                    self.on_trial_result(NOBODY, replayed, {RESOURCE: milestone, METRIC: float(curve[milestone - 1])})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a trial its bracket, drawn as Tune draws it from NumPy's global generator, but seeded by the trial."""
        config_id = Trial.from_tune(trial.config).config.id if trial.config else trial.trial_id
        before = np.random.get_state()
        np.random.seed(int(config_id[:8], 16))
        super().on_trial_add(tune_controller, trial)
        np.random.set_state(before)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Tune does; replicates added to a finished configuration go on, and enter no rung."""
        if trial.config and Trial.from_tune(trial.config).is_addition:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Enter the last result into a rung, except that of added seeds."""
        if not (trial.config and Trial.from_tune(trial.config).is_addition):
            super().on_trial_complete(tune_controller, trial, result)

    def rungs(self) -> list[dict[float, dict[str, float]]]:
        """Return, by bracket and epoch, the metric of each trial that came so far."""
        return [{epoch: dict(recorded) for epoch, recorded in bracket._rungs} for bracket in self._brackets]


def make_scheduler(asha: Asha | None, epochs: int, recorded: Mapping[str, NDArray[np.float64]]) -> TrialScheduler:
    """Return ASHA; or, without `asha` or for trials too short for it, a scheduler that stops nothing."""
    if asha is None or not asha.milestones(epochs):
        return InOrder()
    return RecordedAsha(asha, epochs, recorded)
