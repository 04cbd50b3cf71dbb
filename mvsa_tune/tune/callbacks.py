"""Records every trial of a sweep as it ends. It runs in the driver: the only writer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from mvsa_tune import machine
from mvsa_tune.config import Config
from mvsa_tune.files import write_text_whole
from mvsa_tune.finetuning.checkpoint import Checkpoints
from mvsa_tune.results.provenance import provenance
from mvsa_tune.results.store import Store
from mvsa_tune.training.result import TrialResult
from mvsa_tune.tune import tensorboard
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.progress import Progress
from mvsa_tune.tune.trainable import OUTCOME, PROGRESS, config_of

# What is no fault of the trial's. Which of the two Ray tells depends on the moment.
NODE_DIED = "its node died"
OUT_OF_REACH = "its process is out of reach"


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes each trial to the store and to TensorBoard when it finishes, is stopped, or has failed for good."""

    def __init__(self, store: Store, plan: Plan, progress: Progress, *, forgiving: bool = False) -> None:
        """Start.

        Args:
            store: where to.
            plan: what runs.
            progress: what the person sees.
            forgiving: whether trials that were lost with their nodes are left to be run again, in place of being recorded as failed.
        """
        self.store = store
        self.plan = plan
        self.progress = progress
        self.hparams = tensorboard.varying(plan.configs)
        self.diverged: dict[str, TrialResult] = {}
        self.problem: OSError | None = None  # why nothing can be recorded any more
        self.forgiving = forgiving
        self.lost: set[str] = set()  # trials whose nodes died too often for Tune: they are none the worse for it

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks in order to resume them, and a sweep resumes from its rows instead."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Interrupt the sweep if that was asked for and has not happened."""
        machine.check()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell the progress display."""
        self.progress.start(config_of(trial.config).id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the outcome of a trial that is done, or that the scheduler has just stopped.

        It is taken out of Tune's result, which Tune would keep in memory and write again.
        """
        config = config_of(trial.config)
        if PROGRESS in result:
            self.progress.advance(config.id, result[PROGRESS])
            return
        outcome: TrialResult = result.pop(OUTCOME)
        if outcome.diverged.any():
            self.diverged[config.id] = outcome  # the trial raises next; this may be all that there will be of it
        elif result.get("done"):
            self._record(config, outcome)
            self.progress.finish(config, outcome)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed and is tried again."""
        config = config_of(trial.config)
        self.progress.say(f"{config.name}: {reason_of(trial)}; trying again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record why a trial failed, and what is whole of it."""
        config, reason = config_of(trial.config), reason_of(trial)
        if self.forgiving and reason in (NODE_DIED, OUT_OF_REACH):
            self.lost.add(config.id)
            self.progress.say(f"{config.name}: {reason}; it runs again")
            return
        outcome = self.diverged.pop(config.id, None)
        with self._noting_problems():
            write_text_whole(self.store.folder / "failures" / f"{config.id}.txt", traceback_of(trial))
            if outcome is None:
                self.store.add_failure(config, reason, provenance(self.plan, config))
        if outcome is not None:
            self._record(config, outcome)
        self.progress.fail(config, reason)

    def _record(self, config: Config, outcome: TrialResult) -> None:
        with self._noting_problems():
            # The rows come last: they say that the rest is there.
            tensorboard.write_trial(self.store.folder / "tensorboard", config, outcome, self.hparams)
            self.store.add(config, outcome, provenance(self.plan, config))
            if outcome.epochs == config.epochs and not outcome.diverged.any():
                Checkpoints(self.store.folder, config).finish()

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error
            raise


def traceback_of(trial: Any) -> str:
    """What Tune kept of a trial's failures, without Ray's colours."""
    return re.sub(r"\x1b\[\d+m", "", Path(trial.error_file).read_text(encoding="utf-8"))


def reason_of(trial: Any) -> str:
    """Why a trial failed last, in a line."""
    told = traceback_of(trial).rpartition("Failure #")[2]  # Tune keeps those of all tries
    if "ray.exceptions.OutOfMemoryError" in told or "Task was killed due to the node running low on memory" in told:
        return "out of memory: the machine had too little left, and Ray ended the trial"
    if "node has died" in told or "ray.exceptions.NodeDiedError" in told:
        return NODE_DIED
    if "ray.exceptions.ActorUnavailableError" in told or "is temporarily unavailable" in told:
        return OUT_OF_REACH
    if "ray.exceptions.ActorDiedError" in told or "The actor died unexpectedly" in told:
        return "its process died"
    return last_line(told)


def last_line(traceback: str) -> str:
    """Return the line of a traceback that says what went wrong."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"
