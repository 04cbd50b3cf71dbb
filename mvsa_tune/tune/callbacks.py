"""Record each trial of a sweep as it ends, and show how far it is. It runs in the driver, the only writer."""

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from tqdm import tqdm

from mvsa_tune import machine
from mvsa_tune.config import Config
from mvsa_tune.files import write_text_whole
from mvsa_tune.finetuning.checkpoint import Checkpoints
from mvsa_tune.results.manifest import provenance
from mvsa_tune.results.store import Store
from mvsa_tune.training.result import TrialResult
from mvsa_tune.tune import tensorboard
from mvsa_tune.tune.mirror import Mirror
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.trainable import PROGRESS, RESULT, Trial

BAR = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}<{remaining}{postfix}"


class Progress:
    """The display of a sweep, whose remaining time follows from the estimated costs of the trials, not their number.

    On a terminal the bar stays on the last line; elsewhere (a log file) only the lines of finished trials are written.
    """

    def __init__(self, expected: int | None, *, quiet: bool) -> None:
        """Start the clock; `expected` is the number of trials, None if it is unknown; if `quiet`, nothing is shown."""
        self.expected, self.quiet, self.started = expected, quiet, time.perf_counter()
        self.costs: Mapping[str, float] = {}
        self.running: dict[str, float] = {}  # the finished share of each running trial, by id
        self.ended = 0
        self.best: tuple[float, str] | None = None  # accuracy and name
        bar, hidden = BAR if expected is not None else "{desc} {elapsed}{postfix}", quiet or not sys.stderr.isatty()
        self.bar = tqdm(total=expected, bar_format=bar, disable=hidden, dynamic_ncols=True, leave=False)
        self._show()

    def weigh(self, costs: Mapping[str, float]) -> None:
        """Take the estimated cost of each trial, by id, in any unit; a trial without an estimate costs 1."""
        self.costs = costs
        self.bar.total = sum(costs.values()) or self.expected

    def start(self, trial: str) -> None:
        """Show one more trial as running."""
        self.advance(trial, self.running.get(trial, 0.0))

    def advance(self, trial: str, share: float) -> None:
        """Show which share of a trial, from 0 to 1, is finished."""
        self.bar.update(self.costs.get(trial, 1.0) * (share - self.running.get(trial, 0.0)))
        self.running[trial] = share
        self._show()

    def finish(self, config: Config, result: TrialResult) -> None:
        """Show the accuracy of a trial that has ended; one that was stopped early cannot be the best."""
        best = result.at_best(result.accuracy)
        spread = f" ± {best.std(ddof=1):.3f}" if len(best) > 1 else ""
        text = f"{best.mean():.3f}{spread} (n {len(best)}) in {result.seconds:.1f} s"
        if result.epochs < config.epochs:
            text = f"stopped at epoch {result.epochs}: {text}"
        elif self.best is None or best.mean() > self.best[0]:
            self.best = (float(best.mean()), config.name)
        self._end(config, text)

    def fail(self, config: Config, reason: str) -> None:
        """Show that a trial has failed for good."""
        self._end(config, f"failed: {reason}")

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        if not self.quiet:
            tqdm.write(text)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def _end(self, config: Config, text: str) -> None:
        self.advance(config.id, 1.0)
        del self.running[config.id]
        self.ended += 1
        self.say(f"[{self._count()} {time.perf_counter() - self.started:6.1f} s] {config.name}: {text}")
        self._show()

    def _count(self) -> str:
        total = "" if self.expected is None else f"/{self.expected}"
        return f"{self.ended:>{max(0, len(total) - 1)}}{total}"

    def _show(self) -> None:
        best = f", best {self.best[0]:.3f} ({self.best[1]})" if self.best else ""
        self.bar.set_description_str(f"{self._count().strip()} trials", refresh=False)
        self.bar.set_postfix_str(f"{len(self.running)} running{best}")


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
        self.hparams = tensorboard.varying(plan.configs, [n for n, d in searched.items() if len(set(d.ends)) > 1])
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
            self.progress.advance(started.config.id, result[PROGRESS])
            return
        trial_result: TrialResult = result.pop(RESULT)
        if trial_result.diverged.any():
            self.diverged[started.config.id] = trial_result  # the trial raises next; there may be no other result of it
        elif result.get("done"):
            self._record(started, trial_result)
            self.progress.finish(started.config, trial_result)

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
        if result is not None:
            self._record(failed, result)
        self.progress.fail(config, reason)

    def _record(self, trial: Trial, result: TrialResult) -> None:
        config = trial.config
        with self._noting_problems():
            # The rows come last: they say that the rest is there.
            joined = self.store.add_predictions(config, trial.replicates, result)
            tensorboard.write_trial(self.store.folder / "tensorboard", config, joined, self.hparams)
            self.store.add_rows(config, trial.replicates, result, self._provenance(config))
            if result.epochs == config.epochs and not result.diverged.any():
                Checkpoints(self.store.folder, config).finish()

    def _provenance(self, config: Config) -> dict[str, str]:
        return provenance(self.plan.split.name, self.plan.dataset.fingerprint, self.plan.origins(config))

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = error
            raise
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
