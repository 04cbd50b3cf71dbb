"""Record each trial of a sweep as it ends, and show how far the others are. It runs in the driver, the only writer."""

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
from mvsa_tune.results.manifest import provenance
from mvsa_tune.results.store import Store
from mvsa_tune.training.result import Curves, TrialResult
from mvsa_tune.tune.mirror import Mirror
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.progress import Progress
from mvsa_tune.tune.tensorboard import TrialLog, varying
from mvsa_tune.tune.trainable import CURVES, PROGRESS, RESULT, Trial

# Reasons that are no fault of the trial's. Which of the two Ray gives depends on the moment.
NODE_DIED = "its node died"
OUT_OF_REACH = "its process is out of reach"


class Recorder(tune.Callback):  # type: ignore[misc]
    """Writes each trial to the store and to TensorBoard when it finishes, is stopped, or has failed for good."""

    def __init__(
        self, store: Store, plan: Plan, progress: Progress, mirror: Mirror | None = None, *, retries_lost: bool = False
    ) -> None:
        """Record nothing yet.

        Args:
            store: the results folder.
            plan: what runs.
            progress: the display in the terminal.
            mirror: the copy of the results folder to update, if there is one.
            retries_lost: whether trials that were lost with their nodes will be run again; else they are recorded as
                failed.
        """
        self.store = store
        self.plan = plan
        self.progress = progress
        self.mirror = mirror
        self.retries_lost = retries_lost
        searched = plan.search.space if plan.search else {}
        self.hparams = varying(plan.configs, [n for n, d in searched.items() if len(set(d.ends)) > 1])
        self.logs: dict[str, TrialLog] = {}  # of TensorBoard, of the trials that run, by id
        self.diverged: dict[str, TrialResult] = {}
        self.problem: OSError | None = None  # why nothing can be recorded any more
        self.lost: set[str] = set()  # trials whose nodes died too often for Tune, which says nothing of the trials

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune would save the callback to resume it, but a sweep resumes from its rows."""
        return {}

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Take signals back from Tune, which would end as if nothing were left to train."""
        machine.handle_signals()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Interrupt the sweep if that was requested and has not happened."""
        machine.check_interrupted()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show the trial as running."""
        self.progress.start(Trial.from_tune(trial.config).config.id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the result of a trial that is done, or that the scheduler has just stopped.

        It is taken out of Tune's report, which Tune would keep in memory and write again.
        """
        started = Trial.from_tune(trial.config)
        if PROGRESS in result:
            self._show(started, result[PROGRESS], result.pop(CURVES))
            return
        trial_result: TrialResult = result.pop(RESULT)
        if trial_result.diverged.any():
            self.diverged[started.config.id] = trial_result  # the trial raises next; there may be no other result of it
        elif result.get("done"):
            self.progress.finish(started.config, self._record(started, trial_result))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that a trial failed and is tried again."""
        self.progress.say(f"{Trial.from_tune(trial.config).config.name}: {reason_of(trial)}; trying again")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record why a trial failed, and what is whole of it."""
        failed, reason = Trial.from_tune(trial.config), reason_of(trial)
        config = failed.config
        if self.retries_lost and reason in (NODE_DIED, OUT_OF_REACH):
            self.lost.add(config.id)
            self.progress.say(f"{config.name}: {reason}; it runs again")
            return
        result = self.diverged.pop(config.id, None)
        with self._noting_problems():
            write_text_whole(self.store.folder / "failures" / f"{config.id}.txt", traceback_of(trial))
            if result is None:
                self.store.add_failure(config, failed.replicates, reason, self._provenance(config))
                if log := self.logs.pop(config.id, None):
                    log.fail()
        if result is not None:
            self._record(failed, result)
        self._mirror()
        self.progress.fail(config, reason)

    def _show(self, trial: Trial, share: float, curves: Curves) -> None:
        """Show how far a trial is, in the terminal and in TensorBoard."""
        config = trial.config
        self.progress.advance(config.id, share, curves.latest)
        with self._noting_problems():
            self._log(config).update(Curves.of(self.store.result(config.id), curves) if trial.is_addition else curves)

    def _log(self, config: Config) -> TrialLog:
        return self.logs.setdefault(config.id, TrialLog(self.store.folder / "tensorboard", config, self.hparams))

    def _record(self, trial: Trial, result: TrialResult) -> TrialResult:
        """Record a result; return it joined with what was recorded of other replicates."""
        config = trial.config
        with self._noting_problems():
            # The rows come last: they say that the rest is there.
            joined = self.store.add_predictions(config, trial.replicates, result)
            self._log(config).end(joined)
            del self.logs[config.id]
            self.store.add_rows(config, trial.replicates, result, self._provenance(config))
            if result.epochs == config.epochs and not result.diverged.any():
                Checkpoints(self.store.folder, config).finish()
        self._mirror()
        return joined

    def _provenance(self, config: Config) -> dict[str, str]:
        return provenance(self.plan.split.name, self.plan.dataset.fingerprint, self.plan.origins(config))

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error
            raise

    def _mirror(self) -> None:
        if self.mirror:
            self.mirror.update()


def traceback_of(trial: Any) -> str:
    """Return what Tune kept of a trial's failures, without Ray's colours."""
    return re.sub(r"\x1b\[\d+m", "", Path(trial.error_file).read_text(encoding="utf-8"))


def reason_of(trial: Any) -> str:
    """Return why a trial failed last, in a line."""
    text = traceback_of(trial).rpartition("Failure #")[2]  # Tune keeps those of all tries
    if "ray.exceptions.OutOfMemoryError" in text or "Task was killed due to the node running low on memory" in text:
        return "out of memory: the machine had too little left, and Ray ended the trial"
    if "node has died" in text or "ray.exceptions.NodeDiedError" in text:
        return NODE_DIED
    if "ray.exceptions.ActorUnavailableError" in text or "is temporarily unavailable" in text:
        return OUT_OF_REACH
    if "ray.exceptions.ActorDiedError" in text or "The actor died unexpectedly" in text:
        return "its process died"
    return last_line(text)


def last_line(traceback: str) -> str:
    """Return the line of a traceback that says what went wrong."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown error"
